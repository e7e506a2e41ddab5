"""One appliance for each home: a lock that the kernel takes back when its holder dies."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance.domain.errors import CrossLogicError


class AlreadyRunning(CrossLogicError):
    code = "already_running"


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock, or raise AlreadyRunning when another process does."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.pread(descriptor, 32, 0).decode().strip()
            raise AlreadyRunning(
                f"An appliance runs in this home already (pid {pid}).",
                next_step="Use it, or stop it first: see `cic status`.",
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)
