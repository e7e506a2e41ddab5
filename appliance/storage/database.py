"""A SQLite file: opened, migrated, read through a pool, written through one thread."""

import asyncio
import os
import queue
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import sqlite_utils

from appliance.storage.errors import DatabaseDamaged, DatabaseUnavailable, SchemaTooNew
from appliance.storage.writer import GroupWriter, Outcome, of_the_disk

R = TypeVar("R")

# What a migration is given: sqlite-utils' view of the open file.
Schema: TypeAlias = sqlite_utils.Database

BUSY_TIMEOUT_S: Final = 5.0
_FILE_MODE: Final = 0o600
_INTERRUPT_S: Final = 0.25  # between two attempts to cut a read short
_MIGRATIONS_TABLE: Final = "_migrations"
_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of a schema. Steps are applied in order, once, each in its own transaction.

    `expands`: it adds tables, columns with defaults or indexes and takes nothing away, so a program
    that does not know the step works with the schema after it. It is written down with the step:
    that is how an earlier version may go on after an upgrade was rolled back.
    """

    name: str
    apply: Callable[[Schema], None]
    expands: bool = True


@dataclass(slots=True)
class _Call:
    """A write on its way to the writer's thread."""

    run: Callable[[sqlite3.Connection], Any]
    future: Future[Any]
    result: Any = None


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection with the pragmas every user of this package relies on.

    Autocommit is left to the caller (`isolation_level=None`). Raises DatabaseUnavailable when the
    file cannot be opened and DatabaseDamaged when it is no database.
    """
    mode = "ro" if read_only else "rwc"
    with _named(path):
        if not read_only:
            _create_closed(path)
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=BUSY_TIMEOUT_S,
        )
        try:
            if not read_only:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute("PRAGMA query_only=ON" if read_only else "PRAGMA query_only=OFF")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except BaseException:
            connection.close()
            raise
    connection.row_factory = sqlite3.Row
    return connection


def _create_closed(path: Path) -> None:
    """Make a new file that other accounts cannot read; SQLite gives its log the same mode."""
    # An existing file stays as it is, and what keeps one from being made SQLite says better.
    with suppress(OSError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE))


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn what SQLite says of the disk or the file into an error that names the file.

    What it says of a statement (a constraint, a mistake in SQL) is the caller's and passes.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        if not of_the_disk(error):
            raise
        if error.sqlite_errorcode & 0xFF in _DAMAGE:
            raise DatabaseDamaged(
                f"{path} is not a sound SQLite database: {error}.",
                next_step="Restore it from a backup; keep the damaged file for examination.",
            ) from error
        raise DatabaseUnavailable(
            f"Cannot use the database {path}: {error}.",
            next_step="Check that the folder exists, is writable and has free space.",
        ) from error


def migrate(path: Path, migrations: Sequence[Migration]) -> None:
    """Bring the file to the newest schema. Creates it when it is not there.

    Raises SchemaTooNew when the file knows a step that this program does not, unless that step
    only expanded the schema.
    """
    connection = connect(path)
    try:
        with _named(path):
            _apply_missing(path, connection, migrations)
    finally:
        connection.close()


def _apply_missing(
    path: Path, connection: sqlite3.Connection, migrations: Sequence[Migration]
) -> None:
    database = sqlite_utils.Database(connection)
    if not database.table(_MIGRATIONS_TABLE).exists():
        database.table(_MIGRATIONS_TABLE).create(
            {"name": str, "expands": int}, pk="name", not_null={"expands"}, defaults={"expands": 0}
        )
    if "expands" not in database.table(_MIGRATIONS_TABLE).columns_dict:
        database.table(_MIGRATIONS_TABLE).add_column("expands", int, not_null_default=0)
    rows = list(database.table(_MIGRATIONS_TABLE).rows)
    done = {row["name"] for row in rows}
    unknown = {row["name"] for row in rows if not row["expands"]} - {s.name for s in migrations}
    if unknown:
        raise SchemaTooNew(
            f"{path} was written by a newer version (it knows {', '.join(sorted(unknown))}).",
            next_step="Start the newer version, or restore the backup made before the upgrade.",
        )
    for step in migrations:
        if step.name in done:
            continue
        connection.execute("BEGIN IMMEDIATE")
        try:
            step.apply(database)
            connection.execute(
                f"INSERT INTO {_MIGRATIONS_TABLE} (name, expands) VALUES (?, ?)",  # noqa: S608 (a constant)
                [step.name, step.expands],
            )
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


class Database:
    """One SQLite file with one writer and a pool of readers.

    `write` takes a function of the connection; functions that arrive together share a transaction
    and its commit. The future is done only when the commit is on disk. A function that raises
    changes nothing, and its error is the future's.
    """

    def __init__(self, path: Path, migrations: Sequence[Migration], *, readers: int = 2) -> None:
        self.path = path
        migrate(path, migrations)
        self._closed = False
        self._readers: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        self._all_readers = [connect(path, read_only=True) for _ in range(readers)]
        for connection in self._all_readers:
            self._readers.put(connection)
        self._writer = GroupWriter[_Call](
            lambda: connect(path), _apply_calls, _finish_calls, name=f"writer {path.name}"
        )

    def submit(self, run: Callable[[sqlite3.Connection], R]) -> Future[R]:
        """Queue a write; the future holds what `run` returned, once it is durable."""
        future: Future[R] = Future()
        self._writer.submit(_Call(run, future))
        return future

    async def write(self, run: Callable[[sqlite3.Connection], R]) -> R:
        """Write, and wait until it is durable. Raises StorageError when the disk fails."""
        with _named(self.path):
            return await asyncio.wrap_future(self.submit(run))

    def read(self, run: Callable[[sqlite3.Connection], R]) -> R:
        """Run a query on a pooled read-only connection; blocks the calling thread.

        Raises StorageError when the disk fails.
        """
        with _named(self.path), self._reader() as connection:
            return run(connection)

    async def read_async(self, run: Callable[[sqlite3.Connection], R]) -> R:
        """Run a query in a thread, so that the event loop goes on."""
        return await asyncio.to_thread(self.read, run)

    def close(self) -> None:
        """Finish what was submitted and close every connection; blocks until reads have ended.

        A read goes on in its thread when whoever waited for it was cancelled, and SQLite does not
        survive a connection that is closed beneath it: those are cut short and waited for. The
        writer's connection closes last: only one that may write moves the log into the file, so
        that a stopped site is one file. To close once more does nothing.
        """
        if self._closed:
            return
        self._closed = True
        idle: list[sqlite3.Connection] = []
        while len(idle) < len(self._all_readers):
            for connection in self._all_readers:
                connection.interrupt()
            with suppress(queue.Empty):
                idle.append(self._readers.get(timeout=_INTERRUPT_S))
        for connection in idle:
            connection.close()
            self._readers.put(connection)  # so that who comes too late waits for nothing
        self._writer.close()

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        connection = self._readers.get()
        try:
            if self._closed:
                raise DatabaseUnavailable(f"{self.path} is closed.")
            yield connection
        finally:
            self._readers.put(connection)


def _apply_calls(connection: sqlite3.Connection, calls: Sequence[_Call]) -> None:
    for call in calls:
        call.result = call.run(connection)


def _finish_calls(outcome: Outcome[_Call]) -> None:
    for call, error in outcome:
        if not call.future.set_running_or_notify_cancel():
            continue  # nobody waits any more; the write itself stands
        if error is None:
            call.future.set_result(call.result)
        else:
            call.future.set_exception(error)
