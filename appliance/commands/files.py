"""Files that commands write for a person to carry or keep."""

import os
from pathlib import Path

from appliance.wire.command import CommandError, ExitCode

_MODE = 0o644


def write_new(path: Path, content: bytes) -> None:
    """Write a file that was not there, whole or not at all. Raises CommandError."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        if path.exists():
            raise CommandError(
                f"{path} is there already.",
                next_step="Name another file; nothing was overwritten.",
                exit_code=ExitCode.CONFLICT,
            )
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
        with open(descriptor, "wb") as file:  # noqa: PTH123 (opens a descriptor, not a path)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        temporary.rename(path)
    except OSError as error:
        raise CommandError(
            f"Cannot write {path}: {error.strerror}.",
            next_step="Name a folder that exists and can be written.",
            exit_code=ExitCode.CONFIGURATION,
        ) from error
