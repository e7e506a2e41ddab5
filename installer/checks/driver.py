"""Checks of NVIDIA's driver: its module, its library, its devices and its services."""

from __future__ import annotations

import re

from installer.checks.findings import (
    Role,
    Verdict,
    Wanted,
    blocker,
    check,
    note,
    ok,
    unknown,
    warning,
)
from installer.checks.host import Host
from installer.checks.pci import driver_of, hardware, module_version
from installer.checks.reading import processes, version, words

NODES = frozenset({Role.NODE, Role.ALL})
# NVIDIA, "CUDA Compatibility": CUDA 12 runs with 525.60.13 or later by minor version compatibility.
DRIVER_MIN = (525, 60, 13)
DRIVER_ADVISED = (570,)
_LIBRARY_FOLDERS = (
    "/usr/lib/x86_64-linux-gnu/nvidia/current",
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib",
    "/usr/lib64/nvidia",
)
_SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
_MODULE_FOLDERS = (
    "updates", "updates/dkms", "extra", "extra/nvidia", "weak-updates/nvidia",
    "kernel/drivers/video",
)  # fmt: skip
_NONE = "no NVIDIA GPU: nothing to see"


def secure_boot(host: Host) -> bool:
    return words(host, _SECURE_BOOT)[-1:] == "\x01"


def libraries(host: Host) -> list[str]:
    """Versions of the NVML libraries that are installed, by their files' names."""
    return sorted(
        {
            name.removeprefix("libnvidia-ml.so.")
            for folder in _LIBRARY_FOLDERS
            for name in host.names(folder)
            if re.fullmatch(r"libnvidia-ml\.so\.\d+\.\d+(\.\d+)?", name)
        }
    )


def _module_files(host: Host) -> list[str]:
    """Kernels for which a module of NVIDIA is installed."""
    return [kernel for kernel in host.names("/lib/modules") if _has_module(host, kernel)]


def _has_module(host: Host, kernel: str) -> bool:
    modules = f"/lib/modules/{kernel}"
    # Ubuntu's signed modules lie in a folder that is named for their branch: nvidia-570srv.
    branches = [f"kernel/{name}" for name in host.names(f"{modules}/kernel") if "nvidia" in name]
    return any(
        name.partition(".ko")[0] == "nvidia"
        for folder in (*_MODULE_FOLDERS, *branches)
        for name in host.names(f"{modules}/{folder}")
    )


@check(
    "gpu.present",
    looks_at="`/sys/bus/pci/devices`: GPUs of NVIDIA and AMD",
    why="engines for NVIDIA GPUs are what runs fast; without one they run on the processor",
    fix="lspci -nn | grep -i -E 'vga|3d|display'; look at slots, power and the virtual machine's "
    "settings",
    roles=NODES,
)
def present(host: Host, _: Wanted) -> Verdict:
    seen = hardware(host)
    if seen.nvidia:
        return ok(f"{len(seen.nvidia)} NVIDIA GPU(s)")
    if seen.amd:
        return note(f"{len(seen.amd)} AMD GPU(s): engines run on the processor all the same")
    return note("no GPU: engines run on the processor")


@check(
    "gpu.nouveau",
    looks_at="`/sys/module/nouveau`",
    why="nouveau holds the GPUs, and NVIDIA's driver cannot be loaded beside it",
    fix="echo 'blacklist nouveau' > /etc/modprobe.d/nouveau.conf; dracut -f (or update-initramfs "
    "-u); reboot",
    roles=NODES,
)
def nouveau(host: Host, _: Wanted) -> Verdict:
    if hardware(host).nvidia and host.facts("/sys/module/nouveau"):
        return blocker("nouveau is loaded")
    return ok("nouveau is not loaded")


@check(
    "gpu.secure_boot",
    looks_at="the SecureBoot variable of the firmware, and whether the installed module is loaded",
    why="with Secure Boot the kernel refuses a module that is not signed with an enrolled key",
    fix="mokutil --import /var/lib/shim-signed/mok/MOK.der (or /var/lib/dkms/mok.pub), reboot "
    "and enrol it",
    roles=NODES,
)
def signed(host: Host, _: Wanted) -> Verdict:
    if not hardware(host).nvidia or not secure_boot(host):
        return ok("Secure Boot is off, or there is no GPU")
    if module_version(host):
        return ok("Secure Boot is on, and the driver is loaded")
    release = words(host, "/proc/sys/kernel/osrelease")
    if release in _module_files(host) and not host.facts("/sys/module/nouveau"):
        return blocker("Secure Boot is on, and the driver's module is installed but not loaded")
    return note("Secure Boot is on: the driver's module will have to be signed")


@check(
    "gpu.driver",
    looks_at="`/proc/driver/nvidia/version` beside GPUs on the bus, modules in `/lib/modules`",
    why="without NVIDIA's kernel module no engine can use the GPUs",
    fix="apt-get install nvidia-driver-570-server, or dnf module install nvidia-driver:570-open; "
    "reboot",
    roles=NODES,
)
def driver(host: Host, _: Wanted) -> Verdict:
    seen = hardware(host)
    if not seen.nvidia:
        return ok(_NONE)
    if loaded := module_version(host):
        strangers = [
            name for gpu in seen.nvidia if (name := driver_of(host, gpu)) and name != "nvidia"
        ]
        if strangers:
            return note(f"{len(strangers)} GPU(s) are held by {strangers[0]}, for virtual machines")
        return ok(f"driver {loaded}")
    if host.facts("/sys/module/nouveau"):
        return note("not loaded: see gpu.nouveau", "mend gpu.nouveau first")
    release, built = words(host, "/proc/sys/kernel/osrelease"), _module_files(host)
    if release in built:
        if secure_boot(host):
            return note("not loaded: see gpu.secure_boot", "mend gpu.secure_boot first")
        return blocker(
            "the driver is installed but not loaded", "modprobe nvidia; journalctl -k -g nvidia"
        )
    if built:
        return blocker(
            f"the driver was built for kernel {built[-1]}, and {release} runs",
            f"apt-get install linux-headers-{release} (or dnf install kernel-devel-{release}); "
            "dkms autoinstall",
        )
    return blocker(f"{len(seen.nvidia)} NVIDIA GPU(s) and no driver")


@check(
    "gpu.driver_version",
    looks_at="the driver's version: at least 525.60.13, better 570",
    why="engines are built for CUDA 12, which an older driver does not run",
    fix="apt-get install nvidia-driver-570-server, or dnf module install nvidia-driver:570-open; "
    "reboot",
    roles=NODES,
)
def driver_version(host: Host, _: Wanted) -> Verdict:
    loaded = module_version(host)
    if not loaded:
        return ok("no driver is loaded")
    if version(loaded) < DRIVER_MIN:
        return blocker(f"driver {loaded}, at least 525.60.13 is needed for CUDA 12")
    if version(loaded) < DRIVER_ADVISED:
        return warning(f"driver {loaded}: builds for CUDA 12.8 and later want 570")
    return ok(f"driver {loaded}")


@check(
    "gpu.library",
    looks_at="`libnvidia-ml.so` in the folders of libraries",
    why="the agent reads the GPUs through it, and engines need its sister libcuda",
    fix="apt-get install libnvidia-compute-570-server, or dnf install nvidia-driver-cuda-libs",
    roles=NODES,
)
def library(host: Host, _: Wanted) -> Verdict:
    if not module_version(host):
        return ok("no driver is loaded")
    found = libraries(host)
    if not found and any("libnvidia-ml.so.1" in host.names(one) for one in _LIBRARY_FOLDERS):
        return ok("libnvidia-ml, whose name does not tell its version")
    if not found:
        return blocker("the driver is loaded, and its library libnvidia-ml is not installed")
    return ok(f"libnvidia-ml {', '.join(found)}")


@check(
    "gpu.mismatch",
    looks_at="the version of the loaded module beside that of `libnvidia-ml.so`",
    why="packages upgraded the library and left the old module loaded: no engine can start any "
    "more",
    fix="reboot; then hold the driver's packages: apt-mark hold 'nvidia-*' or dnf versionlock "
    "add 'nvidia*'",
    roles=NODES,
)
def mismatch(host: Host, _: Wanted) -> Verdict:
    loaded, found = module_version(host), libraries(host)
    if not loaded or not found:
        return ok("no driver, or no library, to compare")
    if loaded not in found:
        return blocker(f"the module is {loaded}, the library {', '.join(found)}")
    return ok(f"both are {loaded}")


@check(
    "gpu.devices",
    looks_at="`/dev/nvidiactl`, `/dev/nvidia-uvm` and one `/dev/nvidiaN` for each GPU",
    why="the agent is not allowed to make device nodes, and CUDA does not start without them",
    fix="nvidia-modprobe -u -c=0 (and -c=1 and so on); systemctl enable --now nvidia-persistenced",
    roles=NODES,
)
def devices(host: Host, _: Wanted) -> Verdict:
    if not module_version(host):
        return ok("no driver is loaded")
    nodes = host.names("/dev")
    missing = [name for name in ("nvidiactl", "nvidia-uvm") if name not in nodes]
    held = [gpu for gpu in hardware(host).nvidia if driver_of(host, gpu) in {"nvidia", ""}]
    found = sum(1 for name in nodes if re.fullmatch(r"nvidia\d+", name))
    if found < len(held):
        missing.append(f"{len(held) - found} of {len(held)} /dev/nvidiaN")
    return blocker(f"missing: {', '.join(missing)}") if missing else ok(f"{found} GPU device(s)")


@check(
    "gpu.device_modes",
    looks_at="the modes of `/dev/nvidia*`, 0666",
    why="the agent runs without privileges; devices that root alone may open are no GPUs to it",
    fix="echo 'options nvidia NVreg_DeviceFileMode=0666' > /etc/modprobe.d/nvidia-mode.conf; "
    "reboot",
    roles=NODES,
)
def device_modes(host: Host, _: Wanted) -> Verdict:
    closed = [
        name
        for name in host.names("/dev")
        if re.fullmatch(r"nvidia(\d+|ctl|-uvm)", name)
        and (facts := host.facts(f"/dev/{name}")) is not None
        and facts.mode & 0o006 != 0o006
    ]
    if closed:
        return warning(f"not open to all: {', '.join(closed)}")
    return ok("the devices that are there are open to all")


@check(
    "gpu.persistence",
    looks_at="nvidia-persistenced among the processes",
    why="without it the driver leaves a GPU that nobody uses, and the next start takes seconds "
    "more",
    fix="systemctl enable --now nvidia-persistenced",
    roles=NODES,
)
def persistence(host: Host, _: Wanted) -> Verdict:
    if not module_version(host):
        return ok("no driver is loaded")
    if any(name.startswith("nvidia-persiste") for name in processes(host).values()):
        return ok("nvidia-persistenced runs")
    return note("nvidia-persistenced does not run")


@check(
    "gpu.fabric_manager",
    looks_at="NVSwitches on the bus, and nv-fabricmanager among the processes",
    why="on a machine with NVSwitches CUDA does not start before the fabric manager has set them "
    "up",
    fix="install nvidia-fabricmanager of the driver's version; systemctl enable --now "
    "nvidia-fabricmanager",
    roles=NODES,
)
def fabric_manager(host: Host, _: Wanted) -> Verdict:
    switches = hardware(host).switches
    if not switches or not module_version(host):
        return ok("no NVSwitch, or no driver yet")
    if any(name.startswith("nv-fabricmanage") for name in processes(host).values()):
        return ok(f"{len(switches)} NVSwitch(es), and the fabric manager runs")
    return blocker(f"{len(switches)} NVSwitch(es), and the fabric manager does not run")


@check(
    "gpu.cuda_compat",
    looks_at="`cuda/compat` in `/etc/ld.so.conf.d`",
    why="a compatibility libcuda that is older than the driver wins over it and breaks every "
    "engine",
    fix="grep -l compat /etc/ld.so.conf.d/*; remove the entry, then ldconfig",
    roles=NODES,
)
def cuda_compat(host: Host, _: Wanted) -> Verdict:
    try:
        named = [
            name
            for name in host.names("/etc/ld.so.conf.d")
            if "compat" in words(host, f"/etc/ld.so.conf.d/{name}")
        ]
    except PermissionError:
        return unknown("run as root to see /etc/ld.so.conf.d")
    if named and hardware(host).nvidia:
        return warning(f"a compatibility libcuda is in the path of libraries: {', '.join(named)}")
    return ok("no compatibility libcuda in the path of libraries")


CHECKS = (
    present, nouveau, signed, driver, driver_version, library, mismatch, devices, device_modes,
    persistence, fabric_manager, cuda_compat,
)  # fmt: skip
