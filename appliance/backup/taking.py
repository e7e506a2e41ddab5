"""A copy of a site's files that fits together, taken while it serves."""

import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from appliance.backup import container
from appliance.backup.container import Index, Opening
from appliance.backup.errors import BackupNotWritten
from appliance.domain.clock import Clock, iso
from appliance.metering.reader import LedgerReader
from appliance.storage.database import connect
from appliance.sync.head_note import read_note
from appliance.wire.home import Home

_TRIES: Final = 5
_SECRET = re.compile(r"[a-z0-9][a-z0-9.-]{0,99}")
# What is copied lies beside the backup for a moment, and the backup itself may be as large.
_ROOM: Final = 2.2


@dataclass(frozen=True, slots=True)
class Taken:
    path: Path
    index: Index
    size_bytes: int


def take(
    home: Home,
    folder: Path,
    opening: Opening,
    clock: Clock,
    *,
    site: str,
    product: str,
    entropy: Callable[[int], bytes] = os.urandom,
    tell: Callable[[str], None] = lambda _step: None,
) -> Taken:
    """A new file in `folder`, whole or not there at all. Blocks for as long as the disk takes.

    The ledger is copied before the registry, so that every audit entry a manifest names is there;
    the note of the newest manifest before the ledger, so that the manifest it names is; and the
    secrets twice, so that no key was changed between.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_room(home, folder)
        with tempfile.TemporaryDirectory(prefix=".taking-", dir=folder) as name:
            return _take(home, folder, Path(name), opening, clock, site, product, entropy, tell)
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BackupNotWritten(
            f"The backup cannot be written into {folder}: {reason}.",
            next_step="Look at its disk's space and permissions, or name another folder.",
        ) from error


def _take(
    home: Home,
    folder: Path,
    aside: Path,
    opening: Opening,
    clock: Clock,
    site: str,
    product: str,
    entropy: Callable[[int], bytes],
    tell: Callable[[str], None],
) -> Taken:
    for _ in range(_TRIES):
        before = _secrets(home)
        note = home.manifest_note.read_bytes() if home.manifest_note.exists() else None
        tell("ledger.db")
        copy_database(home.ledger_file, aside / "ledger.db")
        tell("registry.db")
        copy_database(home.registry_file, aside / "registry.db")
        if _secrets(home) == before:
            break
    else:
        raise OSError(0, "a key of the site is being changed all the time")
    (aside / "config.toml").write_bytes(home.config_file.read_bytes())
    files = [
        ("config.toml", aside / "config.toml"),
        ("registry.db", aside / "registry.db"),
        ("ledger.db", aside / "ledger.db"),
    ]
    if note is not None:
        (aside / "manifest-head.json").write_bytes(note)
        files.append(("manifest-head.json", aside / "manifest-head.json"))
    (aside / "secrets").mkdir(mode=0o700)
    for name, content in sorted(before.items()):
        (aside / "secrets" / name).write_bytes(content)
        files.append((f"secrets/{name}", aside / "secrets" / name))
    now_ns = clock.wall_ns()
    facts = Index(
        site=site,
        product=product,
        made_at=iso(now_ns),
        records=LedgerReader(aside / "ledger.db").record_count(),
        newest=_newest(aside / "manifest-head.json"),
        members=(),
    )
    stamp = datetime.fromtimestamp(now_ns / 1e9, UTC).strftime("%Y%m%dT%H%M%SZ")
    path = folder / f"{_plain(site)}-{stamp}{container.SUFFIX}"
    fresh = aside / "backup"
    with fresh.open("wb") as target:
        facts = container.write(target, files, facts, opening, entropy, tell)
        target.flush()
        os.fsync(target.fileno())
    fresh.chmod(0o600)
    fresh.rename(path)
    _sync_folder(folder)
    return Taken(path, facts, path.stat().st_size)


def copy_database(source: Path, target: Path) -> None:
    """As it is at one moment, whatever is being written to it. Raises sqlite3.Error."""
    with closing(connect(source, read_only=True)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)
        # One file: what is put back must not need the log beside it.
        new.execute("PRAGMA journal_mode=DELETE")
    target.chmod(0o600)


def _secrets(home: Home) -> dict[str, bytes]:
    """Every secret but the key that opens backups: with it inside, the box held its own key."""
    return {
        path.name: path.read_bytes()
        for path in home.secrets.iterdir()
        if _SECRET.fullmatch(path.name)
        and path.name != home.backup_key_file.name
        and path.is_file()
        and not path.is_symlink()
    }


def _require_room(home: Home, folder: Path) -> None:
    files = (home.ledger_file, home.registry_file)
    needed = int(sum(path.stat().st_size for path in files) * _ROOM)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise BackupNotWritten(
            f"{folder} has {free:,} bytes free, and the backup may need {needed:,}.",
            next_step="Name a folder with more room: `cic backup create --to FOLDER`.",
        )


def _newest(note: Path) -> str:
    found = read_note(note) if note.exists() else None
    return "" if found is None else f"{found.epoch}-{found.seq}"


def _plain(site: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", site).strip("-").lower()[:40] or "site"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
