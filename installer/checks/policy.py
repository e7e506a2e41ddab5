"""Checks of what a security policy forbids."""

from __future__ import annotations

import re

from installer.checks.findings import Verdict, Wanted, blocker, check, note, ok, unknown, warning
from installer.checks.host import Host
from installer.checks.pci import hardware, module_version
from installer.checks.reading import mount_of, number, processes, table, words

_SCANNERS = {
    "falcon-sensor": "CrowdStrike Falcon", "wdavdaemon": "Microsoft Defender", "ds_agent": "Deep "
    "Security",
    "clamonacc": "ClamAV", "cbagentd": "Carbon Black", "sentinelone-age": "SentinelOne",
    "savd": "Sophos", "isecespd": "Trellix",
}  # fmt: skip


@check(
    "policy.selinux",
    looks_at="`/sys/fs/selinux/enforce`, and whether a file context for `/opt/crosslogic` is there",
    why="enforcing without labels, systemd may be refused the programs, which looks like a "
    "silent exit",
    fix="semanage fcontext -a -t bin_t '/opt/crosslogic/.*/bin/.*'; after installing: restorecon "
    "-R /opt/crosslogic",
)
def selinux(host: Host, _: Wanted) -> Verdict:
    enforcing = words(host, "/sys/fs/selinux/enforce")
    if enforcing != "1":
        return ok("permissive" if enforcing == "0" else "SELinux is off")
    contexts = "/etc/selinux/targeted/contexts/files"
    if any("/opt/crosslogic" in words(host, f"{contexts}/{name}") for name in host.names(contexts)):
        return ok("enforcing, and /opt/crosslogic has its contexts")
    return warning("enforcing, and no context for /opt/crosslogic is there")


@check(
    "policy.fapolicyd",
    looks_at="fapolicyd among the processes, and `/etc/fapolicyd/trust.d/crosslogic`",
    why="fapolicyd runs only programs it trusts: the services would be refused their interpreter",
    fix="after installing: fapolicyd-cli --file add /opt/crosslogic/ --trust-file crosslogic; "
    "fapolicyd-cli --update",
)
def fapolicyd(host: Host, _: Wanted) -> Verdict:
    if "fapolicyd" not in processes(host).values():
        return ok("fapolicyd does not run")
    try:
        trusted = host.facts("/etc/fapolicyd/trust.d/crosslogic") is not None
    except PermissionError:
        return unknown("fapolicyd runs; run as root to see what it trusts")
    return ok("fapolicyd trusts the appliance") if trusted else warning("fapolicyd runs")


@check(
    "policy.apparmor",
    looks_at="`/sys/kernel/security/apparmor/profiles` for profiles of the appliance's programs",
    why="a profile that an administrator wrote for another version may forbid what is new",
    fix="aa-status; aa-complain PROFILE while the upgrade is tried",
)
def apparmor(host: Host, _: Wanted) -> Verdict:
    try:
        told = words(host, "/sys/kernel/security/apparmor/profiles")
    except PermissionError:
        return unknown("run as root to see the profiles of AppArmor")
    if re.search(r"crosslogic.*\(enforce\)", told):
        return note("a profile of the appliance is enforced")
    return ok("no profile of the appliance")


@check(
    "policy.fips",
    looks_at="`/proc/sys/crypto/fips_enabled`",
    why="the appliance brings its own OpenSSL, which is not the validated module of the "
    "distribution",
    fix="tell the security officer; the distribution's mode itself need not be changed",
)
def fips(host: Host, _: Wanted) -> Verdict:
    on = number(host, "/proc/sys/crypto/fips_enabled") == 1
    return note("FIPS mode is on") if on else ok("FIPS mode is off")


@check(
    "policy.noexec_state",
    looks_at="the option `noexec` on the mount of `/var/lib`",
    why="engines that were added as bundles have programs there",
    fix="mount -o remount,exec /var/lib, or keep the engines' folder on another mount",
)
def noexec_state(host: Host, wanted: Wanted) -> Verdict:
    mount = mount_of(host, "/var/lib/crosslogic")
    if mount is not None and "noexec" in mount.options:
        return (warning if wanted.is_node else note)(f"{mount.point} is mounted noexec")
    return ok("programs may run from /var/lib")


@check(
    "policy.noexec_tmp",
    looks_at="the option `noexec` on the mount of `/tmp`",
    why="the bundle cannot be started from there; the services need no programs in /tmp",
    fix="unpack the bundle in another folder, such as /opt or /root",
)
def noexec_tmp(host: Host, _: Wanted) -> Verdict:
    mount = mount_of(host, "/tmp")  # noqa: S108 (looked at, nothing is written)
    if mount is not None and "noexec" in mount.options:
        return note(f"{mount.point} is mounted noexec")
    return ok("programs may run from /tmp")


@check(
    "policy.audit",
    looks_at="`auditctl -s`",
    why="rules that are immutable until the next boot cannot be added for the appliance's files",
    fix="add the rules to /etc/audit/rules.d and reboot, when the appliance is to be audited",
)
def audit(host: Host, _: Wanted) -> Verdict:
    if "auditd" not in processes(host).values():
        return ok("auditd does not run")
    try:
        told = host.run("auditctl", "-s")
    except FileNotFoundError:
        return ok("auditctl is not installed")
    if told.code != 0:
        return unknown("run as root to see the state of auditd")
    fixed = re.search(r"enabled 2\b", told.out)
    return note("the rules of auditd are immutable") if fixed else ok("auditd runs")


@check(
    "policy.lockdown",
    looks_at="`/sys/kernel/security/lockdown`",
    why="in lockdown the kernel loads only signed modules, and the driver's must be one",
    fix="sign the driver's module: see gpu.secure_boot; or boot without lockdown=",
)
def lockdown(host: Host, _: Wanted) -> Verdict:
    try:
        told = words(host, "/sys/kernel/security/lockdown")
    except PermissionError:
        return unknown("run as root to see the kernel's lockdown")
    state = re.search(r"\[(\w+)\]", told)
    if state is None or state[1] == "none":
        return ok("no lockdown")
    waits = hardware(host).nvidia and not module_version(host)
    return (warning if waits else note)(f"lockdown: {state[1]}")


@check(
    "policy.modules",
    looks_at="`kernel.modules_disabled` while the driver is not loaded",
    why="no module can be loaded until the next boot, the driver's neither",
    fix="load the driver at boot: echo nvidia > /etc/modules-load.d/nvidia.conf; reboot",
)
def modules(host: Host, _: Wanted) -> Verdict:
    shut = number(host, "/proc/sys/kernel/modules_disabled") == 1
    if shut and hardware(host).nvidia and not module_version(host):
        return warning("no module can be loaded any more, and the driver is not")
    return ok(
        "no more modules can be loaded, and none is missing" if shut else "modules may be loaded"
    )


@check(
    "policy.umask",
    looks_at="`Umask` of this process",
    why="folders made by hand with 077 cannot be read by the services; the installer sets its "
    "own modes",
    fix="umask 022, when you make folders for models or certificates by hand",
)
def umask(host: Host, _: Wanted) -> Verdict:
    told = table(words(host, "/proc/self/status")).get("Umask", "")
    shown = told or "not told"
    strict = told and int(told, 8) & 0o055
    return note(f"umask {shown}") if strict else ok(f"umask {shown}")


@check(
    "policy.sudo",
    looks_at="`secure_path` in `/etc/sudoers`",
    why="`sudo cic` and `sudo cic-installer` are found only through this path",
    fix="visudo: add /usr/bin to secure_path, or type /usr/bin/cic",
)
def sudo(host: Host, _: Wanted) -> Verdict:
    try:
        told = words(host, "/etc/sudoers")
    except PermissionError:
        return unknown("run as root to see /etc/sudoers")
    path = re.search(r"^\s*Defaults\s+secure_path\s*=\s*\"?([^\"\n]+)", told, re.MULTILINE)
    if path and "/usr/bin" not in path[1].strip().split(":"):
        return warning("secure_path leaves out /usr/bin")
    return ok("/usr/bin is in sudo's path")


@check(
    "policy.crypto",
    looks_at="`/etc/crypto-policies/state/current`",
    why="FUTURE refuses keys and ciphers that older clients on the LAN still have",
    fix="update-crypto-policies --show; DEFAULT where clients cannot connect",
)
def crypto(host: Host, _: Wanted) -> Verdict:
    told = words(host, "/etc/crypto-policies/state/current")
    return note(told) if told.startswith("FUTURE") else ok(told or "no system-wide policy")


@check(
    "policy.ptrace",
    looks_at="`kernel.yama.ptrace_scope`",
    why="at 3 nobody, not even root, can look into a process that stands still",
    fix="sysctl -w kernel.yama.ptrace_scope=1 takes a reboot when it was 3",
)
def ptrace(host: Host, _: Wanted) -> Verdict:
    scope = number(host, "/proc/sys/kernel/yama/ptrace_scope")
    return (note if scope == 3 else ok)(f"ptrace_scope {scope}")


@check(
    "policy.namespaces",
    looks_at="`user.max_user_namespaces`",
    why="without user namespaces engines run without a sandbox of their own; the services need "
    "none",
    fix="sysctl -w user.max_user_namespaces=15000, when sandboxes are wanted",
)
def namespaces(host: Host, _: Wanted) -> Verdict:
    none = words(host, "/proc/sys/user/max_user_namespaces") == "0"
    return note("user namespaces are off") if none else ok("user namespaces are on, or not told")


@check(
    "policy.hidepid",
    looks_at="the option `hidepid` on the mount of `/proc`",
    why="the agent, without privileges, then cannot name the processes on its GPUs",
    fix="mount -o remount,hidepid=0 /proc, when the names are wanted",
)
def hidepid(host: Host, _: Wanted) -> Verdict:
    mount = mount_of(host, "/proc")
    options = mount.options if mount is not None else frozenset()
    hidden = options & {"hidepid=1", "hidepid=2", "hidepid=invisible", "hidepid=noaccess"}
    return note(f"/proc is mounted {', '.join(sorted(hidden))}") if hidden else ok("not set")


@check(
    "policy.image",
    looks_at="`/run/ostree-booted`",
    why="the system is an image: /usr/bin cannot be written, where the commands are linked",
    fix="install into a toolbox or on a package-based system; --prefix ROOT for an image of your "
    "own",
)
def image(host: Host, _: Wanted) -> Verdict:
    if host.facts("/run/ostree-booted"):
        return blocker("the system runs from an OSTree image")
    return ok("no image")


@check(
    "policy.scanner",
    looks_at="known virus scanners among the processes",
    why="one that reads models as they are opened makes loading slower and may take them away",
    fix="except /opt/crosslogic and /var/lib/crosslogic from scanning on access",
)
def scanner(host: Host, _: Wanted) -> Verdict:
    seen = sorted({_SCANNERS[name] for name in processes(host).values() if name in _SCANNERS})
    return note(f"{', '.join(seen)} runs") if seen else ok("none that is known")


CHECKS = (
    selinux, fapolicyd, apparmor, fips, noexec_state, noexec_tmp, audit, lockdown, modules, umask,
    sudo, crypto, ptrace, namespaces, hidepid, image, scanner,
)  # fmt: skip
