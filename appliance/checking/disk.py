"""The disks under a home: room, and how long a write takes until it is kept."""

import os
import statistics
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from appliance.checking.findings import Check, Finding, aside, good, size, span
from appliance.wire.home import Home

_FAILED_BYTES: Final = 1 << 30
_WARNING_BYTES: Final = 10 << 30
_FAILED_SHARE: Final = 0.02
_WARNING_SHARE: Final = 0.10
_INODES_SHARE: Final = 0.05
_WRITES: Final = 8
_BLOCK: Final = b"\0" * 4_096
_SLOW_S: Final = 0.1
_VERY_SLOW_S: Final = 1.0


def disk_checks(home: Home) -> list[Check]:
    async def space() -> Sequence[Finding]:
        return await aside(lambda: [room_found(str(p), os.statvfs(p)) for p in folders(home)])

    async def latency() -> Sequence[Finding]:
        return await aside(lambda: [latency_found(write_times_s(home.state))])

    return [
        Check(
            "disk.space",
            "Without room no request can be recorded, and what cannot be recorded is refused.",
            space,
        ),
        Check(
            "disk.latency",
            "Every request waits until its record is on the disk.",
            latency,
            deadline_s=30.0,
        ),
    ]


def folders(home: Home) -> list[Path]:
    """One folder of each disk that the site uses."""
    seen: dict[int, Path] = {}
    for folder in (home.state, home.models, home.logs, home.config):
        if folder.exists():
            seen.setdefault(folder.stat().st_dev, folder)
    return list(seen.values())


def room_found(folder: str, there: os.statvfs_result) -> Finding:
    free, whole = there.f_bavail * there.f_frsize, max(1, there.f_blocks * there.f_frsize)
    share = free / whole
    seen = f"{size(free)} of {size(whole)} free ({share:.0%})."
    fix = f"Free space on the disk of {folder}: `cic model gc --dry-run`, old backups, other files."
    if free < _FAILED_BYTES or share < _FAILED_SHARE:
        return Finding("failed", seen, fix, folder)
    if there.f_files and there.f_favail / there.f_files < _INODES_SHARE:
        return Finding(
            "warning",
            f"{seen} Only {there.f_favail:,} of {there.f_files:,} files can still be made.",
            f"Remove small files from the disk of {folder}.",
            folder,
        )
    if free < _WARNING_BYTES or share < _WARNING_SHARE:
        return Finding("warning", seen, fix, folder)
    return good(seen, folder)


def write_times_s(folder: Path) -> list[float]:
    """Of a few small writes, each until the disk says that it keeps it."""
    path = folder / f".health-check.{os.getpid()}"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        times = []
        for _ in range(_WRITES):
            began_s = time.perf_counter()
            os.write(descriptor, _BLOCK)
            os.fsync(descriptor)
            times.append(time.perf_counter() - began_s)
        return times
    finally:
        os.close(descriptor)
        path.unlink(missing_ok=True)


def latency_found(times_s: Iterable[float]) -> Finding:
    """The first write also makes the file: the median counts, and the slowest where it is bad."""
    times = sorted(times_s)
    median_s, slowest_s = statistics.median(times), times[-1]
    seen = f"A write is kept after {span(median_s)}; the slowest took {span(slowest_s)}."
    fix = "Look for what else writes (`iostat -x 1`), and at the disk's health (`smartctl -a`)."
    if median_s > _VERY_SLOW_S:
        return Finding("failed", seen, fix)
    if median_s > _SLOW_S or slowest_s > _VERY_SLOW_S:
        return Finding("warning", seen, fix)
    return good(seen)
