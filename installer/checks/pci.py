"""The GPUs and switches that the PCI bus shows, with or without a driver."""

from __future__ import annotations

from dataclasses import dataclass

from installer.checks.host import Host
from installer.checks.reading import version, words

_DEVICES = "/sys/bus/pci/devices"
NVIDIA, AMD = "0x10de", "0x1002"


@dataclass(frozen=True, slots=True)
class Hardware:
    """PCI addresses by what is there."""

    nvidia: tuple[str, ...]
    switches: tuple[str, ...]
    """NVSwitches: bridges of NVIDIA (class 0x0680)."""
    amd: tuple[str, ...]


def hardware(host: Host) -> Hardware:
    nvidia, switches, amd = [], [], []
    for name in host.names(_DEVICES):
        vendor = words(host, f"{_DEVICES}/{name}/vendor")
        kind = words(host, f"{_DEVICES}/{name}/class")
        if vendor == NVIDIA and kind.startswith("0x03"):
            nvidia.append(name)
        elif vendor == NVIDIA and kind.startswith("0x0680"):
            switches.append(name)
        elif vendor == AMD and kind.startswith(("0x0302", "0x0380", "0x1200")):
            amd.append(name)
    return Hardware(tuple(nvidia), tuple(switches), tuple(amd))


def attribute(host: Host, device: str, name: str) -> str:
    try:
        return words(host, f"{_DEVICES}/{device}/{name}")
    except OSError:
        return ""  # a virtual function has no link of its own


def driver_of(host: Host, device: str) -> str:
    """Name of the kernel's driver that has the device; empty when none has."""
    return (host.link(f"{_DEVICES}/{device}/driver") or "").rpartition("/")[2]


def module_version(host: Host) -> str:
    """Version of NVIDIA's loaded kernel module, as in "570.86.15"; empty when none is loaded."""
    told = words(host, "/proc/driver/nvidia/version")
    if not told:
        return words(host, "/sys/module/nvidia/version")
    # The version is the first word of the first line that is a number with a point in it.
    for word in told.partition("\n")[0].split():
        if len(version(word)) >= 2 and word[0].isdigit():
            return word
    return ""
