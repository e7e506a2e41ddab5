"""A note of the newest manifest, kept outside of ledger.db: one line of JSON.

A ledger that is put back as an older copy then does not pass for the whole one. The note is written
after the manifest is stored, so a crash in between leaves it one behind, which is no contradiction.
"""

import os
from pathlib import Path

import msgspec


class Note(msgspec.Struct, frozen=True):
    epoch: int
    seq: int
    sha256: str


def read_note(path: Path) -> Note | None:
    """None: there is none, or it cannot be read; then it says nothing."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Note)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def write_note(path: Path, note: Note) -> None:
    """Durable when it returns; a crash leaves the old note or the new one. Raises OSError."""
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("wb") as file:
        file.write(msgspec.json.encode(note) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
