"""Room on disks: how much an upgrade takes, and whether it is there.

Sizes are bytes. Several needs on one file system add up.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from installer.errors import NoRoom

SPARE = 64 << 20  # left free on every file system that is written to
# A backup is copied aside, encrypted beside the copy, and then tried: unpacked once more.
BACKUP_COPIES = 3.2
# A copy for the trial, and what a new schema may add to it.
TRIAL_COPIES = 1.5


@dataclass(frozen=True, slots=True)
class Need:
    """So many bytes in a folder, which may not be there yet."""

    folder: Path
    size: int
    what: str


@dataclass(frozen=True, slots=True)
class Disk:
    """One file system as it is now. `id` is its device number."""

    id: int
    free: int


def disk_of(folder: Path) -> Disk:
    """Where the folder is, or will be made."""
    there = folder
    while not there.exists():
        there = there.parent
    return Disk(there.stat().st_dev, shutil.disk_usage(there).free)


def require_room(needs: Iterable[Need], disk: Callable[[Path], Disk] = disk_of) -> None:
    """Raises NoRoom for the first file system that has too little, with both figures."""
    by_disk: dict[int, list[Need]] = {}
    free: dict[int, int] = {}
    for need in needs:
        found = disk(need.folder)
        by_disk.setdefault(found.id, []).append(need)
        free[found.id] = found.free
    for number, rows in by_disk.items():
        wanted = sum(one.size for one in rows) + SPARE
        if wanted > free[number]:
            parts = "; ".join(f"{megabytes(one.size)} for {one.what}" for one in rows)
            raise NoRoom(
                f"{rows[0].folder} has {megabytes(free[number])} free, and"
                f" {megabytes(wanted)} are needed ({parts}; {megabytes(SPARE)} stay free).",
                next_step="Make room: cic-installer versions --remove VERSION, cic model list,"
                f" df -h {rows[0].folder}",
            )


def megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB" if size < 10e9 else f"{size / 1e9:.1f} GB"


def size_of(folder: Path) -> int:
    """Bytes of all files below; 0 where it is not there."""
    found = 0
    for name, _, files in os.walk(folder):
        for file in files:
            found += (Path(name) / file).lstat().st_size
    return found


def size_of_files(paths: Iterable[Path]) -> int:
    """Of those that are there."""
    return sum(path.stat().st_size for path in paths if path.exists())


def unpacked_size(archive: Path) -> int:
    """As gzip wrote it into the last four bytes: exact below 4 GiB."""
    with archive.open("rb") as file:
        if file.seek(0, os.SEEK_END) < 18:  # the least that is a gzip file
            return 0
        file.seek(-4, os.SEEK_END)
        return int.from_bytes(file.read(4), "little")
