"""The control plane's database: SQLite in the home, or a PostgreSQL that several share.

- A write transaction is serialisable on both: SQLite lets one write at a time (`BEGIN IMMEDIATE`),
  PostgreSQL refuses what two could not have done one after the other. What was refused is run
  again, so `run` must leave no trace outside its connection.
- A read sees one moment of the database.
- SQLite: WAL and `synchronous=FULL`, so that what was committed outlives a loss of power.

Source of the SQLite events: SQLAlchemy's pages on its sqlite dialect, "Enabling Non-Legacy SQLite
Transactional Modes".
"""

import asyncio
import os
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, SQLAlchemyError

from appliance.controlplane.errors import BadDatabaseUrl, DatabaseUnavailable

R = TypeVar("R")

POSTGRESQL: Final = "postgresql"
_FILE_MODE: Final = 0o600
THREADS: Final = 8
RETRY_S: Final = 60.0  # how long a transaction that others get in the way of is run again
_PAUSE_S_MIN: Final = 0.002
_PAUSE_S_MAX: Final = 0.5
_BUSY_S: Final = 30.0
_SOCKET_S: Final = 300.0  # the longest single statement
_WRITES: Final = "control_plane_writes"  # execution option: this connection is to write

# PostgreSQL, appendix A: serialization_failure, deadlock_detected, lock_not_available.
_AGAIN: Final = frozenset({"40001", "40P01", "55P03"})
# Its classes: connection, authorisation, no database, no resources, operator intervention, system.
_AWAY: Final = frozenset({"08", "28", "3D", "53", "57", "58"})
_SQLITE_AGAIN: Final = frozenset({5, 6})  # SQLITE_BUSY, SQLITE_LOCKED
# Constraint, mismatch, misuse, range: of what was asked, not of the file.
_SQLITE_ASKED: Final = frozenset({1, 19, 20, 21, 25})


class Database:
    """Made by `open`; transactions run on the caller's thread, or on one of its own (`arun`)."""

    def __init__(
        self,
        engine: Engine,
        *,
        sleep: Callable[[float], None] = time.sleep,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.engine = engine
        self._writing = engine.execution_options(**{_WRITES: True})
        self._sleep = sleep
        self._entropy = entropy
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="database")
        # SQLite's own waiting for the lock is unfair; among our threads the first is the first.
        self._turn = threading.Lock() if not self.shared else None

    @classmethod
    def open(cls, url: str) -> "Database":
        """`sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST/NAME`.

        Raises BadDatabaseUrl, or DatabaseUnavailable when nothing answers there.
        """
        try:
            parsed = make_url(url)
        except ArgumentError as error:
            raise _bad_url("It is not an address of a database.") from error
        engine = _postgresql(parsed) if _is_postgresql(parsed) else _sqlite(parsed)
        database = cls(engine)
        try:
            database.read(lambda connection: connection.exec_driver_sql("SELECT 1").scalar())
        except DatabaseUnavailable:
            database.close()
            raise
        return database

    @property
    def shared(self) -> bool:
        """Whether other processes write to it at the same time (PostgreSQL)."""
        return self.engine.dialect.name == POSTGRESQL

    def transact(self, run: Callable[[Connection], R]) -> R:
        """What `run` gives after its changes are committed; whatever it raises undoes them all.

        Runs it again when others got in the way. Raises DatabaseUnavailable.
        """
        deadline = time.monotonic() + RETRY_S
        attempt = 0
        while True:
            try:
                return self._attempt(run)
            except DBAPIError as error:
                if not _is_to_be_repeated(error) or time.monotonic() > deadline:
                    if _is_away(error):
                        raise _unavailable(error) from error
                    raise
            attempt += 1
            self._sleep(self._pause_s(attempt))

    def read(self, run: Callable[[Connection], R]) -> R:
        """What `run` reads, all of one moment. Raises DatabaseUnavailable."""
        try:
            with self.engine.connect() as connection, connection.begin():
                return run(connection)
        except DBAPIError as error:
            if _is_away(error):
                raise _unavailable(error) from error
            raise

    async def arun(self, run: Callable[[Connection], R]) -> R:
        """`transact` on a thread of the database's own."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self.transact, run)

    async def aread(self, run: Callable[[Connection], R]) -> R:
        """`read` on a thread of the database's own."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self.read, run)

    def close(self) -> None:
        """Wait for what runs, and close every connection."""
        self._threads.shutdown(wait=True)
        self.engine.dispose()

    def _attempt(self, run: Callable[[Connection], R]) -> R:
        if self._turn is None:
            with self._writing.begin() as connection:
                return run(connection)
        with self._turn, self._writing.begin() as connection:
            return run(connection)

    def _pause_s(self, attempt: int) -> float:
        """Longer each time, and somewhere below that, so that two do not meet again."""
        longest = min(_PAUSE_S_MAX, _PAUSE_S_MIN * 2 ** min(attempt, 16))
        return float(longest * (0.5 + self._entropy(1)[0] / 512))


def _is_postgresql(url: URL) -> bool:
    return url.get_backend_name() in {POSTGRESQL, "postgres"}


def _bad_url(message: str) -> BadDatabaseUrl:
    # Without the address itself: it may hold a password.
    return BadDatabaseUrl(
        f"The database's address cannot be used: {message}",
        next_step="Set [database] url to sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME.",
    )


def _sqlite(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        raise _bad_url("SQLite in a file and PostgreSQL are known.")
    if not Path(url.database).parent.is_dir():
        raise _bad_url(f"there is no folder {Path(url.database).parent}.")
    # Other accounts cannot read it; SQLite gives its log the same mode. A file that is there stays.
    with suppress(OSError):
        os.close(os.open(url.database, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE))
    engine = create_engine(
        url.set(drivername="sqlite"),
        pool_size=THREADS,
        max_overflow=THREADS,
        connect_args={"timeout": _BUSY_S},
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # BEGIN is ours to say
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA cache_size=-65536")  # KiB

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgresql(url: URL) -> Engine:
    query = {name: value for name, value in url.query.items() if isinstance(value, str)}
    arguments: dict[str, Any] = {
        "timeout": _SOCKET_S,
        "application_name": "crosslogic-control-plane",
        "startup_params": {
            "default_transaction_isolation": "serializable",
            "lock_timeout": "30s",
            "idle_in_transaction_session_timeout": "120s",
            "timezone": "UTC",
        },
    }
    folder = query.pop("host", None)  # as libpq: a folder that holds the server's socket
    if folder is not None:
        port = url.port or query.pop("port", "5432")
        arguments["unix_sock"] = f"{folder}/.s.PGSQL.{port}"
    arguments["ssl_context"] = _tls(query.pop("sslmode", "disable"), query.pop("sslrootcert", None))
    if query:
        raise _bad_url(f"'{min(query)}' is not known there.")
    engine = create_engine(
        url.set(drivername="postgresql+pg8000", query={}),
        pool_size=THREADS,
        max_overflow=THREADS,
        pool_pre_ping=True,
        connect_args=arguments,
    )

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if not connection.get_execution_options().get(_WRITES):
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")

    return engine


def _tls(mode: str, authority: str | None) -> ssl.SSLContext | None:
    if mode == "disable":
        return None
    if mode != "verify-full":
        raise _bad_url("sslmode is verify-full or disable.")
    return ssl.create_default_context(cafile=authority)


def sqlstate(error: DBAPIError) -> str:
    """PostgreSQL's five characters; "" where it gave none. pg8000 keeps them under `C`."""
    fields = error.orig.args[0] if error.orig is not None and error.orig.args else None
    return str(fields.get("C", "")) if isinstance(fields, dict) else ""


def _is_to_be_repeated(error: DBAPIError) -> bool:
    number = getattr(error.orig, "sqlite_errorcode", None)
    if isinstance(number, int):
        return number & 0xFF in _SQLITE_AGAIN
    return sqlstate(error) in _AGAIN


def _is_away(error: DBAPIError) -> bool:
    number = getattr(error.orig, "sqlite_errorcode", None)
    if isinstance(number, int):
        return number & 0xFF not in _SQLITE_ASKED
    state = sqlstate(error)
    return state[:2] in _AWAY or state in _AGAIN or (not state and _is_of_the_network(error))


def _is_of_the_network(error: DBAPIError) -> bool:
    """pg8000 raises InterfaceError for what the connection did, without a state."""
    return (
        error.connection_invalidated
        or isinstance(error.orig, OSError)
        or isinstance(error, InterfaceError)
    )


def _unavailable(error: SQLAlchemyError) -> DatabaseUnavailable:
    origin = getattr(error, "orig", None)
    fields = origin.args[0] if isinstance(origin, Exception) and origin.args else ""
    reason = fields.get("M", "") if isinstance(fields, dict) else fields
    return DatabaseUnavailable(
        f"The database cannot be used: {reason or type(error).__name__}.",
        next_step="Check [database] url, that the server runs, and that the disk has space.",
    )
