"""The site's own books, ledger.db, as synchronisation reads and writes them."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import Protocol, TypeVar

from appliance.storage.database import connect

R = TypeVar("R")


class Transact(Protocol):
    """`Ledger.transact`: the one thread that writes the file."""

    def __call__(self, run: Callable[[sqlite3.Connection], R], /) -> Future[R]: ...


class SyncStore:
    """Reads on connections of its own, in threads; writes through the ledger's thread."""

    def __init__(self, path: Path, transact: Transact) -> None:
        self._path = path
        self._transact = transact

    async def read(self, run: Callable[[sqlite3.Connection], R]) -> R:
        """One state of the file, however many queries `run` makes. Raises StorageError."""
        return await asyncio.to_thread(self._read, run)

    async def write(self, run: Callable[[sqlite3.Connection], R]) -> R:
        """Returns when it is durable. What `run` raises is raised, and nothing was changed."""
        return await asyncio.wrap_future(self._transact(run))

    def _read(self, run: Callable[[sqlite3.Connection], R]) -> R:
        with closing(connect(self._path, read_only=True)) as connection:
            connection.row_factory = None
            connection.execute("BEGIN")
            try:
                return run(connection)
            finally:
                connection.execute("ROLLBACK")
