"""Shared memory that engines leave behind when they are killed: /dev/shm has no owner but a name.

A segment is removed only if one of the engine's own processes was seen to hold it, by name and
inode, and nobody of this account holds it any more.
"""

import contextlib
import os
import stat
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

from agent.host import PROC, own_processes

SHM: Final = Path("/dev/shm")  # noqa: S108 - named to be cleaned, nothing is written there
# Python's multiprocessing (vLLM's queues between its processes), PyTorch's tensors, NCCL.
_PREFIXES: Final = ("psm_", "torch_", "nccl-", "sem.mp-", "wnsm_")
_DELETED: Final = " (deleted)"

Segment = tuple[str, int]  # name in /dev/shm, inode


def held(pids: Iterable[int], folder: Path = SHM) -> set[Segment]:
    """The segments of engines' kinds that these processes have open."""
    found: set[Segment] = set()
    for pid in pids:
        try:
            descriptors = list((PROC / str(pid) / "fd").iterdir())
        except OSError:
            continue
        for descriptor in descriptors:
            try:
                path = descriptor.readlink()
            except OSError:
                continue
            if path.parent != folder or not path.name.startswith(_PREFIXES):
                continue
            if path.name.endswith(_DELETED):
                continue
            with contextlib.suppress(OSError):
                found.add((path.name, descriptor.stat().st_ino))
    return found


def remove(
    segments: Iterable[Segment], *, leaving: Collection[int] = (), folder: Path = SHM
) -> list[str]:
    """Unlink those that are still the same files and that nobody of this account holds.

    The names of those removed. `leaving` are processes that were just killed: theirs do not count.
    """
    wanted = set(segments)
    if not wanted:
        return []
    wanted -= held((pid for pid in own_processes() if pid not in leaving), folder)
    removed = []
    for name, inode in sorted(wanted):
        path = folder / name
        with contextlib.suppress(OSError):
            seen = path.lstat()
            ours = seen.st_uid == os.geteuid() and stat.S_ISREG(seen.st_mode)
            if ours and seen.st_ino == inode:
                path.unlink()
                removed.append(name)
    return removed
