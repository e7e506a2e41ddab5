"""Small files that are either the old or the new, whatever happens in between."""

import logging
import os
from pathlib import Path
from typing import TypeVar

import msgspec

log = logging.getLogger(__name__)

M = TypeVar("M")


def write_message(path: Path, message: msgspec.Struct, *, lasting: bool = True) -> None:
    """Write as JSON, readable by this account alone; on disk when this returns.

    Not `lasting`: only for processes of this boot, so that nobody waits for the disk.
    """
    write_bytes(path, msgspec.json.encode(message), lasting=lasting)


def kept_message(path: Path, message: msgspec.Struct) -> bool:
    """The same where going on matters more than the file: a disk that takes nothing is logged."""
    try:
        write_message(path, message)
    except OSError as error:
        log.warning("file not written", extra={"path": str(path), "why": str(error)})
        return False
    return True


def write_bytes(path: Path, content: bytes, *, lasting: bool = True) -> None:
    """Put `content` there, readable by this account alone; on disk when this returns."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:  # writes all of it, or raises
        file.write(content)
        file.flush()
        if lasting:
            os.fsync(descriptor)
    temporary.replace(path)
    if not lasting:
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_message(path: Path, kind: type[M]) -> M | None:
    """None when there is no such file, or it is not one of ours: it is then as good as none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
