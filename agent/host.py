"""This machine, as the kernel describes it: processes, boots, cores, memory."""

import contextlib
import os
import socket as sockets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """From /proc/PID/stat (proc(5))."""

    state: str  # one letter; Z is a zombie
    group: int
    cpu_ticks: int  # user and system time
    started_ticks: int  # since boot: with the pid and the boot it names a process for ever


def boot_id() -> str:
    """Differs after each boot of the machine."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def process_stat(pid: int) -> ProcessStat | None:
    """None: there is no such process."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name, in parentheses, may hold anything: read on behind the last of them.
    fields = text.rpartition(")")[2].split()
    return ProcessStat(
        state=fields[0],
        group=int(fields[2]),
        cpu_ticks=int(fields[11]) + int(fields[12]),
        started_ticks=int(fields[19]),
    )


def waited_ticks(pid: int) -> int:
    """How long the threads of a process were ready and had no core, in ticks of 10 ms.

    From the second field of schedstat, nanoseconds (sched-stats in the kernel's documentation); 0
    where the kernel does not tell.
    """
    waited_ns = 0
    try:
        threads = list((PROC / str(pid) / "task").iterdir())
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    for thread in threads:
        with contextlib.suppress(OSError, IndexError, ValueError):
            waited_ns += int((thread / "schedstat").read_text().split()[1])
    return waited_ns // 10_000_000


def process_name(pid: int) -> str:
    """As the kernel has it, at most 15 letters; "" when there is no such process."""
    try:
        return (PROC / str(pid) / "comm").read_text(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def process_title(pid: int) -> str:
    """Its command line, or what it calls itself since; "" when there is no such process."""
    try:
        raw = (PROC / str(pid) / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return raw.replace(b"\0", b" ").decode(errors="replace").strip()


def process_environ(pid: int) -> dict[str, str]:
    """The environment a process was started with; empty when it is gone or not ours to read."""
    try:
        raw = (PROC / str(pid) / "environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return {}
    pairs = (part.partition("=") for part in os.fsdecode(raw).split("\0"))
    return {name: value for name, equals, value in pairs if equals}


def own_processes() -> Iterator[int]:
    """Every other process of this account."""
    for entry in PROC.iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if entry.stat().st_uid == os.geteuid():
                yield int(entry.name)
        except (FileNotFoundError, ProcessLookupError):
            continue


def descendants(pid: int) -> list[int]:
    """Children of a process, their children, and so on, as far as they have not been orphaned."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        try:
            threads = list((PROC / str(waiting.pop()) / "task").iterdir())
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        for thread in threads:
            try:
                children = (thread / "children").read_text().split()
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            waiting += [int(child) for child in children]
            found += [int(child) for child in children]
    return found


def oom_kills() -> int:
    """Processes the kernel ended for want of memory since the boot; 0 where it does not tell."""
    try:
        lines = (PROC / "vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def cores() -> int:
    """Cores this process may use: by affinity, and by the control group's quota."""
    allowed = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return allowed
    if quota == "max":
        return allowed
    return max(1, min(allowed, int(quota) // int(period)))


def memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def free_port(address: str) -> int:
    """A TCP port nobody listens on now. Another process may take it first: then the launch fails.

    Raises OSError when there is none.
    """
    with sockets.create_server((address, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
