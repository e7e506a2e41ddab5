"""What the console remembers of an account from one time to the next: its theme."""

import secrets
from pathlib import Path
from typing import Final

import msgspec
from platformdirs import user_state_path

_FILE: Final = "console.json"
_BYTES_MAX: Final = 4_096


class Remembered(msgspec.Struct, frozen=True):
    """`look` is the name of a theme; "" for none. The console always begins at the Dash."""

    look: str = ""


def remembered_file() -> Path:
    return user_state_path("crosslogic", appauthor=False) / _FILE


def recall(file: Path) -> tuple[Remembered, str]:
    """What was kept, and what is to be said of it: a file that makes no sense is passed over."""
    try:
        with file.open("rb") as source:
            return msgspec.json.decode(source.read(_BYTES_MAX), type=Remembered), ""
    except FileNotFoundError:
        return Remembered(), ""
    except OSError as error:
        return Remembered(), f"{file} cannot be read: {error.strerror}."
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Remembered(), f"{file} is damaged and was passed over."


def keep(file: Path, what: Remembered) -> None:
    """Replace it whole. Raises OSError."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        beside.write_bytes(msgspec.json.encode(what))
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)
