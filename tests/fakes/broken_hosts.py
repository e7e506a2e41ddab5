"""Servers written down: files, links and outputs of commands, whole or broken in one place."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from installer.checks.gpu import PROCESSES, QUERY
from installer.checks.host import FileFacts, Output, SpaceFacts
from installer.checks.reading import GIB

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
BUILT_AT = datetime(2026, 5, 1, tzinfo=UTC)
RELEASE = "5.14.0-503.el9.x86_64"
DRIVER = "570.86.15"
HANGS = Output(-1, "", "hangs")
MOUNT = "{id} 1 253:0 / {point} rw,relatime shared:1 - {type} /dev/vda1 rw"
TCP_HEAD = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt uid to inode"
)
GPU_ROW = "{index}, Enabled, 0, Disabled, Default, 9.0, 35"
_PROC_SYS = {
    "kernel/osrelease": RELEASE, "kernel/hostname": "gpu-01", "kernel/pid_max": "4194304",
    "kernel/threads-max": "8000000", "fs/nr_open": "1048576", "fs/file-max": "9000000",
    "vm/overcommit_memory": "0", "net/core/somaxconn": "4096", "kernel/numa_balancing": "0",
    "net/ipv4/ip_local_port_range": "32768\t60999", "net/ipv6/conf/all/disable_ipv6": "1",
    "crypto/fips_enabled": "0", "user/max_user_namespaces": "15000",
}  # fmt: skip
_FILES = {
    "/proc/cpuinfo": "processor\t: 0\nflags\t\t: fpu sse4_2 avx avx2 fma f16c\n",
    "/proc/1/comm": "systemd\n",
    "/proc/700/comm": "chronyd\n",
    "/proc/self/limits": "Limit          Soft Limit    Hard Limit    Units\n"
    "Max processes             127000               127000               processes\n"
    "Max locked memory         8388608              8388608              bytes\n",
    "/proc/self/status": "Name:\tpython3\nUmask:\t0022\n",
    "/proc/self/mountinfo": "\n".join(
        [
            MOUNT.format(id=20, point="/", type="xfs"),
            MOUNT.format(id=21, point="/dev/shm", type="tmpfs"),
        ]
    ),
    "/proc/meminfo": "MemTotal: 528000000 kB\nMemAvailable: 500000000 kB\nSwapTotal: 4000000 kB\n"
    "SwapFree: 4000000 kB\nHugePages_Total: 0\nHugepagesize: 2048 kB\n",
    "/proc/net/fib_trie": "Main:\n  |-- 127.0.0.1\n    /32 host LOCAL\n"
    "  |-- 10.20.0.5\n    /32 host LOCAL\n",
    "/proc/net/tcp": TCP_HEAD + "\n",
    "/etc/hosts": "127.0.0.1 localhost\n10.20.0.5 gpu-01\n",
    "/etc/passwd": "root:x:0:0:root:/root:/bin/bash\n",
    "/etc/sudoers": 'Defaults secure_path="/usr/sbin:/usr/bin"\n',
    "/sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
    "/dev/shm/.keep": "",
    "/sys/class/rtc/rtc0/since_epoch": str(int(NOW.timestamp())),
    "/sys/class/net/eth0/operstate": "up\n",
    "/sys/class/net/eth0/mtu": "1500\n",
    "/sys/class/net/eth0/device/vendor": "0x8086",
    "/sys/dev/block/253:0/../queue/rotational": "0",
    f"/lib/modules/{RELEASE}/modules.dep": "",
}


@dataclass(slots=True)
class WrittenHost:
    """A server that is written down; what is not written is not there."""

    files: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    inodes: dict[str, int] = field(default_factory=dict)
    commands: dict[tuple[str, ...], Output] = field(default_factory=dict)
    spaces: dict[str, SpaceFacts] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    named_variables: set[str] = field(default_factory=set)
    owners: dict[int, str] = field(default_factory=dict)
    architecture: str = "x86_64"
    c_library: tuple[str, str] = ("glibc", "2.34")
    latency_s: float = 0.001
    time: datetime = NOW
    root: bool = True
    never: threading.Event = field(default_factory=threading.Event)

    def read(self, path: str) -> str:
        if path in self.hidden:
            raise PermissionError(path)
        if path not in self.files:
            raise FileNotFoundError(path)
        return self.files[path]

    def names(self, path: str) -> tuple[str, ...]:
        start = path.rstrip("/") + "/"
        found = {
            known[len(start) :].partition("/")[0]
            for known in [*self.files, *self.links]
            if known.startswith(start)
        }
        return tuple(sorted(found))

    def facts(self, path: str) -> FileFacts | None:
        if path in self.hidden:
            raise PermissionError(path)
        is_folder = bool(self.names(path))
        if path not in self.files and not is_folder:
            return None
        return FileFacts(self.modes.get(path, 0o644), self.inodes.get(path, 1), is_folder)

    def link(self, path: str) -> str | None:
        return self.links.get(path)

    def space(self, path: str) -> SpaceFacts:
        inside = [place for place in self.spaces if path == place or path.startswith(place + "/")]
        if inside:
            return self.spaces[max(inside, key=len)]
        return SpaceFacts(900 * GIB, 1000 * GIB, 10_000_000, 10_000_000)

    def run(self, *command: str) -> Output:
        if command not in self.commands:
            raise FileNotFoundError(command[0])
        answer = self.commands[command]
        if answer is HANGS:
            self.never.wait()  # as a program that hangs in the kernel: nothing ends it
        return answer

    def variables(self) -> frozenset[str]:
        return frozenset(self.named_variables)

    def no_proxy_covers(self, address: str) -> bool:
        return "no_proxy" in self.named_variables

    def speaks_utf8(self) -> bool:
        return True

    def is_root(self) -> bool:
        return self.root

    def machine(self) -> str:
        return self.architecture

    def libc(self) -> tuple[str, str]:
        return self.c_library

    def now(self) -> datetime:
        return self.time

    def own_processes(self) -> frozenset[str]:
        return frozenset({"1"})

    def socket_owner(self, inode: int) -> str | None:
        return self.owners.get(inode)

    def sync_latency_s(self, path: str) -> float:
        return self.latency_s

    def mount(self, point: str, kind: str = "xfs", options: str = "rw,relatime") -> None:
        line = MOUNT.format(id=30, point=point, type=kind).replace("rw,relatime", options)
        self.files["/proc/self/mountinfo"] += "\n" + line

    def listen(self, port: int, owner: str, inode: int = 4711) -> None:
        row = f"   0: 00000000:{port:04X} 00000000:0000 0A 0:0 0:0 0 0 0 {inode}\n"
        self.files["/proc/net/tcp"] += row
        self.owners[inode] = owner

    def start(self, process: int, name: str, *line: str) -> None:
        self.files[f"/proc/{process}/comm"] = name + "\n"
        self.files[f"/proc/{process}/cmdline"] = "\0".join([*line, ""])


def gateway() -> WrittenHost:
    """A server in good health without GPUs."""
    host = WrittenHost(files=dict(_FILES))
    host.files.update({f"/proc/sys/{name}": value + "\n" for name, value in _PROC_SYS.items()})
    host.links["/etc/localtime"] = "/usr/share/zoneinfo/Europe/Berlin"
    host.files["/etc/localtime"] = "TZif2"
    host.commands.update(
        {
            ("systemctl", "--version"): Output(0, "systemd 252 (252-46.el9)\n+PAM\n"),
            ("getent", "ahosts", "gpu-01"): Output(0, "10.20.0.5 STREAM gpu-01\n"),
            ("timedatectl", "show", "--property=NTPSynchronized", "--value"): Output(0, "yes\n"),
            ("dmesg", "--notime"): Output(0, "Linux version 5.14\n"),
            ("nft", "list", "ruleset"): Output(0, ""),
        }
    )
    return host


def node(gpus: int = 8) -> WrittenHost:
    """A node in good health: eight GPUs behind four NVSwitches, driver and services as they are."""
    host = gateway()
    for index in range(gpus):
        place = f"/sys/bus/pci/devices/0000:{index + 16:02x}:00.0"
        host.files |= {
            f"{place}/vendor": "0x10de", f"{place}/class": "0x030200",
            f"{place}/current_link_width": "16", f"{place}/max_link_width": "16",
            f"/dev/nvidia{index}": "",
        }  # fmt: skip
        host.links[f"{place}/driver"] = "../../../bus/pci/drivers/nvidia"
        host.modes[f"/dev/nvidia{index}"] = 0o666
    for index in range(4):
        place = f"/sys/bus/pci/devices/0000:{index + 80:02x}:00.0"
        host.files |= {f"{place}/vendor": "0x10de", f"{place}/class": "0x068000"}
    for name in ("nvidiactl", "nvidia-uvm"):
        host.files[f"/dev/{name}"] = ""
        host.modes[f"/dev/{name}"] = 0o666
    host.files |= {
        "/proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64"
        f"  {DRIVER}  Release Build\nGCC version: gcc version 11.5.0\n",
        f"/usr/lib64/libnvidia-ml.so.{DRIVER}": "",
        "/usr/lib64/libnvidia-ml.so.1": "",
        f"/lib/modules/{RELEASE}/extra/nvidia.ko.xz": "",
        "/proc/cmdline": "ro iommu=pt",
    }
    host.start(801, "nvidia-persiste")
    host.start(802, "nv-fabricmanage")
    rows = "\n".join(GPU_ROW.format(index=index) for index in range(gpus)) + "\n"
    host.commands[QUERY] = Output(0, rows)
    host.commands[PROCESSES] = Output(0, "")
    return host


@dataclass(frozen=True, slots=True)
class Broken:
    """A way to break a node that is in good health, and what has to be said of it."""

    name: str
    breaks: Callable[[WrittenHost], object]
    check: str
    severity: str
    seen: str
    fix: str


def unload(host: WrittenHost) -> None:
    del host.files["/proc/driver/nvidia/version"]
    for path in [path for path in host.files if path.startswith("/dev/nvidia")]:
        del host.files[path]
    del host.commands[QUERY]


def _nouveau(host: WrittenHost) -> None:
    unload(host)
    host.files["/sys/module/nouveau/refcnt"] = "1"


def _secure_boot(host: WrittenHost) -> None:
    unload(host)
    host.files["/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"] = (
        "\x06\x00\x00\x00\x01"
    )


def _no_driver(host: WrittenHost) -> None:
    unload(host)
    del host.files[f"/lib/modules/{RELEASE}/extra/nvidia.ko.xz"]
    del host.files[f"/usr/lib64/libnvidia-ml.so.{DRIVER}"]


def _other_kernel(host: WrittenHost) -> None:
    _no_driver(host)
    host.files["/lib/modules/5.14.0-427.el9.x86_64/extra/nvidia.ko.xz"] = ""


def _no_library(host: WrittenHost) -> None:
    for name in (DRIVER, "1"):
        host.files.pop(f"/usr/lib64/libnvidia-ml.so.{name}", None)


def _upgraded_library(host: WrittenHost) -> None:
    _no_library(host)
    host.files["/usr/lib64/libnvidia-ml.so.570.124.06"] = ""
    host.commands[QUERY] = Output(18, "Failed to initialize NVML: Driver/library version mismatch")


def _old_driver(host: WrittenHost) -> None:
    for path in [path for path in host.files if DRIVER in path or DRIVER in host.files[path]]:
        host.files[path.replace(DRIVER, "470.256.02")] = host.files.pop(path).replace(
            DRIVER, "470.256.02"
        )


def _firewalld(host: WrittenHost) -> None:
    host.start(900, "firewalld")
    host.commands["firewall-cmd", "--list-ports"] = Output(0, "443/tcp 9000-9100/tcp\n")


def _gpu_row(host: WrittenHost, row: str) -> None:
    rows = host.commands[QUERY].out.splitlines()
    host.commands[QUERY] = Output(0, "\n".join([*rows[:3], row, *rows[4:]]) + "\n")


def _lan_lost(host: WrittenHost) -> None:
    host.files["/proc/net/fib_trie"] = "|-- 127.0.0.1\n /32 host LOCAL\n"


def _lock_of_dpkg(host: WrittenHost) -> None:
    host.files["/var/lib/dpkg/lock-frontend"] = ""
    host.inodes["/var/lib/dpkg/lock-frontend"] = 777
    host.files["/proc/locks"] = "1: POSIX  ADVISORY  WRITE 4242 fd:00:777 0 EOF\n"


def _fixed_time(host: WrittenHost) -> None:
    host.time = datetime(1970, 1, 2, tzinfo=UTC)
    host.files["/sys/class/rtc/rtc0/since_epoch"] = "86400"


BROKEN = (
    Broken(
        "kernel of RHEL 7",
        lambda h: h.files.update(
            {
                "/proc/sys/kernel/osrelease": "3.10.0-1160.el7",
                "/lib/modules/3.10.0-1160.el7/extra/nvidia.ko.xz": "",
            }
        ),
        "system.kernel",
        "blocker",
        "3.10",
        "newer kernel",
    ),
    Broken(
        "old glibc",
        lambda h: setattr(h, "c_library", ("glibc", "2.17")),
        "system.glibc",
        "blocker",
        "2.17",
        "RHEL 8",
    ),
    Broken(
        "musl",
        lambda h: setattr(h, "c_library", ("another C library", "")),
        "system.glibc",
        "blocker",
        "in place of glibc",
        "RHEL 8",
    ),
    Broken(
        "ARM",
        lambda h: setattr(h, "architecture", "aarch64"),
        "system.architecture",
        "blocker",
        "aarch64",
        "x86_64",
    ),
    Broken(
        "no AVX2",
        lambda h: h.files.update({"/proc/cpuinfo": "flags : sse4_2 fma f16c"}),
        "system.processor",
        "warning",
        "avx2",
        "'host'",
    ),
    Broken(
        "no systemd",
        lambda h: h.files.update({"/proc/1/comm": "tini\n"}),
        "system.init",
        "blocker",
        "tini",
        "/sbin/init",
    ),
    Broken(
        "noexec /opt",
        lambda h: h.mount("/opt", options="rw,noexec"),
        "system.noexec_opt",
        "blocker",
        "/opt is mounted noexec",
        "mount -o remount,exec /opt",
    ),
    Broken(
        "read-only /usr",
        lambda h: h.mount("/usr", options="ro,relatime"),
        "system.writable",
        "blocker",
        "/usr/bin",
        "remount,rw",
    ),
    Broken(
        "a person's account",
        lambda h: h.files.update({"/etc/passwd": "crosslogic:x:1001:1001::/home/c:/bin/bash\n"}),
        "system.users",
        "blocker",
        "can log in",
        "rename or remove",
    ),
    Broken(
        "another installer",
        lambda h: h.start(4242, "python3", "python3", "-I", "-m", "installer", "install"),
        "system.other_installer",
        "blocker",
        "4242",
        "wait",
    ),
    Broken(
        "remains",
        lambda h: h.files.update({"/var/lib/crosslogic/ledger.db": ""}),
        "system.remains",
        "warning",
        "/var/lib/crosslogic",
        "--purge",
    ),
    Broken(
        "packages being installed",
        _lock_of_dpkg,
        "system.packages",
        "warning",
        "lock-frontend",
        "wait",
    ),
    Broken("nouveau", _nouveau, "gpu.nouveau", "blocker", "nouveau is loaded", "blacklist nouveau"),
    Broken(
        "Secure Boot", _secure_boot, "gpu.secure_boot", "blocker", "not loaded", "mokutil --import"
    ),
    Broken(
        "no driver",
        _no_driver,
        "gpu.driver",
        "blocker",
        "8 NVIDIA GPU(s) and no driver",
        "nvidia-driver",
    ),
    Broken("driver not loaded", unload, "gpu.driver", "blocker", "not loaded", "modprobe nvidia"),
    Broken(
        "driver of another kernel",
        _other_kernel,
        "gpu.driver",
        "blocker",
        "5.14.0-427",
        "dkms autoinstall",
    ),
    Broken(
        "library upgraded", _upgraded_library, "gpu.mismatch", "blocker", "570.124.06", "reboot"
    ),
    Broken("old driver", _old_driver, "gpu.driver_version", "blocker", "470.256.02", "570"),
    Broken(
        "no NVML",
        _no_library,
        "gpu.library",
        "blocker",
        "not installed",
        "nvidia-driver-cuda-libs",
    ),
    Broken(
        "no uvm",
        lambda h: h.files.pop("/dev/nvidia-uvm"),
        "gpu.devices",
        "blocker",
        "nvidia-uvm",
        "nvidia-modprobe -u",
    ),
    Broken(
        "devices of root",
        lambda h: h.modes.update({"/dev/nvidia3": 0o600}),
        "gpu.device_modes",
        "warning",
        "nvidia3",
        "NVreg_DeviceFileMode=0666",
    ),
    Broken(
        "no fabric manager",
        lambda h: h.files.pop("/proc/802/comm"),
        "gpu.fabric_manager",
        "blocker",
        "4 NVSwitch",
        "nvidia-fabricmanager",
    ),
    Broken(
        "driver hangs",
        lambda h: h.commands.update({QUERY: HANGS}),
        "gpu.answers",
        "unknown",
        "hangs",
        "reboot",
    ),
    Broken(
        "a GPU is gone",
        lambda h: h.commands.update(
            {QUERY: Output(0, "".join(h.commands[QUERY].out.splitlines(keepends=True)[:7]))}
        ),
        "gpu.answers",
        "warning",
        "7 of 8",
        "vendor",
    ),
    Broken(
        "ECC errors",
        lambda h: _gpu_row(h, "3, Enabled, 12, Disabled, Default, 9.0, 35"),
        "gpu.ecc_errors",
        "warning",
        "GPU 3",
        "ROW_REMAPPER",
    ),
    Broken(
        "MIG",
        lambda h: _gpu_row(h, "3, Enabled, 0, Enabled, Default, 9.0, 35"),
        "gpu.mig",
        "note",
        "GPU 3",
        "-mig 0",
    ),
    Broken(
        "compute prohibited",
        lambda h: _gpu_row(h, "3, Enabled, 0, Disabled, Prohibited, 9.0, 35"),
        "gpu.compute_mode",
        "blocker",
        "GPU 3",
        "-c DEFAULT",
    ),
    Broken(
        "others on the GPUs",
        lambda h: h.commands.update(
            {PROCESSES: Output(0, "4711, /opt/venv/bin/python --token=x\n")}
        ),
        "gpu.busy",
        "warning",
        "python",
        "query-compute-apps",
    ),
    Broken(
        "Xid 79",
        lambda h: h.commands.update(
            {
                ("dmesg", "--notime"): Output(
                    0, "NVRM: Xid (PCI:0000:10:00): 79, pid=12, GPU has fallen off the bus."
                )
            }
        ),
        "gpu.xid",
        "warning",
        "79",
        "journalctl -k -g Xid",
    ),
    Broken(
        "narrow link",
        lambda h: h.files.update({"/sys/bus/pci/devices/0000:11:00.0/current_link_width": "4"}),
        "gpu.link",
        "warning",
        "x4 of x16",
        "slot",
    ),
    Broken(
        "little memory",
        lambda h: h.files.update(
            {"/proc/meminfo": "MemTotal: 1000000 kB\nMemAvailable: 1000000 kB\n"}
        ),
        "memory.total",
        "blocker",
        "977 MiB",
        "more memory",
    ),
    Broken(
        "strict accounting",
        lambda h: h.files.update({"/proc/sys/vm/overcommit_memory": "2"}),
        "memory.overcommit",
        "warning",
        "is 2",
        "overcommit_memory=0",
    ),
    Broken(
        "full /var",
        lambda h: h.spaces.update({"/var/lib": SpaceFacts(GIB, 50 * GIB, 10**6, 10**7)}),
        "disk.state",
        "blocker",
        "1.0 GiB free",
        "mount a volume",
    ),
    Broken(
        "no inodes",
        lambda h: h.spaces.update({"/opt": SpaceFacts(50 * GIB, 90 * GIB, 12, 10**6)}),
        "disk.inodes",
        "blocker",
        "12 inodes",
        "df -i",
    ),
    Broken(
        "state on NFS",
        lambda h: h.mount("/var/lib", "nfs4"),
        "disk.file_system",
        "blocker",
        "nfs4",
        "local disk",
    ),
    Broken(
        "slow disk",
        lambda h: setattr(h, "latency_s", 0.4),
        "disk.latency",
        "warning",
        "400.0 ms",
        "SSD",
    ),
    Broken(
        "port taken",
        lambda h: h.listen(8443, "nginx"),
        "network.ports",
        "blocker",
        "8443 by nginx",
        "gateway.listen",
    ),
    Broken(
        "loopback alone", _lan_lost, "network.address", "warning", "only loopback", "ip address"
    ),
    Broken(
        "name on loopback",
        lambda h: h.commands.update(
            {("getent", "ahosts", "gpu-01"): Output(0, "127.0.1.1 STREAM gpu-01\n")}
        ),
        "network.own_name",
        "warning",
        "127.0.1.1",
        "/etc/hosts",
    ),
    Broken(
        "port closed",
        _firewalld,
        "network.firewall",
        "warning",
        "closed: 8443, 8444",
        "--add-port=8443/tcp",
    ),
    Broken(
        "proxy",
        lambda h: h.named_variables.add("HTTPS_PROXY"),
        "network.proxy",
        "warning",
        "HTTPS_PROXY",
        "no_proxy",
    ),
    Broken(
        "clock of 1970", _fixed_time, "time.plausible", "blocker", "1970", "timedatectl set-time"
    ),
    Broken(
        "SELinux",
        lambda h: h.files.update({"/sys/fs/selinux/enforce": "1"}),
        "policy.selinux",
        "warning",
        "enforcing",
        "semanage fcontext",
    ),
    Broken(
        "fapolicyd",
        lambda h: h.start(950, "fapolicyd"),
        "policy.fapolicyd",
        "warning",
        "runs",
        "fapolicyd-cli --file add",
    ),
    Broken(
        "an image",
        lambda h: h.files.update({"/run/ostree-booted": ""}),
        "policy.image",
        "blocker",
        "OSTree",
        "--prefix",
    ),
)
