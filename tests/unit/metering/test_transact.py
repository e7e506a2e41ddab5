"""Other parts' transactions on the ledger's one thread: whole or not at all, and nobody harmed."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from appliance.domain.clock import SystemClock
from appliance.metering.errors import LedgerClosed, LedgerUnavailable
from appliance.metering.ledger import Ledger
from appliance.metering.reader import LedgerReader
from appliance.storage.database import connect
from tests.fakes.ledger_items import opening, settlement

WAIT_S = 10.0


async def done(future: Any) -> Any:
    return await asyncio.wait_for(asyncio.wrap_future(future), WAIT_S)


def ledger(path: Path, **options: Any) -> Ledger:
    return Ledger.open(path, SystemClock(), asyncio.get_running_loop(), **options)


def mark(connection: sqlite3.Connection, at_ns: int) -> int:
    connection.execute("UPDATE chain SET watermark_ns = ?", (at_ns,))
    return at_ns


def watermark(path: Path) -> int:
    return LedgerReader(path).query(
        lambda connection: int(connection.execute("SELECT watermark_ns FROM chain").fetchone()[0])
    )


async def test_what_it_returns_comes_when_it_is_durable(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    books = ledger(path)
    try:
        assert await done(books.transact(lambda connection: mark(connection, 5))) == 5
        assert watermark(path) == 5
    finally:
        books.close()


async def test_one_that_fails_harms_neither_records_nor_other_transactions(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    books = ledger(path)

    def bad(connection: sqlite3.Connection) -> None:
        mark(connection, 99)
        raise ZeroDivisionError

    try:
        told: list[BaseException | None] = []
        futures = []
        for number in range(20):
            books.settle(settlement(opening(number)), told.append)
            futures.append(books.transact(bad))
            futures.append(books.transact(lambda connection: mark(connection, 7)))
        results = await asyncio.gather(
            *(asyncio.wrap_future(future) for future in futures), return_exceptions=True
        )
        assert [type(result) for result in results] == [ZeroDivisionError, int] * 20
        assert watermark(path) == 7
        assert await done(books.transact(lambda _connection: 1)) == 1
    finally:
        books.close()
    found = LedgerReader(path).verify()
    assert (found.ok, found.records) == (True, 20)


async def test_it_sees_the_records_that_are_committed_with_it(tmp_path: Path) -> None:
    books = ledger(tmp_path / "ledger.db")
    try:
        seen = []
        for number in range(10):
            books.settle(settlement(opening(number)), lambda _error: None)
            seen.append(
                books.transact(
                    lambda connection: connection.execute(
                        "SELECT (SELECT seq FROM head) = (SELECT count(*) FROM records)"
                    ).fetchone()
                )
            )
        assert [await done(future) for future in seen] == [(1,)] * 10
    finally:
        books.close()


async def test_a_disk_that_is_full_is_told_and_nothing_is_made_up_later(tmp_path: Path) -> None:
    """A transaction after a group that the disk refused must not make its records true."""
    path = tmp_path / "ledger.db"
    connections: list[sqlite3.Connection] = []

    def kept(file: Path) -> sqlite3.Connection:
        connections.append(connect(file))
        return connections[-1]

    books = ledger(path, connect=kept, retry_s=60.0)
    try:
        (pages,) = connections[-1].execute("PRAGMA page_count").fetchone()
        connections[-1].execute(f"PRAGMA max_page_count = {pages}")
        wide = opening(1, model_name="m" * 100_000)
        refused: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        books.begin(wide, refused.set_result)
        assert isinstance(await asyncio.wait_for(refused, WAIT_S), LedgerUnavailable)
        with pytest.raises(LedgerUnavailable):
            await done(
                books.transact(
                    lambda connection: connection.execute(
                        "INSERT INTO sync_state VALUES (1, zeroblob(1000000))"
                    )
                )
            )
        assert await done(books.transact(lambda connection: mark(connection, 3))) == 3
        assert books.open_count == 0
    finally:
        books.close()


async def test_after_the_close_it_is_refused(tmp_path: Path) -> None:
    books = ledger(tmp_path / "ledger.db")
    books.close()
    with pytest.raises(LedgerClosed):
        await done(books.transact(lambda _connection: None))
