"""Checks of the operating system: kernel, C library, processor, systemd, limits."""

from __future__ import annotations

import re

from installer.checks.findings import Verdict, Wanted, blocker, check, note, ok, unknown, warning
from installer.checks.host import Host
from installer.checks.reading import hard_limit, mount_of, number, version, words

KERNEL_MIN = (4, 18)
GLIBC_MIN = (2, 28)
SYSTEMD_MIN = (239,)
OPEN_FILES_MIN = 65536
PROCESSES_MIN = 4096
_DISTRIBUTION = "use RHEL 8, Ubuntu 20.04, Debian 11, SLES 15 SP3 or later"


@check(
    "system.kernel",
    looks_at="`/proc/sys/kernel/osrelease`, at least 4.18",
    why="older kernels lack system calls and cgroup controls that the services use",
    fix="uname -r; install and boot a newer kernel of the distribution",
)
def kernel(host: Host, _: Wanted) -> Verdict:
    release = words(host, "/proc/sys/kernel/osrelease")
    if version(release) < KERNEL_MIN:
        return blocker(f"kernel {release}, at least 4.18 is needed")
    return ok(f"kernel {release}")


@check(
    "system.glibc",
    looks_at="the C library, glibc of at least 2.28",
    why="the bundle's programs are built for glibc 2.28 and do not start with an older one or musl",
    fix=f"ldd --version; {_DISTRIBUTION}",
)
def glibc(host: Host, _: Wanted) -> Verdict:
    name, told = host.libc()
    if name != "glibc":
        return blocker(f"{name} in place of glibc")
    return (blocker if version(told) < GLIBC_MIN else ok)(f"glibc {told}")


@check(
    "system.architecture",
    looks_at="the machine's architecture, x86_64",
    why="the bundle holds programs for x86_64 alone",
    fix="uname -m; install on an x86_64 server",
)
def architecture(host: Host, _: Wanted) -> Verdict:
    machine = host.machine()
    return (ok if machine == "x86_64" else blocker)(machine)


@check(
    "system.processor",
    looks_at="AVX2, FMA and F16C among the flags of `/proc/cpuinfo`",
    why="the embedded llama.cpp ends with an illegal instruction on a processor without them",
    fix="grep -o -m1 avx2 /proc/cpuinfo; in a virtual machine give it the processor type 'host'",
)
def processor(host: Host, _: Wanted) -> Verdict:
    flags = next(
        (line for line in host.read("/proc/cpuinfo").splitlines() if line.startswith("flags")), ""
    )
    missing = [flag for flag in ("avx2", "fma", "f16c") if flag not in flags.split()]
    return warning(f"missing: {', '.join(missing)}") if missing else ok("AVX2, FMA, F16C")


@check(
    "system.systemd",
    looks_at="`systemctl --version`, at least 239",
    why="the services, their sockets and their hardening are systemd units",
    fix=f"systemctl --version; {_DISTRIBUTION}",
)
def systemd(host: Host, _: Wanted) -> Verdict:
    try:
        told = host.run("systemctl", "--version").out.partition("\n")[0]
    except FileNotFoundError:
        return blocker("systemd is not installed")
    return (blocker if version(told) < SYSTEMD_MIN else ok)(told[:60])


@check(
    "system.init",
    looks_at="the name of process 1, systemd",
    why="units are started by a systemd that runs; one that is installed alone starts nothing",
    fix="ps -p 1; boot the server with systemd, or in a container start /sbin/init",
)
def init(host: Host, _: Wanted) -> Verdict:
    name = words(host, "/proc/1/comm")
    return (ok if name == "systemd" else blocker)(f"process 1 is {name or 'not to be seen'}")


@check(
    "system.container",
    looks_at="`/run/systemd/container`, `/.dockerenv`, `/run/.containerenv`",
    why="in a container devices, limits and mounts come from outside and may change with it",
    fix="systemd-detect-virt; install on the server itself where that is possible",
)
def container(host: Host, _: Wanted) -> Verdict:
    kind = words(host, "/run/systemd/container")
    for path, name in (("/.dockerenv", "docker"), ("/run/.containerenv", "podman")):
        kind = kind or (name if host.facts(path) else "")
    return note(f"a container ({kind})") if kind else ok("no container")


@check(
    "system.hostname",
    looks_at="`/proc/sys/kernel/hostname`",
    why="the certificate of the endpoint and the node's name are made of the host's name",
    fix="hostnamectl set-hostname NAME",
)
def hostname(host: Host, _: Wanted) -> Verdict:
    name = words(host, "/proc/sys/kernel/hostname")
    if name.partition(".")[0] in {"", "localhost", "(none)"}:
        return warning(f"the host is called {name or 'nothing'!r}")
    if not re.fullmatch(r"(?!-)[A-Za-z0-9.-]{1,253}(?<!-)", name):
        return warning("the host's name has letters that no certificate may hold")
    return ok(name)


@check(
    "system.locale",
    looks_at="whether the locale is one of UTF-8",
    why="the console draws its tables with characters of UTF-8, and falls back to ASCII without",
    fix="localectl set-locale LANG=C.UTF-8",
)
def locale(host: Host, _: Wanted) -> Verdict:
    return ok("UTF-8") if host.speaks_utf8() else note("the locale is not one of UTF-8")


@check(
    "system.cgroups",
    looks_at="`/sys/fs/cgroup/cgroup.controllers`",
    why="with cgroups v2 engines are bounded and accounted for as one unit; v1 bounds them in part",
    fix="grubby --update-kernel=ALL --args=systemd.unified_cgroup_hierarchy=1, then reboot",
)
def cgroups(host: Host, _: Wanted) -> Verdict:
    if host.facts("/sys/fs/cgroup/cgroup.controllers"):
        return ok("cgroups v2")
    return warning("cgroups v1, or none")


@check(
    "system.open_files",
    looks_at="`fs.nr_open` and `fs.file-max`, at least 65,536",
    why="each request holds two sockets, and no service may have more files than the kernel allows",
    fix="sysctl -w fs.nr_open=1048576 fs.file-max=1048576, and keep it in /etc/sysctl.d",
)
def open_files(host: Host, _: Wanted) -> Verdict:
    most = min(
        number(host, f"/proc/sys/fs/{name}", OPEN_FILES_MIN) for name in ("nr_open", "file-max")
    )
    return (ok if most >= OPEN_FILES_MIN else warning)(f"at most {most:,} open files")


@check(
    "system.processes",
    looks_at="`kernel.pid_max`, `kernel.threads-max` and the hard limit of processes, at least "
    "4,096",
    why="an engine of eight GPUs starts some hundred threads for each of them",
    fix="sysctl -w kernel.pid_max=4194304; raise nproc in /etc/security/limits.d",
)
def process_count(host: Host, _: Wanted) -> Verdict:
    bounds = [
        number(host, f"/proc/sys/kernel/{name}", PROCESSES_MIN)
        for name in ("pid_max", "threads-max")
    ]
    limit = hard_limit(host, "Max processes")
    most = min([*bounds, limit] if limit is not None else bounds)
    return (ok if most >= PROCESSES_MIN else warning)(f"at most {most:,} processes")


@check(
    "system.privileges",
    looks_at="whether this runs as root",
    why="the installation makes users, units and folders; some checks see more as root",
    fix="run it again with sudo, to see everything and to install",
)
def privileges(host: Host, _: Wanted) -> Verdict:
    return ok("root") if host.is_root() else note("not root: some checks cannot see all")


@check(
    "system.writable",
    looks_at="the mounts of `/opt`, `/var/lib`, `/var/log`, `/etc` and `/usr/bin`",
    why="the appliance's files are laid there, and its state is written there",
    fix="mount -o remount,rw FOLDER; a disk that went read-only by itself: journalctl -k -p err",
)
def writable(host: Host, _: Wanted) -> Verdict:
    fixed = []
    for path in ("/opt", "/var/lib", "/var/log", "/etc", "/usr/bin"):
        mount = mount_of(host, path)
        if mount is not None and "ro" in mount.options:
            fixed.append(path)
    return blocker(f"read-only: {', '.join(fixed)}") if fixed else ok("all can be written")


@check(
    "system.noexec_opt",
    looks_at="the option `noexec` on the mount of `/opt`",
    why="the appliance's programs run from /opt/crosslogic",
    fix="mount -o remount,exec /opt, and take noexec out of /etc/fstab",
)
def noexec_opt(host: Host, _: Wanted) -> Verdict:
    mount = mount_of(host, "/opt")
    if mount is None:
        return unknown("the mounts cannot be seen", "findmnt -T /opt")
    if "noexec" in mount.options:
        return blocker(f"{mount.point} is mounted noexec", f"mount -o remount,exec {mount.point}")
    return ok("programs may run from /opt")


@check(
    "system.reboot",
    looks_at="`/run/reboot-required`, and modules of the running kernel in `/lib/modules`",
    why="after an upgrade of kernel or driver the running one finds its modules no more",
    fix="reboot, then run the preflight again",
)
def reboot(host: Host, _: Wanted) -> Verdict:
    if host.facts("/run/reboot-required"):
        return warning("an upgrade of the system waits for a reboot")
    release = words(host, "/proc/sys/kernel/osrelease")
    installed = host.names("/lib/modules") or host.names("/usr/lib/modules")
    if installed and release not in installed:
        return warning(f"no modules of the running kernel {release} are installed any more")
    return ok("no reboot is waited for")


CHECKS = (
    kernel, glibc, architecture, processor, systemd, init, container, hostname, locale, cgroups,
    open_files, process_count, privileges, writable, noexec_opt, reboot,
)  # fmt: skip
