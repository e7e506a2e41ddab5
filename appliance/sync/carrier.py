"""The folder that a person carries: a stick, which may be full, worn out, or gone at any moment.

- The folder is opened once and everything happens in what was opened, so that a stick which is
  taken out in the midst is never replaced by the empty folder that it was mounted on.
- A file is written under a temporary name, synced, renamed, and the folder is synced. Whatever
  fails on the way, the temporary file is taken away if the stick still lets us.
- Reading back goes past the memory in which the system keeps what was just written.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from appliance.sync.errors import (
    BundleExists,
    CarrierFull,
    CarrierLost,
    CarrierUnusable,
    SyncError,
)

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DENIED: Final = frozenset({errno.EACCES, errno.EPERM})
_FILE_MODE: Final = 0o600
_PART: Final = ".part"  # the end of a temporary name; who writes it holds its lock
_NOTHING_LOST: Final = "Nothing is lost: everything is still in the ledger."


@dataclass(frozen=True, slots=True)
class Carrier:
    """An open folder. Made by `Carrier.open`; every failure is a SyncError that names it."""

    path: Path
    _descriptor: int
    _identity: tuple[int, int]  # device and inode

    @classmethod
    def open(cls, path: Path) -> "Carrier":
        """Raises CarrierUnusable when it is not there, is no folder, or only leads to one."""
        if path.is_symlink():
            raise CarrierUnusable(
                f"{path} is a link to {path.readlink()}.",
                next_step="Name the folder itself, so that it is certain where the bundle goes.",
            )
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise CarrierUnusable(
                f"There is no folder {path}.",
                next_step="Mount the stick, or make the folder, and export again.",
            ) from error
        except NotADirectoryError as error:
            raise CarrierUnusable(
                f"{path} is no folder.", next_step="Name the folder that the bundle goes into."
            ) from error
        except OSError as error:
            raise _failure(path, error) from error
        status = os.fstat(descriptor)
        return cls(path, descriptor, (status.st_dev, status.st_ino))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with suppress(OSError):  # a stick that is gone says so here as well
            os.close(self._descriptor)

    def is_on_disk_of(self, other: Path) -> bool:
        """Whether it is no stick at all but the disk that `other` lies on."""
        with suppress(OSError):
            return other.stat().st_dev == self._identity[0]
        return False

    def require_space(self, wanted_bytes: int) -> None:
        """Raises CarrierFull when there is less room."""
        with self._failures():
            free = os.fstatvfs(self._descriptor)
        free_bytes = free.f_bavail * free.f_frsize
        if free_bytes < wanted_bytes:
            raise CarrierFull(
                f"{self.path} has {_mib(free_bytes)} free, and {_mib(wanted_bytes)} are needed.",
                next_step="Make room on it, or take a larger one. "
                "`--from` and `--to` carry a part only.",
            )

    def holds(self, name: str) -> bool:
        """Whether something, also a link that leads nowhere, has this name."""
        try:
            os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _failure(self.path, error) from error
        return True

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """A new file that has its name, durably, once the block ends well; else there is none."""
        temporary = f".{name}{_PART}"
        with self._failures():
            self._sweep(temporary)
            descriptor = os.open(
                temporary,
                os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
                _FILE_MODE,
                dir_fd=self._descriptor,
            )
            try:
                _locked(descriptor)
                # Its buffer is written within, so that closing it has nothing left to fail on.
                with open(descriptor, "wb") as file:  # noqa: PTH123 (opens a descriptor)
                    yield file
                    file.flush()
                    os.fsync(descriptor)
                os.rename(temporary, name, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
                temporary = name  # from here on it is this that must not stay
                self._sync()
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary, dir_fd=self._descriptor)
                raise

    @contextmanager
    def reading(self, name: str) -> Iterator[BinaryIO]:
        """The file of that name as the stick has it, not as memory remembers it.

        Raises CarrierLost when the path does not lead to the opened folder any more.
        """
        with self._failures():
            status = self.path.stat(follow_symlinks=False)
            if (status.st_dev, status.st_ino) != self._identity:
                raise CarrierLost(
                    f"{self.path} is not what it was: the stick was taken out or unmounted.",
                    next_step=f"Mount it and export again. {_NOTHING_LOST}",
                )
            descriptor = os.open(
                name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._descriptor
            )
            with open(descriptor, "rb") as file:  # noqa: PTH123 (opens a descriptor)
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise CarrierUnusable(
                        f"{self.path / name} is no plain file.", next_step="Take it away."
                    )
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                yield file

    def sweep(self, prefix: str) -> None:
        """Take away what exports that were killed have left of files that begin so."""
        with self._failures():
            for name in os.listdir(self._descriptor):  # noqa: PTH208 (an open folder, no path)
                if name.startswith(f".{prefix}") and name.endswith(_PART):
                    self._sweep(name)

    def _sweep(self, name: str) -> None:
        """Raises BundleExists when another export is at work on this very file."""
        try:
            descriptor = os.open(
                name,
                os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
                dir_fd=self._descriptor,
            )
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            os.unlink(name, dir_fd=self._descriptor)  # a link, and never of ours
            return
        try:
            if not _locked(descriptor):
                raise BundleExists(
                    f"Another export is writing {self.path / name}.",
                    next_step="Wait until it is done.",
                )
            os.unlink(name, dir_fd=self._descriptor)
        finally:
            os.close(descriptor)

    def discard(self, name: str) -> None:
        """Take a file away that must not be carried, as far as the stick lets us."""
        with suppress(OSError):
            os.unlink(name, dir_fd=self._descriptor)
            os.fsync(self._descriptor)

    def _sync(self) -> None:
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
                raise
            os.sync()  # a file system that cannot sync a folder alone

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _failure(self.path, error) from error


def _locked(descriptor: int) -> bool:
    """Hold the file's lock; False when another process does. Some file systems have none."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _failure(path: Path, error: OSError) -> SyncError:
    """What the system said of the folder, as an error that tells a person what to do."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in _FULL:
        return CarrierFull(
            f"{path} is full, or takes no file so large: {reason}.",
            next_step=f"Make room on it, or take a larger one, and export again. {_NOTHING_LOST}",
        )
    if error.errno == errno.EROFS:
        return CarrierUnusable(
            f"{path} cannot be written: {reason}.",
            next_step="Take off its write protection, or mount it anew: the system also makes a"
            f" stick read-only when it fails. {_NOTHING_LOST}",
        )
    if error.errno in _DENIED:
        return CarrierUnusable(
            f"You may not write into {path}: {reason}.",
            next_step="Mount it for this account, or export as its owner.",
        )
    return CarrierLost(
        f"{path} failed or was taken out: {reason}.",
        next_step=f"Put the stick in again, or take another, and export again. {_NOTHING_LOST}",
    )


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 1024**2:,.1f} MiB"
