"""Whether a backup can be used: it is put into a folder of its own and everything in it is read."""

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from appliance.backup import container
from appliance.backup.container import Head, Index, Opening
from appliance.backup.errors import BackupDamaged, BackupError, NotABackup
from appliance.domain.errors import CrossLogicError
from appliance.manifests.lines import Salts
from appliance.metering.reader import LedgerReader
from appliance.registry.audit import AuditHeads, verify_chain
from appliance.security.secrets import load_all
from appliance.storage.database import connect
from appliance.sync.head_note import read_note
from appliance.sync.identity import read_salts
from appliance.sync.manifest_verification import ManifestVerifier
from appliance.wire.home import Home

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Tried:
    """What was found. `problems` is empty where the backup can be used."""

    head: Head
    index: Index
    records: int
    audit_entries: int
    manifests: int
    problems: tuple[str, ...]


def head_of(path: Path) -> Head:
    """What is told of a backup without opening it. Raises NotABackup."""
    try:
        with path.open("rb") as source:
            return container.read_head(source)[0]
    except OSError as error:
        raise NotABackup(
            f"{path} cannot be read: {error.strerror}.", next_step="Name the file of a backup."
        ) from error


@contextmanager
def unpacked(
    path: Path, opening: Opening, beside: Path, tell: Tell
) -> Iterator[tuple[Head, Index, Home]]:
    """A home in a folder that is gone afterwards. Raises BackupError, SealBroken."""
    try:
        beside.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".trying-", dir=beside))
    except OSError as error:
        raise BackupError(
            f"Nothing can be written into {beside}: {error.strerror}.",
            next_step="Look at its permissions and space.",
        ) from error
    try:
        with path.open("rb") as source:
            head, index = container.unpack(source, opening, folder, tell)
        yield head, index, home_in(folder)
    except OSError as error:
        raise BackupError(
            f"{path} cannot be unpacked: {error.strerror}.",
            next_step="Look at the disk's space, and at the file.",
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def home_in(folder: Path) -> Home:
    return Home(config=folder, state=folder, run=folder / "run", logs=folder / "log", root=folder)


def try_out(path: Path, opening: Opening, beside: Path, tell: Tell) -> Tried:
    """Raises BackupError or SealBroken where it cannot even be opened."""
    with unpacked(path, opening, beside, tell) as (head, index, home):
        return examine(head, index, home, tell)


def examine(head: Head, index: Index, home: Home, tell: Tell) -> Tried:
    """Everything in an unpacked home is opened and recomputed."""
    problems: list[str] = []
    records = entries = manifests = 0
    try:
        for file in (home.registry_file, home.ledger_file):
            tell(f"checking {file.name}")
            problems += _whole(file)
        load_all(home.secrets)
        tell("verifying the ledger")
        ledger = LedgerReader(home.ledger_file).verify()
        records = ledger.records
        problems += [f"ledger: {problem}" for problem in ledger.problems]
        tell("verifying the audit")
        with closing(connect(home.registry_file, read_only=True)) as connection:
            audit = verify_chain(connection)
        entries = audit.entries
        problems += [f"audit: {problem}" for problem in audit.problems]
        tell("verifying the manifests")
        manifests, found = _manifests(home)
        problems += found
    except CrossLogicError as error:
        problems.append(error.message)
    except sqlite3.Error as error:
        problems.append(str(error))
    if records != index.records:
        problems.append(f"the ledger has {records} records, and {index.records} were saved")
    return Tried(head, index, records, entries, manifests, tuple(problems))


def _manifests(home: Home) -> tuple[int, list[str]]:
    verifier = ManifestVerifier(
        LedgerReader(home.ledger_file),
        Salts(read_salts(home.secrets)),
        AuditHeads(home.registry_file),
        read_note(home.manifest_note),
        rest=lambda _worked_s: None,
    )
    *_, last = verifier.run()
    return last.checked, [f"manifests: {problem}" for problem in last.problems]


def _whole(file: Path) -> list[str]:
    with closing(connect(file, read_only=True)) as connection:
        rows = [str(row[0]) for row in connection.execute("PRAGMA quick_check(10)")]
    return [] if rows == ["ok"] else [f"{file.name}: {row}" for row in rows]


def require_sound(tried: Tried) -> None:
    """Raises BackupDamaged, with what was found."""
    if tried.problems:
        raise BackupDamaged(
            f"This backup cannot be used: {'; '.join(tried.problems[:3])}.",
            next_step="Take another one: `cic backup list` shows them.",
        )
