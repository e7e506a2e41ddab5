"""One agent for each state folder: a lock that the kernel takes back when its holder dies."""

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from agent.errors import AgentRunning

log = logging.getLogger(__name__)

_POLL_S: Final = 0.1


@contextmanager
def held(path: Path, wait_s: float) -> Iterator[None]:
    """Hold the lock; wait so long for an agent that is on its way out. Raises AgentRunning."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _take(descriptor, wait_s)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, wait_s: float) -> None:
    deadline_s = time.monotonic() + wait_s
    told = False
    while not _taken(descriptor):
        pid = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        if time.monotonic() >= deadline_s:
            raise AgentRunning(
                f"Another agent of this home (pid {pid}) has not ended within {wait_s:g} s.",
                next_step="Use it, or stop it first: send it SIGTERM.",
            )
        if not told:
            told = True
            log.info("waiting for another agent to end", extra={"pid": pid, "wait_s": wait_s})
        time.sleep(_POLL_S)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
