"""How the kernel's files are read: versions, sizes, mounts, sysctls, limits."""

from __future__ import annotations

import re
from dataclasses import dataclass

from installer.checks.host import Host

GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/self/mountinfo: where, of what type, with which options."""

    point: str
    type: str
    options: frozenset[str]
    device: str
    """`major:minor`."""


def version(text: str) -> tuple[int, ...]:
    """The numbers at the first place of a text that has some: "570.86.15-1" is (570, 86, 15)."""
    found = re.search(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def words(host: Host, path: str, default: str = "") -> str:
    """The text of a small file without its ends, or the default when it is not there."""
    try:
        return host.read(path).strip()
    except FileNotFoundError:
        return default


def number(host: Host, path: str, default: int = 0) -> int:
    """The whole number that a sysctl or an attribute holds."""
    text = words(host, path)
    return int(text) if re.fullmatch(r"-?\d+", text) else default


def table(text: str) -> dict[str, str]:
    """Lines of `name: value`, as in /proc/meminfo and /proc/self/status."""
    rows = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, _, value in rows}


def memory_bytes(host: Host) -> dict[str, int]:
    """/proc/meminfo in bytes; counts of pages stay counts."""
    rows = table(host.read("/proc/meminfo"))
    return {
        name: int(value.split()[0]) * (1024 if value.endswith("kB") else 1)
        for name, value in rows.items()
    }


def mounts(host: Host) -> list[Mount]:
    found = []
    for line in host.read("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        place, kind = left.split(), right.split()
        if len(place) < 6 or len(kind) < 3:
            continue
        options = frozenset((place[5] + "," + kind[2]).split(","))
        found.append(Mount(place[4].replace("\\040", " "), kind[0], options, place[2]))
    return found


def mount_of(host: Host, path: str) -> Mount | None:
    """The mount that holds a path; of several at one place, the last one covers the others."""
    best: Mount | None = None
    for mount in mounts(host):
        inside = mount.point in {"/", path} or path.startswith(mount.point + "/")
        if inside and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def processes(host: Host) -> dict[str, str]:
    """Number and name of every process that can be seen; the kernel cuts names at 15 letters."""
    found = {}
    for name in host.names("/proc"):
        if name.isdigit():
            try:
                found[name] = host.read(f"/proc/{name}/comm").strip()
            except OSError:
                continue  # it has ended meanwhile
    return found


def hard_limit(host: Host, title: str) -> int | None:
    """A hard limit of this process, such as "Max open files"; None when there is no limit."""
    for line in host.read("/proc/self/limits").splitlines():
        if line.startswith(title):
            value = line[len(title) :].split()[1]
            return None if value == "unlimited" else int(value)
    return None


def size(count: int) -> str:
    """Bytes for a person: "12.5 GiB"."""
    if count < GIB:
        return f"{count / 1024**2:.0f} MiB"
    return f"{count / GIB:.1f} GiB"
