"""Files that survive a power cut: written aside, synced, renamed; and what they look like."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from hashlib import file_digest
from pathlib import Path

PARTIAL = ".partial"


def write_whole(path: Path, content: bytes, mode: int, group: int | None = None) -> None:
    """The file has the old content or the new one, never a part. `group` is a gid."""
    aside = path.with_name(f".{path.name}{PARTIAL}")
    with contextlib.suppress(FileNotFoundError):
        aside.unlink()
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as out:
        os.fchmod(descriptor, mode)  # whatever the umask
        if group is not None:
            os.fchown(descriptor, -1, group)
        out.write(content)
        out.flush()
        os.fsync(descriptor)
    aside.replace(path)
    sync_folder(path.parent)


def append_line(path: Path, line: str) -> None:
    """Appends one line and returns when it is on disk. A line that a power cut tore is ended."""
    torn = path.exists() and path.stat().st_size > 0 and _last_byte(path) != b"\n"
    is_new = not path.exists()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "ab") as out:
        out.write((("\n" if torn else "") + line + "\n").encode())
        out.flush()
        os.fsync(descriptor)
    if is_new:
        sync_folder(path.parent)


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def switch_link(link: Path, target: str) -> None:
    """Makes or changes a symbolic link in one step: there is no moment without it."""
    aside = link.with_name(f".{link.name}{PARTIAL}")
    with contextlib.suppress(FileNotFoundError):
        aside.unlink()
    aside.symlink_to(target)
    aside.replace(link)
    sync_folder(link.parent)


def copy_tree(source: Path, target: Path) -> Iterator[int]:
    """Copies beside as NAME.partial, syncs, and renames; yields the bytes copied so far.

    Modes are 0755 and 0644, owned by who runs this: a stick knows neither. What an earlier try
    left is removed first. A target that is there is complete: it is not touched.
    """
    if target.is_dir():
        return
    aside = target.with_name(target.name + PARTIAL)
    if aside.exists():
        shutil.rmtree(aside)
    copied = 0
    for folder, folders, names in os.walk(source):
        folders.sort()
        there = aside / Path(folder).relative_to(source)
        there.mkdir()
        there.chmod(0o755)
        for name in sorted(names):
            file = Path(folder) / name
            runs = file.stat().st_mode & 0o100
            _copy_file(file, there / name, 0o755 if runs else 0o644)
            copied += file.stat().st_size
        yield copied
    # One sync of the file system instead of one for each of thousands of files.
    descriptor = os.open(aside, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.sync()
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    aside.rename(target)
    sync_folder(target.parent)


def _copy_file(source: Path, target: Path, mode: int) -> None:
    with source.open("rb") as content, target.open("wb") as out:
        shutil.copyfileobj(content, out, 1 << 20)
        os.fchmod(out.fileno(), mode)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def missing_parents(path: Path, root: Path) -> list[Path]:
    """The folders above `path`, below `root`, that are not there yet; the highest first."""
    found = []
    for parent in path.parents:
        if parent == root or parent.exists():
            break
        found.append(parent)
    return found[::-1]


def remove_folder(folder: Path) -> bool:
    """Removes it where it is empty; whether it is gone."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
