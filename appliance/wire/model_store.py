"""The store of models on a disk, the same on the appliance's host and on nodes.

    sha256/ab/abcd…      content, named by its SHA-256, read-only; nothing unverified is ever there
    partial/abcd…        content that is still coming; what is there is hashed again before it grows
    models/<digest>/     a model: its files under their names, as links to the content

Versions of a model share the content that they have in common. A model's folder appears whole or
not at all. Content that no model has a link to any more is swept.
"""

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from appliance.wire.agent import ModelFile

NAME_CHARS_MAX: Final = 90
FILES_MAX: Final = 10_000
FILE_BYTES_MAX: Final = 4 * 1024**4
CHUNK_BYTES: Final = 4 * 1024 * 1024
# Content of a model that did not become whole, and that nobody went on with, is kept so long.
PARTIAL_KEPT_S: Final = 7 * 86_400

_PART: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+=@-]*")
_PARTS_MAX: Final = 4
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_CONTENT_MODE: Final = 0o444
_FOLDER_MODE: Final = 0o755


class BadModelFiles(ValueError):
    """A list of files that is no model's; the text says which and why."""


class OtherContent(ValueError):
    """What came is not what was to come; it is gone from the store."""


class AlreadyComing(ValueError):
    """Somebody else is receiving that content now."""


def check_files(files: Sequence[ModelFile]) -> None:
    """Names that stay inside their folder, on any disk; digests; sizes. Raises BadModelFiles."""
    if not 1 <= len(files) <= FILES_MAX:
        raise BadModelFiles(f"a model has 1 to {FILES_MAX} files, not {len(files)}")
    seen: set[str] = set()
    folders: set[str] = set()
    for file in files:
        parts = file.name.split("/")
        if (
            len(file.name) > NAME_CHARS_MAX
            or len(parts) > _PARTS_MAX
            or not all(_PART.fullmatch(part) for part in parts)
        ):
            raise BadModelFiles(f"{file.name!r:.120} cannot be the name of a file")
        if not _SHA256.fullmatch(file.sha256):
            raise BadModelFiles(f"{file.name} has no SHA-256")
        if not 0 <= file.size_bytes <= FILE_BYTES_MAX:
            raise BadModelFiles(f"{file.name} cannot have {file.size_bytes} bytes")
        folded = file.name.casefold()
        if folded in seen:
            raise BadModelFiles(f"{file.name} is there twice")
        seen.add(folded)
        folders.update("/".join(parts[:depth]).casefold() for depth in range(1, len(parts)))
    if both := seen & folders:
        raise BadModelFiles(f"{min(both)} is a file and a folder")


class Incoming:
    """Content on its way into the store: `offset` bytes of it are there."""

    __slots__ = ("_descriptor", "_hasher", "file", "offset")

    def __init__(self, descriptor: int, file: ModelFile) -> None:
        self._descriptor = descriptor
        self._hasher = hashlib.sha256()
        self.file = file
        self.offset = 0

    def reread(self, stopped: Callable[[], bool]) -> None:
        """Hash what an earlier attempt left. More than the file has is thrown away."""
        if os.fstat(self._descriptor).st_size > self.file.size_bytes:
            os.ftruncate(self._descriptor, 0)
        while not stopped() and (chunk := os.read(self._descriptor, CHUNK_BYTES)):
            self._hasher.update(chunk)
            self.offset += len(chunk)

    def write(self, chunk: bytes) -> None:
        """Raises OtherContent when there is more than the file has, OSError."""
        if self.offset + len(chunk) > self.file.size_bytes:
            raise OtherContent(f"{self.file.name} is longer than it should be")
        self._hasher.update(chunk)
        view = memoryview(chunk)
        while view:
            view = view[os.write(self._descriptor, view) :]
        self.offset += len(chunk)

    def check(self) -> None:
        """On disk and as it should be, or OtherContent."""
        if self.offset != self.file.size_bytes:
            raise OtherContent(f"{self.file.name} is shorter than it should be")
        if self._hasher.hexdigest() != self.file.sha256:
            raise OtherContent(f"{self.file.name} is not what its SHA-256 says")
        os.fchmod(self._descriptor, _CONTENT_MODE)
        os.fsync(self._descriptor)


class ModelStore:
    """One writer for each content at a time; readers need no lock. Everything here blocks."""

    __slots__ = ("_content", "_models", "_partial", "root")

    def __init__(self, root: Path) -> None:
        self.root = root
        self._content = root / "sha256"
        self._partial = root / "partial"
        self._models = root / "models"

    def content(self, sha256: str) -> Path:
        return self._content / sha256[:2] / sha256

    def has(self, file: ModelFile) -> bool:
        try:
            return self.content(file.sha256).stat().st_size == file.size_bytes
        except FileNotFoundError:
            return False

    def folder(self, digest: str) -> Path:
        """Where the model of that digest is, or will be."""
        if not _DIGEST.fullmatch(digest):
            raise BadModelFiles(f"{digest!r:.90} is no digest")
        return self._models / digest.removeprefix("sha256:")

    def missing(self, files: Sequence[ModelFile]) -> list[ModelFile]:
        """Those whose content is to come; each content once."""
        unique = {file.sha256: file for file in files}
        return [file for file in unique.values() if not self.has(file)]

    def received_bytes(self, file: ModelFile) -> int:
        """Of content that is still coming."""
        try:
            return min((self._partial / file.sha256).stat().st_size, file.size_bytes)
        except FileNotFoundError:
            return 0

    @contextmanager
    def receive(
        self, file: ModelFile, stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[Incoming]:
        """Go on with content, from `Incoming.offset` on; whole when the block ends without error.

        What was received stays for the next attempt, unless it proved to be other content.
        Raises AlreadyComing, OtherContent, OSError.
        """
        partial = self._partial / file.sha256
        _make(self._partial)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(partial, flags, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise AlreadyComing(f"{file.name} is being received already") from error
            incoming = Incoming(descriptor, file)
            incoming.reread(stopped)
            try:
                yield incoming
                incoming.check()
            except OtherContent:
                partial.unlink(missing_ok=True)
                raise
            place = self.content(file.sha256)
            _make(place.parent)
            partial.rename(place)
            _sync(place.parent)
        finally:
            os.close(descriptor)

    def assemble(self, digest: str, files: Sequence[ModelFile]) -> Path:
        """Make the model's folder of content that is all there; the folder. Raises OSError."""
        check_files(files)
        folder = self.folder(digest)
        if folder.is_dir():
            return folder
        draft = folder.with_name(f".{folder.name}.new")
        shutil.rmtree(draft, ignore_errors=True)
        _make(draft)
        for file in files:
            place = draft / file.name
            _make(place.parent)
            os.link(self.content(file.sha256), place)
            _sync(place.parent)
        draft.rename(folder)
        _sync(folder.parent)
        return folder

    def complete(self, digest: str) -> bool:
        return self.folder(digest).is_dir()

    def digests(self) -> tuple[str, ...]:
        """Of the models that are whole, sorted."""
        with suppress(FileNotFoundError):
            names = sorted(path.name for path in self._models.iterdir())
            return tuple(f"sha256:{name}" for name in names if _SHA256.fullmatch(name))
        return ()

    def sweep(
        self, kept: Collection[str], now_s: float, *, dry: bool = False
    ) -> tuple[tuple[str, ...], int]:
        """Remove models whose digest is not in `kept`, then content that no model has.

        `now_s`: wall clock. `dry` removes nothing. Answers which models and how many bytes. The
        caller sees to it that nothing is being received.
        """
        gone = [digest for digest in self.digests() if digest not in kept]
        links: dict[tuple[int, int], int] = {}
        for digest in gone:
            folder = self.folder(digest)
            for path in folder.rglob("*"):
                if path.is_file():
                    status = path.stat()
                    key = (status.st_dev, status.st_ino)
                    links[key] = links.get(key, 0) + 1
            if not dry:
                doomed = folder.with_name(f".{folder.name}.old")
                folder.rename(doomed)
                shutil.rmtree(doomed)
        freed = 0
        for path in self._content.glob("??/*"):
            status = path.stat()
            were = links.get((status.st_dev, status.st_ino), 0)
            left = status.st_nlink - (were if dry else 0)
            # What never had a model is the beginning of one whose copy was interrupted.
            if left <= 1 and (were or now_s - status.st_mtime > PARTIAL_KEPT_S):
                freed += status.st_size
                if not dry:
                    path.unlink()
        return tuple(gone), freed + self._sweep_remains(now_s, dry=dry)

    def _sweep_remains(self, now_s: float, *, dry: bool) -> int:
        freed = 0
        with suppress(FileNotFoundError):
            for path in self._partial.iterdir():
                status = path.stat()
                if now_s - status.st_mtime > PARTIAL_KEPT_S:
                    freed += status.st_size
                    if not dry:
                        path.unlink()
        if not dry:
            for path in self._models.glob(".*"):
                shutil.rmtree(path, ignore_errors=True)
        return freed


def _make(folder: Path) -> None:
    folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
