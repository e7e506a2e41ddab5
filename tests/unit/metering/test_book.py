"""Any order of beginnings, settlements, failed commits and stops keeps what the ledger promises."""

import contextlib
import sqlite3
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from appliance.domain.ids import RequestId
from appliance.domain.usage import TokenCount
from appliance.metering.book import Book
from appliance.metering.reader import LedgerReader
from appliance.metering.records import Opening, Settlement
from appliance.metering.rows import APPLIANCE_STOPPED
from appliance.metering.schema import MIGRATIONS
from appliance.storage.database import connect, migrate
from tests.fakes.ledger_items import NOON_NS, opening, settlement

numbers = st.integers(0, 11)
# A third of the clients use the same request id.
SHARED_ID = RequestId("mine")


def _opening(number: int) -> Opening:
    changes = {"request_id": SHARED_ID} if number % 3 == 0 else {}
    return opening(number, tenant_name=f"tenant {number % 2}", **changes)


class LedgerMachine(RuleBasedStateMachine):
    """`promised` is what was told to be durable; the file must agree after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "ledger.db"
        migrate(self.path, MIGRATIONS)
        self.connection = self.connect()
        self.book = Book(self.connection)
        self.queued: list[Opening | Settlement] = []
        self.promised_open: set[str] = set()
        self.promised: dict[str, tuple[str, int]] = {}  # record id -> status, output tokens
        self.settled_at_ns = NOON_NS

    def connect(self) -> sqlite3.Connection:
        connection = connect(self.path)
        connection.row_factory = None
        connection.execute("PRAGMA synchronous = OFF")  # no power is cut here
        return connection

    def teardown(self) -> None:
        self.connection.close()
        self.folder.cleanup()

    @rule(number=numbers)
    def begin(self, number: int) -> None:
        self.queued.append(_opening(number))

    @rule(number=numbers, output=st.integers(0, 500), later_min=st.integers(-7, 90))
    def settle(self, number: int, output: int, later_min: int) -> None:
        self.settled_at_ns += later_min * 60 * 1_000_000_000  # the wall clock may step back
        self.queued.append(
            settlement(
                _opening(number),
                tokens=TokenCount(7, output, 3),
                settled_at_ns=self.settled_at_ns,
            )
        )

    @precondition(lambda self: self.queued)
    @rule()
    def commit(self) -> None:
        self.connection.execute("BEGIN IMMEDIATE")
        self.book.apply(self.connection, self.queued)
        self.connection.execute("COMMIT")
        self.book.committed()
        for item in self.queued:
            if isinstance(item, Opening):
                if item.record_id not in self.promised:
                    self.promised_open.add(item.record_id)
            else:
                record_id = item.opening.record_id
                self.promised_open.discard(record_id)
                self.promised.setdefault(record_id, (item.status.value, item.tokens.output))
        self.queued = []

    @precondition(lambda self: self.queued)
    @rule()
    def commit_fails(self) -> None:
        self.connection.execute("BEGIN IMMEDIATE")
        self.book.apply(self.connection, self.queued)
        self.connection.execute("ROLLBACK")
        self.queued = []

    @rule(at_work=st.booleans())
    def stop_and_start(self, *, at_work: bool) -> None:
        if at_work and self.queued:
            self.connection.execute("BEGIN IMMEDIATE")
            self.book.apply(self.connection, self.queued)
        self.connection.close()  # what was not committed is gone
        self.queued = []
        self.connection = self.connect()
        self.book = Book(self.connection)
        self.connection.execute("BEGIN IMMEDIATE")
        assert self.book.recover(self.connection, self.settled_at_ns) == len(self.promised_open)
        self.connection.execute("COMMIT")
        self.book.committed()
        for record_id in self.promised_open:
            self.promised[record_id] = ("aborted", 0)
        self.promised_open = set()

    @invariant()
    def the_file_agrees(self) -> None:
        reader = LedgerReader(self.path)
        found = reader.verify()
        assert found.problems == []
        assert found.open == len(self.promised_open)
        records = list(reader.rows())
        assert [record.seq for record in records] == list(range(1, len(records) + 1))
        assert {r.record_id: (r.status, r.output_tokens) for r in records} == self.promised
        assert len(records) == len(self.promised) == self.book.head.seq
        for record in records:
            asked = SHARED_ID if int(record.record_id[4:], 16) % 3 == 0 else record.request_id
            assert record.request_id in {asked, f"{asked}~{record.record_id}"}
            assert (record.error_code == APPLIANCE_STOPPED) == (record.status == "aborted")

    @invariant()
    def the_sums_agree(self) -> None:
        (total,) = LedgerReader(self.path).usage()
        with contextlib.closing(connect(self.path, read_only=True)) as connection:
            row = connection.execute(
                "SELECT count(*), coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0),"
                " coalesce(sum(cached_tokens), 0) FROM records"
            ).fetchone()
        assert (
            total.requests,
            total.input_tokens,
            total.output_tokens,
            total.cached_tokens,
        ) == tuple(row)


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)


def test_a_book_that_was_left_behind_deletes_nothing(tmp_path: Path) -> None:
    """No second writer gets past the site's lock; should one all the same, no record is lost."""
    path = tmp_path / "ledger.db"
    migrate(path, MIGRATIONS)
    with contextlib.closing(connect(path)) as connection:
        connection.row_factory = None
        behind = Book(connection)
        ahead = Book(connection)
        connection.execute("BEGIN")
        ahead.apply(connection, [settlement(opening(n)) for n in range(3)])
        connection.execute("COMMIT")
        connection.execute("BEGIN")
        with pytest.raises(sqlite3.IntegrityError):
            behind.apply(connection, [settlement(opening(7))])
        connection.execute("COMMIT")
    found = LedgerReader(path).verify()
    assert (found.ok, found.records) == (True, 3)
