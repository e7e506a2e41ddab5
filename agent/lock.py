"""One agent for each state folder: a lock that the kernel takes back when its holder dies."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from agent.errors import AgentRunning

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
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() < deadline_s:
                time.sleep(_POLL_S)
                continue
            pid = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            raise AgentRunning(
                f"Another agent of this home (pid {pid or 'unknown'}) has not ended"
                f" within {wait_s:g} s.",
                next_step="Use it, or stop it first: send it SIGTERM.",
            ) from error
        return
