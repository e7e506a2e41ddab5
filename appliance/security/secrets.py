"""The site's secret files: 32 random bytes each, mode 0600 in a folder of mode 0700."""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from appliance.security.errors import SecretDamaged, SecretExposed, SecretMissing, SecurityError

SECRET_BYTES: Final = 32
PEPPER_FILE: Final = "api-key-pepper"
SEAL_KEY_FILE: Final = "seal-key"
_FOLDER_MODE: Final = 0o700
_FILE_MODE: Final = 0o600


@dataclass(frozen=True, slots=True)
class SiteSecrets:
    """What `cic serve` holds in memory. Never printed: `repr` leaves the bytes out."""

    pepper: bytes = field(repr=False)  # API keys are stored as HMAC-SHA256 with it
    seal_key: bytes = field(repr=False)  # seals the API keys of external engines


def create_all(folder: Path, entropy: Callable[[int], bytes] = os.urandom) -> None:
    """Make the folder and every secret that is not there yet; those that exist stay as they are.

    Raises SecurityError when the folder cannot be written.
    """
    try:
        folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        folder.chmod(_FOLDER_MODE)
        for name in (PEPPER_FILE, SEAL_KEY_FILE):
            if not (folder / name).exists():
                write_secret(folder / name, entropy(SECRET_BYTES))
    except OSError as error:
        raise SecurityError(
            f"Cannot write the secrets in {folder}: {error.strerror}.",
            next_step="Check that the folder can be written and its disk has space.",
        ) from error


def load_all(folder: Path) -> SiteSecrets:
    """Read every secret. Raises SecretMissing, SecretExposed or SecretDamaged, naming the file."""
    return SiteSecrets(
        pepper=read_secret(folder / PEPPER_FILE), seal_key=read_secret(folder / SEAL_KEY_FILE)
    )


def write_secret(path: Path, secret: bytes) -> None:
    """Put `secret` at `path` so that a crash leaves the old file, the new one, or none."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
    with open(descriptor, "wb") as file:  # noqa: PTH123 (opens a descriptor, not a path)
        os.fchmod(descriptor, _FILE_MODE)  # the umask may have taken bits, never added them
        file.write(secret)
        file.flush()
        os.fsync(descriptor)
    replace_secret(temporary, path)


def replace_secret(path: Path, place: Path) -> None:
    """Move a secret to `place`, over the one that is there, durably."""
    path.rename(place)
    folder = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_secret(path: Path) -> bytes:
    """The 32 bytes at `path`, after a look at who else could read them."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise SecretMissing(
            f"The secret {path} is not there.",
            next_step="Run `cic init` for a new site, or restore the file from the site's backup: "
            "without it no existing API key is accepted.",
        ) from error
    except OSError as error:
        raise SecretExposed(
            f"Cannot read the secret {path}: {error.strerror}.",
            next_step="It must be a plain file that the appliance's account owns, mode 0600.",
        ) from error
    with open(descriptor, "rb") as file:  # noqa: PTH123 (opens a descriptor, not a path)
        _refuse_exposed(path.parent, path.parent.stat(), _FOLDER_MODE)
        _refuse_exposed(path, os.fstat(descriptor), _FILE_MODE)
        secret = file.read(SECRET_BYTES + 1)
    if len(secret) != SECRET_BYTES:
        raise SecretDamaged(
            f"The secret {path} does not hold {SECRET_BYTES} bytes.",
            next_step="Restore the file from the site's backup.",
        )
    return secret


def _refuse_exposed(path: Path, status: os.stat_result, mode: int) -> None:
    if status.st_uid not in {0, os.geteuid()}:
        raise SecretExposed(
            f"{path} belongs to another account (uid {status.st_uid}).",
            next_step=f"Run: chown {os.geteuid()} {path}",
        )
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise SecretExposed(
            f"{path} is open to other accounts (mode {stat.S_IMODE(status.st_mode):04o}).",
            next_step=f"Run: chmod {mode:o} {path}",
        )
