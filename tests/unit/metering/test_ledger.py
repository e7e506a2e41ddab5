"""Through the ledger's door: what is handed over, what is told, what stands in the file."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance.domain.clock import SystemClock
from appliance.domain.ids import RequestId
from appliance.domain.usage import Status, TokenCount
from appliance.metering.errors import BadRecord, LedgerClosed, LedgerUnavailable
from appliance.metering.ledger import Ledger
from appliance.metering.reader import LedgerReader
from appliance.metering.records import Opening, Settlement
from appliance.storage.database import connect
from appliance.storage.errors import DatabaseDamaged
from tests.fakes.ledger_items import opening, settlement

WAIT_S = 10.0


@contextlib.contextmanager
def opened(path: Path, **options: object) -> Iterator[Ledger]:
    ledger = Ledger.open(path, SystemClock(), asyncio.get_running_loop(), **options)  # type: ignore[arg-type]
    try:
        yield ledger
    finally:
        ledger.close()


class Told:
    """A `done` that can be waited for."""

    def __init__(self) -> None:
        self.future: asyncio.Future[BaseException | None] = (
            asyncio.get_running_loop().create_future()
        )

    def __call__(self, error: BaseException | None) -> None:
        self.future.set_result(error)

    async def error(self) -> BaseException | None:
        return await asyncio.wait_for(self.future, WAIT_S)


async def until(wanted: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not wanted():  # noqa: ASYNC110 (the ledger's own state has no event to wait for)
            await asyncio.sleep(0.005)


async def begin(ledger: Ledger, item: Opening) -> BaseException | None:
    told = Told()
    ledger.begin(item, told)
    return await told.error()


async def settle(ledger: Ledger, item: Settlement) -> BaseException | None:
    told = Told()
    ledger.settle(item, told)
    return await told.error()


async def test_a_request_is_one_record_when_it_is_told_to_be_durable(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    reader = LedgerReader(path)
    with opened(path) as ledger:
        first = opening(1)
        assert await begin(ledger, first) is None
        assert (reader.verify().open, reader.record_count()) == (1, 0)
        assert await settle(ledger, settlement(first)) is None
        assert (reader.verify().open, reader.record_count()) == (0, 1)
        assert (ledger.open_count, ledger.record_count) == (0, 1)
        (record,) = reader.rows()
    assert record.request_id == first.request_id
    assert (record.seq, record.status, record.node) == (1, "ok", "node-1")
    assert (record.input_tokens, record.output_tokens, record.cached_tokens) == (812, 64, 512)


async def test_settling_while_the_opening_is_queued_writes_no_opening(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with opened(path) as ledger:
        told = [Told() for _ in range(40)]
        for number, done in enumerate(told[:20]):
            ledger.begin(opening(number), done)
        for number, done in enumerate(told[20:]):
            ledger.settle(settlement(opening(number)), done)
        assert [await done.error() for done in told] == [None] * 40
        assert ledger.counters.commits < 40
        assert ledger.counters.items == 40
    assert LedgerReader(path).verify().records == 20


async def test_beginning_and_settling_twice_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with opened(path) as ledger:
        for _ in range(2):
            assert await begin(ledger, opening(1)) is None
        for output in (64, 65):
            item = settlement(opening(1), tokens=TokenCount(1, output))
            assert await settle(ledger, item) is None
        assert await begin(ledger, opening(1)) is None
        assert await settle(ledger, settlement(opening(1))) is None
    found = LedgerReader(path).verify()
    assert (found.ok, found.records, found.open) == (True, 1, 0)
    assert next(LedgerReader(path).rows()).output_tokens == 64


@pytest.mark.parametrize("together", [True, False])
async def test_a_request_id_used_again_is_told_apart(tmp_path: Path, *, together: bool) -> None:
    path = tmp_path / "ledger.db"
    items = [opening(n, request_id=RequestId("mine")) for n in range(3)]
    with opened(path) as ledger:
        if together:
            told = [Told() for _ in items]
            for item, done in zip(items, told, strict=True):
                ledger.settle(settlement(item), done)
            assert [await done.error() for done in told] == [None] * 3
        else:
            for item in items:
                assert await begin(ledger, item) is None
                assert await settle(ledger, settlement(item)) is None
    ids = [record.request_id for record in LedgerReader(path).rows()]
    assert ids == ["mine", f"mine~{items[1].record_id}", f"mine~{items[2].record_id}"]
    assert LedgerReader(path).verify().ok


async def test_what_was_open_at_the_stop_is_settled_as_aborted(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with opened(path) as ledger:
        for number in range(3):
            await begin(ledger, opening(number))
        await settle(ledger, settlement(opening(1)))
    with opened(path) as ledger:
        assert ledger.recovered == 2
        assert ledger.open_count == 0
        assert await settle(ledger, settlement(opening(2))) is None  # too late: it has its record
        assert await settle(ledger, settlement(opening(3))) is None
    records = list(LedgerReader(path).rows())
    assert [(r.request_id[-1], r.status, r.error_code) for r in records] == [
        ("1", "ok", ""),
        ("0", "aborted", "appliance_stopped"),
        ("2", "aborted", "appliance_stopped"),
        ("3", "ok", ""),
    ]
    cut_off = records[1]
    assert (cut_off.input_tokens, cut_off.output_tokens, cut_off.measured) == (900, 0, "estimated")
    assert (cut_off.tenant, cut_off.key, cut_off.operation) == ("acme", "backend", "chat")
    assert cut_off.opened_at_ns == opening(0).opened_at_ns
    assert LedgerReader(path).verify().ok
    with opened(path) as ledger:
        assert ledger.recovered == 0


async def test_a_record_that_breaks_a_rule_harms_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with opened(path) as ledger:
        told = [Told() for _ in range(3)]
        for number, (tokens, done) in enumerate(
            zip((TokenCount(5, 1), TokenCount(5, 1, 6), TokenCount(7, 1)), told, strict=True)
        ):
            ledger.settle(settlement(opening(number), tokens=tokens), done)
        errors = [await done.error() for done in told]
        assert errors[0] is None
        assert isinstance(errors[1], BadRecord)
        assert errors[2] is None
        assert ledger.healthy
    assert [record.input_tokens for record in LedgerReader(path).rows()] == [5, 7]
    assert LedgerReader(path).verify().ok


async def test_the_loop_is_woken_once_for_a_group(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    turns: list[int] = []
    turn = 0

    def count() -> None:
        nonlocal turn
        turn += 1
        if len(turns) < 100:
            loop.call_soon(count)

    with opened(tmp_path / "ledger.db") as ledger:
        await begin(ledger, opening(0))
        finished = asyncio.Event()

        def done(error: BaseException | None) -> None:
            assert error is None
            turns.append(turn)
            if len(turns) == 100:
                finished.set()

        loop.call_soon(count)
        for number in range(1, 101):
            ledger.begin(opening(number), done)
        await asyncio.wait_for(finished.wait(), WAIT_S)
        # Callbacks of one group share a turn of the loop.
        assert len(set(turns)) <= ledger.counters.commits


async def test_a_callback_that_fails_keeps_nobody_waiting(tmp_path: Path) -> None:
    reported: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _loop, context: reported.append(str(context["exception"]))
    )

    def fails(_error: BaseException | None) -> None:
        raise ValueError("a defect of the caller")

    with opened(tmp_path / "ledger.db") as ledger:
        ledger.begin(opening(1), fails)
        assert await begin(ledger, opening(2)) is None
    assert reported == ["a defect of the caller"]


async def test_after_close_nothing_is_taken(tmp_path: Path) -> None:
    with opened(tmp_path / "ledger.db") as ledger:
        told = Told()
        ledger.begin(opening(1), told)
        ledger.close()
        assert await told.error() is None  # handed over before, so it was written
        assert isinstance(await begin(ledger, opening(2)), LedgerClosed)
        assert isinstance(await settle(ledger, settlement(opening(1))), LedgerClosed)
    assert LedgerReader(tmp_path / "ledger.db").verify().open == 1


class FullDisk:
    """A connection whose file may not grow, until there is space again."""

    def __init__(self) -> None:
        self.connection: sqlite3.Connection | None = None

    def connect(self, path: Path) -> sqlite3.Connection:
        self.connection = connect(path)
        return self.connection

    def fill(self) -> None:
        assert self.connection is not None
        (pages,) = self.connection.execute("PRAGMA page_count").fetchone()
        self.connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()

    def free(self) -> None:
        assert self.connection is not None
        self.connection.execute("PRAGMA max_page_count = 1000000").fetchone()


async def test_a_full_disk_is_told_and_what_is_owed_is_written_later(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ledger.db"
    disk = FullDisk()
    long = "m" * 20_000  # does not fit into the pages that are there
    with opened(path, connect=disk.connect, retry_s=0.02) as ledger:
        first, second = opening(1), opening(2, model_name=long)
        assert await begin(ledger, first) is None
        disk.fill()
        error = await begin(ledger, second)
        assert isinstance(error, LedgerUnavailable)
        assert "Free space" in error.next_step
        assert not ledger.healthy
        # The first is open on the disk; its record is refused and stays owed.
        refused = settlement(first, error_code="e" * 20_000)
        assert isinstance(await settle(ledger, refused), LedgerUnavailable)
        disk.free()
        await until(lambda: ledger.record_count == 1)
        assert await begin(ledger, opening(3)) is None
        assert ledger.healthy
        assert await settle(ledger, settlement(opening(3))) is None
    owed, ok = LedgerReader(path).rows()
    assert (owed.status, owed.http_status, owed.error_code) == ("failed", 503, "ledger_unavailable")
    assert owed.output_tokens == 64
    assert ok.status == Status.OK
    assert LedgerReader(path).verify().ok


async def test_health_comes_back_without_any_traffic(
    tmp_path: Path,
) -> None:
    disk = FullDisk()
    with opened(tmp_path / "ledger.db", connect=disk.connect, retry_s=0.02) as ledger:
        disk.fill()
        refused = await begin(ledger, opening(1, model_name="m" * 20_000))
        assert isinstance(refused, LedgerUnavailable)
        disk.free()
        await until(lambda: ledger.healthy)


async def test_a_damaged_file_is_named_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with opened(path) as ledger:
        await settle(ledger, settlement(opening(1)))
    raw = path.read_bytes()
    path.write_bytes(raw[:4096] + b"\xff" * (len(raw) - 4096))
    with pytest.raises(DatabaseDamaged, match=r"ledger\.db") as caught, opened(path):
        pass
    assert "backup" in caught.value.next_step


async def test_a_disk_that_is_full_at_the_start_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with opened(path) as ledger:
        for number in range(300):
            ledger.begin(opening(number), lambda _error: None)
        await begin(ledger, opening(300))

    def full(path: Path) -> sqlite3.Connection:
        connection = connect(path)
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()
        return connection

    with pytest.raises(LedgerUnavailable, match="full"), opened(path, connect=full):
        pass
    with opened(path) as ledger:
        assert ledger.recovered == 301


async def test_subjects_are_kept_once_and_names_follow(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with opened(path) as ledger:
        for number in range(6):
            item = opening(number, key_name="old" if number < 3 else "new")
            await settle(ledger, settlement(item))
    with contextlib.closing(connect(path, read_only=True)) as connection:
        assert connection.execute("SELECT count(*) FROM subjects").fetchone()[0] == 2
    assert [r.key for r in LedgerReader(path).rows()] == ["old"] * 3 + ["new"] * 3
    (total,) = LedgerReader(path).usage(by=["key"])
    assert (total.key, total.requests) == ("new", 6)
