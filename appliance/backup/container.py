"""The file of a backup: a head that anybody can read, and an encrypted archive.

    CROSSLOGIC BACKUP 1\\n
    u32 big-endian: length of the head
    head: JSON (Head)
    pieces of an encrypted stream (`security.sealed_stream`): a tar, gzip inside

The first member of the archive is `index.json`: every other one with its length and SHA-256. Names
are those of MEMBERS; anything else is refused before it is written anywhere.
"""

import gzip
import hashlib
import io
import os
import re
import struct
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from appliance.backup.errors import BackupDamaged, NoBackupKey, NotABackup
from appliance.security.errors import SealBroken
from appliance.security.sealed_stream import (
    PREFIX_BYTES,
    SALT_BYTES,
    SCRYPT_N,
    decrypt,
    encrypt,
    key_of_passphrase,
    key_of_secret,
)

MAGIC: Final = b"CROSSLOGIC BACKUP 1\n"
SUFFIX: Final = ".clbackup"
_HEAD_BYTES_MAX: Final = 64 * 1024
_INDEX: Final = "index.json"
_INDEX_BYTES_MAX: Final = 1024 * 1024
_COPY_BYTES: Final = 1024 * 1024
_MEMBER = re.compile(
    r"config\.toml|registry\.db|ledger\.db|manifest-head\.json|secrets/[a-z0-9][a-z0-9.-]{0,99}"
)
_SCRYPT_N_MAX: Final = 2**20  # what a stranger's file may make us spend


class Head(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is told of a backup without its key."""

    made_at: str
    product: str  # version of the appliance that made it
    protection: str  # passphrase, key
    salt: str
    prefix: str
    scrypt_n: int = SCRYPT_N
    key_id: str = ""  # of the key: the first 16 hex digits of its SHA-256


class Member(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    size_bytes: int
    sha256: str


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """What is inside. `records` are those of the ledger, `newest` its newest manifest."""

    site: str
    product: str
    made_at: str
    records: int
    newest: str
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Opening:
    """What opens a backup: one of the two."""

    secret: bytes | None = None  # 32 bytes
    passphrase: str | None = None

    @property
    def protection(self) -> str:
        return "key" if self.passphrase is None else "passphrase"

    @property
    def key_id(self) -> str:
        return "" if self.secret is None else hashlib.sha256(self.secret).hexdigest()[:16]

    def key(self, salt: bytes, n: int) -> bytes:
        if self.passphrase is not None:
            return key_of_passphrase(self.passphrase, salt, n)
        if self.secret is None:
            raise NoBackupKey(
                "Nothing was given that opens this backup.",
                next_step="Name --key-file or --passphrase-file.",
            )
        return key_of_secret(self.secret, salt)


def write(
    target: BinaryIO,
    files: Sequence[tuple[str, Path]],
    facts: Index,
    opening: Opening,
    entropy: Callable[[int], bytes],
    tell: Callable[[str], None],
) -> Index:
    """`facts` without its members, which follow from the files. The index. Raises OSError."""
    head = Head(
        made_at=facts.made_at,
        product=facts.product,
        protection=opening.protection,
        salt=entropy(SALT_BYTES).hex(),
        prefix=entropy(PREFIX_BYTES).hex(),
        key_id=opening.key_id if opening.passphrase is None else "",
    )
    encoded = msgspec.json.encode(head)
    target.write(MAGIC + struct.pack(">I", len(encoded)) + encoded)
    members = tuple(
        Member(name=name, size_bytes=path.stat().st_size, sha256=_digest(path))
        for name, path in files
    )
    facts = msgspec.structs.replace(facts, members=members)
    index = msgspec.json.encode(facts)
    key = opening.key(bytes.fromhex(head.salt), head.scrypt_n)
    for piece in encrypt(key, encoded, bytes.fromhex(head.prefix), _archive(index, files, tell)):
        target.write(piece)
    return facts


def _archive(
    index: bytes, files: Sequence[tuple[str, Path]], tell: Callable[[str], None]
) -> Iterator[bytes]:
    """The gzipped tar, in pieces as it grows: it never lies anywhere in plain text."""
    out = _Pipe()
    with (
        gzip.GzipFile(fileobj=out, mode="wb", mtime=0, compresslevel=6) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.USTAR_FORMAT) as archive,
    ):
        archive.addfile(_info(_INDEX, len(index)), io.BytesIO(index))
        for name, path in files:
            tell(name)
            with path.open("rb") as file:
                archive.addfile(_info(name, os.fstat(file.fileno()).st_size), file)
            yield out.taken()
    yield out.taken()


class _Pipe(io.RawIOBase):
    def __init__(self) -> None:
        self._held = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._held += data
        return len(data)

    def taken(self) -> bytes:
        held, self._held = bytes(self._held), bytearray()
        return held


def _info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o600
    return info


def read_head(source: BinaryIO) -> tuple[Head, bytes]:
    """The head, and its bytes as they are authenticated. Raises NotABackup."""
    if source.read(len(MAGIC)) != MAGIC:
        raise NotABackup(
            "This is no backup of an appliance, or one of a newer version.",
            next_step="Give a file that `cic backup create` made.",
        )
    length = source.read(4)
    size = struct.unpack(">I", length)[0] if len(length) == 4 else 0
    encoded = source.read(size) if 0 < size <= _HEAD_BYTES_MAX else b""
    try:
        head = msgspec.json.decode(encoded, type=Head)
        salt, prefix = bytes.fromhex(head.salt), bytes.fromhex(head.prefix)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise NotABackup(
            "The head of this backup is damaged.", next_step="Take another copy of it."
        ) from error
    power_of_two = head.scrypt_n > 1 and head.scrypt_n & (head.scrypt_n - 1) == 0
    if (
        len(salt) != SALT_BYTES
        or len(prefix) != PREFIX_BYTES
        or not power_of_two
        or head.scrypt_n > _SCRYPT_N_MAX
    ):
        raise NotABackup(
            "The head of this backup is damaged.", next_step="Take another copy of it."
        )
    return head, encoded


def unpack(
    source: BinaryIO, opening: Opening, folder: Path, tell: Callable[[str], None]
) -> tuple[Head, Index]:
    """Put what is inside into an empty folder of our own. What is wrong raises; the folder then
    holds nothing that may be used. Raises BackupError, SealBroken, OSError."""
    head, encoded = read_head(source)
    if head.protection == "passphrase" and opening.passphrase is None:
        raise NoBackupKey(
            "This backup was made with a passphrase.", next_step="Name --passphrase-file."
        )
    if head.protection == "key" and opening.secret is None:
        raise NoBackupKey(
            f"This backup was made with the site's backup key {head.key_id}.",
            next_step="Name --key-file: the key that `cic backup key` once gave you.",
        )
    key = opening.key(bytes.fromhex(head.salt), head.scrypt_n)
    plain = io.BufferedReader(
        _Reader(decrypt(key, encoded, bytes.fromhex(head.prefix), source)), _COPY_BYTES
    )
    try:
        with gzip.GzipFile(fileobj=plain, mode="rb") as packed:
            index = _extract(packed, folder, tell)
            more = packed.read().strip(b"\0") or plain.read(1)
    except SealBroken:
        raise
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, ValueError, msgspec.DecodeError) as error:
        raise BackupDamaged(
            f"What is in this backup is not whole: {error}.", next_step="Take another copy of it."
        ) from error
    if more:
        raise BackupDamaged(
            "This backup goes on behind its end.", next_step="Take another copy of it."
        )
    return head, index


def _extract(packed: Any, folder: Path, tell: Callable[[str], None]) -> Index:
    with tarfile.open(fileobj=packed, mode="r|") as archive:
        first = archive.next()
        if first is None or first.name != _INDEX or first.size > _INDEX_BYTES_MAX:
            raise ValueError("it has no index")
        file = archive.extractfile(first)
        if file is None:
            raise ValueError("it has no index")
        index = msgspec.json.decode(file.read(), type=Index)
        for wanted in index.members:
            info = archive.next()
            if info is None or info.name != wanted.name or not info.isreg():
                raise ValueError(f"{wanted.name} is missing")
            if not _MEMBER.fullmatch(info.name) or info.size != wanted.size_bytes:
                raise ValueError(f"{info.name!r} does not belong in a backup")
            content = archive.extractfile(info)
            assert content is not None  # it is a regular file
            tell(info.name)
            if _put(content, folder / info.name) != wanted.sha256:
                raise ValueError(f"{info.name} is not what the index says")
        if archive.next() is not None:
            raise ValueError("it has more than its index says")
    return index


def _put(content: Any, path: Path) -> str:
    """Write it, for its owner alone; its SHA-256."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    digest = hashlib.sha256()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        while piece := content.read(_COPY_BYTES):
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


class _Reader(io.RawIOBase):
    """Pieces as a file that can be read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._held:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._held = piece
        taken = min(len(buffer), len(self._held))
        buffer[:taken] = self._held[:taken]
        self._held = self._held[taken:]
        return taken


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
