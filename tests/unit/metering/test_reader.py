"""Reading beside the writer, after a kill, and over any span of time."""

import contextlib
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from appliance.domain.ids import EnvironmentId, KeyId, TenantId
from appliance.domain.usage import TokenCount
from appliance.metering.book import Book
from appliance.metering.reader import HOUR_NS, LedgerReader
from appliance.metering.records import Settlement
from appliance.metering.schema import MIGRATIONS, SLOT_NS
from appliance.storage.database import connect, migrate
from appliance.storage.errors import DatabaseDamaged, DatabaseUnavailable
from tests.fakes.ledger_items import NOON_NS, opening, settlement

MINUTE_NS = 60 * 1_000_000_000


def at(number: int, minute: int) -> Settlement:
    tenant = number % 2
    item = opening(
        number,
        tenant_id=TenantId(f"ten_{tenant}"),
        tenant_name=f"tenant {tenant}",
        environment_id=EnvironmentId(f"env_{number % 3}"),
        environment_name="prod",
        key_id=KeyId(f"key_{number % 4}"),
        key_name=f"key {number % 4}",
        model_name=f"model {number % 2}",
    )
    return settlement(
        item,
        tokens=TokenCount(10 + number, number, number % 5),
        settled_at_ns=NOON_NS + minute * MINUTE_NS + number,
    )


def written(path: Path, items: list[Settlement]) -> LedgerReader:
    migrate(path, MIGRATIONS)
    with contextlib.closing(connect(path)) as connection:
        connection.row_factory = None
        book = Book(connection)
        for start in range(0, len(items), 40):
            connection.execute("BEGIN")
            book.apply(connection, items[start : start + 40])
            connection.execute("COMMIT")
            book.committed()
    return LedgerReader(path)


@pytest.fixture
def reader(tmp_path: Path) -> LedgerReader:
    # Ninety minutes; the clock steps back by half an hour in the middle.
    return written(
        tmp_path / "ledger.db",
        [at(n, n if n < 60 else n - 30) for n in range(120)],
    )


def test_rows_go_on_where_one_stopped(reader: LedgerReader) -> None:
    assert [r.seq for r in reader.rows()] == list(range(1, 121))
    assert [r.seq for r in reader.rows(since=100, limit=3)] == [101, 102, 103]
    assert list(reader.rows(since=120)) == []
    assert list(reader.rows(limit=0)) == []


def test_rows_cross_pages(tmp_path: Path) -> None:
    reader = written(tmp_path / "ledger.db", [at(n, n) for n in range(1_100)])
    assert [r.seq for r in reader.rows()] == list(range(1, 1_101))
    assert sum(1 for _ in reader.rows(since=50, limit=1_000)) == 1_000


def test_packed_pages_hold_the_same_records(reader: LedgerReader) -> None:
    whole = list(reader.rows())
    packed = [record for page in reader.pages(0, 120, 7) for record in page]
    assert packed == whole
    assert [r.seq for page in reader.pages(10, 13) for r in page] == [11, 12, 13]
    like = whole[4]
    alike = [r for r in whole if (r.key_id, r.model) == (like.key_id, like.model)]
    assert [r for page in reader.pages(0, 120, 50, like=like) for r in page] == alike


def test_a_row_that_holds_what_no_record_holds_is_damage(reader: LedgerReader) -> None:
    with contextlib.closing(connect(reader._path)) as connection:
        connection.execute("UPDATE records SET output_tokens = 'many' WHERE seq = 9")
    with pytest.raises(DatabaseDamaged) as caught:
        list(reader.pages(0, 120))
    assert "1 to 120" in caught.value.message


def test_a_key_sees_its_own_sums_by_day_and_month(tmp_path: Path) -> None:
    day_ns, hours = NOON_NS - 12 * HOUR_NS, 60  # minutes
    items = [at(n, minute) for n, minute in enumerate((-30 * 24 * hours, -13 * hours, 0, 1, 2))]
    reader = written(tmp_path / "ledger.db", items)
    records = list(reader.rows())
    for number in range(4):
        key = f"key_{number}"
        mine = [r for r in records if r.key_id == key]
        for usage in reader.key_usage(key, day_ns, day_ns - 21 * 24 * HOUR_NS):
            of_model = [r for r in mine if r.model == usage.model]
            for sums, since_ns in (
                (usage.day, day_ns),
                (usage.month, day_ns - 21 * 24 * HOUR_NS),
                (usage.total, 0),
            ):
                counted = [r for r in of_model if r.settled_at_ns >= since_ns]
                assert sums.requests == len(counted)
                assert sums.input_tokens == sum(r.input_tokens for r in counted)
                assert sums.output_tokens == sum(r.output_tokens for r in counted)
                assert sums.cached_tokens == sum(r.cached_tokens for r in counted)
    assert reader.key_usage("key_nobody", 0, 0) == []
    assert reader.key_usage("key_0", day_ns, day_ns) != []


def test_a_record_is_found_by_either_id(reader: LedgerReader) -> None:
    record = reader.record(f"req_{7:028x}")
    assert record is not None
    assert record == reader.record(f"rec_{7:028x}")
    assert record.output_tokens == 7
    assert reader.record("req_none") is None


def test_usage_is_told_apart_as_asked(reader: LedgerReader) -> None:
    rows = reader.usage(by=["tenant", "key"])
    assert [(r.tenant, r.key, r.requests) for r in rows] == [
        ("tenant 0", "key 0", 30),
        ("tenant 0", "key 2", 30),
        ("tenant 1", "key 1", 30),
        ("tenant 1", "key 3", 30),
    ]
    assert all(r.model is None and r.hour_ns is None for r in rows)
    hours = reader.usage(by=["hour"])
    assert [(r.hour_ns, r.requests) for r in hours] == [
        (NOON_NS, 90),
        (NOON_NS + HOUR_NS, 30),
    ]
    assert [r.environment for r in reader.usage(by=["environment"])] == ["prod"] * 3
    with pytest.raises(ValueError, match="colour"):
        reader.usage(by=["colour"])


@hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    bounds=st.tuples(st.integers(-3, 100), st.integers(-3, 100)),
    offsets=st.tuples(st.integers(-2, 130), st.integers(-2, 130)),
)
def test_any_span_of_time_is_exact(
    reader: LedgerReader, bounds: tuple[int, int], offsets: tuple[int, int]
) -> None:
    since, until = (
        NOON_NS + minute * MINUTE_NS + offset
        for minute, offset in zip(bounds, offsets, strict=True)
    )
    expected = [r for r in reader.rows() if since <= r.settled_at_ns < until]
    (total,) = reader.usage(since, until)
    assert total.requests == len(expected)
    assert total.input_tokens == sum(r.input_tokens for r in expected)
    assert total.output_tokens == sum(r.output_tokens for r in expected)
    assert total.cached_tokens == sum(r.cached_tokens for r in expected)


@pytest.mark.parametrize("slot_ns", [SLOT_NS, 1_000_000_000])
def test_totals_for_the_limits_are_exact(reader: LedgerReader, slot_ns: int) -> None:
    since = NOON_NS + 40 * MINUTE_NS
    expected: dict[tuple[int, str], int] = {}
    for record in reader.rows():
        if record.settled_at_ns >= since:
            place = (record.settled_at_ns // slot_ns * slot_ns, record.key_id)
            total = record.input_tokens + record.output_tokens
            expected[place] = expected.get(place, 0) + total
    totals = reader.totals_since(since, slot_ns)
    assert {(t.slot_start_ns, t.key_id): t.tokens for t in totals} == expected
    assert sum(t.requests for t in totals) == sum(
        record.settled_at_ns >= since for record in reader.rows()
    )
    assert [t.slot_start_ns for t in totals] == sorted(t.slot_start_ns for t in totals)


def test_a_killed_sites_write_ahead_log_is_read(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    dead = tmp_path / "dead"
    alive.mkdir()
    written(alive / "ledger.db", [at(0, 0)])
    connection = connect(alive / "ledger.db")
    connection.row_factory = None
    try:
        book = Book(connection)
        connection.execute("BEGIN")
        book.apply(connection, [at(n, n) for n in range(1, 30)])
        connection.execute("COMMIT")
        shutil.copytree(alive, dead)  # as a kill leaves it: the log was never copied back
    finally:
        connection.close()
    assert (dead / "ledger.db-wal").stat().st_size > 0
    reader = LedgerReader(dead / "ledger.db")
    assert reader.record_count() == 30
    assert reader.verify().ok
    (dead / "ledger.db-shm").unlink()
    assert reader.record_count() == 30


def test_a_missing_ledger_is_named_and_not_made(tmp_path: Path) -> None:
    reader = LedgerReader(tmp_path / "ledger.db")
    with pytest.raises(DatabaseUnavailable, match=r"ledger\.db"):
        reader.record_count()
    assert list(tmp_path.iterdir()) == []
