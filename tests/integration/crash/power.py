"""What may be on a disk after the power was cut, worked out from a record of all that was done.

The model, at its most unkind that a file system following POSIX may be:

- Of a file, everything written before a sync *began* that has succeeded is there.
- Of what was written later, any sectors (512 bytes) of any of the writes may be there or not, and
  any change of size, each for itself. So writes are torn, and later ones survive earlier ones.
- What was written before a sync that *failed* is there or not, and no later sync repairs it: the
  system has let go of those pages.
- Names of files (made, removed) are durable with a sync of the folder; of later changes, any number
  of the first ones is there.
- The shared-memory file of SQLite is never there: it is memory.
"""

import random
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

SECTOR = 512
FOLDER = 1
ACKS = "acks"
_HEAD = struct.Struct("=IIQQ")
_SOURCE = Path(__file__).with_name("disk_recorder.c")


class Kind(IntEnum):
    CREATED = 1
    WRITTEN = 2
    TRUNCATED = 3
    SYNCED = 4
    UNLINKED = 5
    SYNC_FAILED = 6


@dataclass(frozen=True, slots=True)
class Entry:
    kind: Kind
    file: int
    offset: int
    data: bytes


@dataclass(slots=True)
class _File:
    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, Entry]] = field(default_factory=list)


class Disk:
    """A folder whose every write is recorded, and that can be made to fail."""

    def __init__(self, folder: Path, recorder: Path, watched: Path | None = None) -> None:
        """Files that are made in `watched` from now on; the record is kept in `folder`."""
        self.folder = watched or folder / "watched"
        self.folder.mkdir(exist_ok=True)
        self.record = folder / "record"
        self.switch = folder / "fault"
        self.switch.write_bytes(b"n")
        self.environ = {
            "LD_PRELOAD": str(recorder),
            "DISK_FOLDER": str(self.folder),
            "DISK_LOG": str(self.record),
            "DISK_FAULT": str(self.switch),
        }

    def fail(self, how: bytes) -> None:
        """In place, because the byte is mapped: n nothing, s no space, w writes, f syncs."""
        with self.switch.open("r+b") as file:
            file.write(how)

    def entries(self) -> list[Entry]:
        return read_record(self.record)


def build_recorder(compiler: str, folder: Path) -> Path:
    """Compile the library that records."""
    library = folder / "disk_recorder.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O2", "-o", library, _SOURCE, "-ldl", "-lpthread"],
        check=True,
        timeout=60,
    )
    return library


def read_record(path: Path) -> list[Entry]:
    """The entries of a record; a torn last one is left out."""
    raw = path.read_bytes()
    entries: list[Entry] = []
    place = 0
    while place + _HEAD.size <= len(raw):
        kind, file, offset, length = _HEAD.unpack_from(raw, place)
        place += _HEAD.size
        if place + length > len(raw):
            break
        entries.append(Entry(Kind(kind), file, offset, raw[place : place + length]))
        place += length
    return entries


def said(entries: list[Entry]) -> bytes:
    """What the program had told the outside world: it heard it before the power went."""
    names = {e.file: e.data.decode() for e in entries if e.kind is Kind.CREATED}
    return b"".join(e.data for e in entries if e.kind is Kind.WRITTEN and names.get(e.file) == ACKS)


def cut(entries: list[Entry], chance: random.Random) -> dict[str, bytes]:
    """The files that are there after a cut that follows the last entry: name to content."""
    files: dict[int, _File] = {}
    names: dict[str, int] = {}
    renamed: list[tuple[int, Entry]] = []  # changes of names, not durable yet
    for index, entry in enumerate(entries):
        match entry.kind:
            case Kind.CREATED | Kind.UNLINKED:
                renamed.append((index, entry))
            case Kind.WRITTEN | Kind.TRUNCATED:
                files.setdefault(entry.file, _File()).pending.append((index, entry))
            case Kind.SYNCED if entry.file == FOLDER:
                for begun, change in renamed:
                    if begun < entry.offset:
                        _rename(names, change)
                renamed = [pair for pair in renamed if pair[0] >= entry.offset]
            case Kind.SYNCED | Kind.SYNC_FAILED:
                file = files.setdefault(entry.file, _File())
                covered = [change for begun, change in file.pending if begun < entry.offset]
                file.pending = [pair for pair in file.pending if pair[0] >= entry.offset]
                lucky = 1.0 if entry.kind is Kind.SYNCED else chance.random()
                _apply(file.durable, covered, lucky, chance)
    for _, change in renamed[: chance.randint(0, len(renamed))]:
        _rename(names, change)
    lucky = chance.choice((0.0, 0.2, 0.5, 0.9, 1.0))
    for number in names.values():
        if number in files:
            file = files[number]
            _apply(file.durable, [change for _, change in file.pending], lucky, chance)
    return {
        name: bytes(files[number].durable) if number in files else b""
        for name, number in names.items()
        if name != ACKS and not name.endswith("-shm")
    }


def _rename(names: dict[str, int], change: Entry) -> None:
    if change.kind is Kind.CREATED:
        names[change.data.decode()] = change.file
    else:
        names.pop(change.data.decode(), None)


def _apply(content: bytearray, changes: list[Entry], lucky: float, chance: random.Random) -> None:
    """Each sector of each change is done with the probability `lucky`."""
    for change in changes:
        if change.kind is Kind.TRUNCATED:
            if lucky == 1.0 or chance.random() < lucky:
                _resize(content, change.offset)
            continue
        for offset, piece in _sectors(change) if lucky < 1.0 else [(change.offset, change.data)]:
            if lucky == 1.0 or chance.random() < lucky:
                if len(content) < offset + len(piece):
                    _resize(content, offset + len(piece))
                content[offset : offset + len(piece)] = piece


def _resize(content: bytearray, size: int) -> None:
    if size < len(content):
        del content[size:]
    else:
        content.extend(bytes(size - len(content)))


def _sectors(change: Entry) -> Iterator[tuple[int, bytes]]:
    start, end = change.offset, change.offset + len(change.data)
    while start < end:
        stop = min(end, (start // SECTOR + 1) * SECTOR)
        yield start, change.data[start - change.offset : stop - change.offset]
        start = stop
