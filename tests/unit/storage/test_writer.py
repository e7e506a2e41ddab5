"""The writer's thread: groups, order, and when what is told to whom."""

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.storage.database import connect
from appliance.storage.writer import GroupWriter, Outcome


class Rows:
    """A writer of numbers: negative ones cannot be written. Remembers the outcomes by group."""

    def __init__(self, path: Path, *, group_max: int = 2_048) -> None:
        self.path = path
        self.outcomes: list[Outcome[int]] = []
        self.seen_by_others: list[list[int]] = []  # what was on disk when each group was told
        self.commits: list[int] = []  # how many groups had been told when each commit was
        self.hold: Callable[[], object] | None = None
        self._reader: sqlite3.Connection | None = None
        self.writer = GroupWriter[int](
            self._connect,
            self._apply,
            self._finished,
            name="rows",
            group_max=group_max,
            committed=lambda: self.commits.append(len(self.outcomes)),
        )

    def _connect(self) -> sqlite3.Connection:
        connection = connect(self.path)
        connection.execute("CREATE TABLE IF NOT EXISTS rows (number INTEGER)")
        return connection

    def _apply(self, connection: sqlite3.Connection, items: Sequence[int]) -> None:
        if self.hold is not None:
            self.hold()
        for item in items:
            connection.execute("INSERT INTO rows VALUES (?)", [item])
            if item < 0:
                raise ValueError(item)

    def _finished(self, outcome: Outcome[int]) -> None:
        if self._reader is None:
            self._reader = connect(self.path, read_only=True)
        self.seen_by_others.append(self._numbers(self._reader))
        self.outcomes.append(outcome)

    def _numbers(self, connection: sqlite3.Connection) -> list[int]:
        rows = connection.execute("SELECT number FROM rows ORDER BY rowid")
        return [row["number"] for row in rows]

    def close(self) -> list[int]:
        """End the writer; what is on disk then."""
        self.writer.close()
        if self._reader is not None:
            self._reader.close()
        connection = connect(self.path, read_only=True)
        try:
            return self._numbers(connection)
        finally:
            connection.close()

    def told(self) -> list[tuple[int, type[BaseException] | None]]:
        return [
            (item, None if error is None else type(error))
            for outcome in self.outcomes
            for item, error in outcome
        ]


@pytest.fixture
def rows(tmp_path: Path) -> Iterator[Rows]:
    rows = Rows(tmp_path / "rows.db")
    yield rows
    rows.writer.close()


def in_one_group(rows: Rows, items: Sequence[int]) -> None:
    """Submit while the writer is held in a group of its own, so that they make the next one."""
    entered, release = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        assert release.wait(10)

    rows.hold = hold
    rows.writer.submit(0)
    assert entered.wait(10)
    rows.hold = None
    for item in items:
        rows.writer.submit(item)
    release.set()


def test_what_came_together_is_committed_together(rows: Rows) -> None:
    in_one_group(rows, [1, 2, 3])
    assert rows.close() == [0, 1, 2, 3]
    assert [[item for item, _ in outcome] for outcome in rows.outcomes] == [[0], [1, 2, 3]]
    assert rows.commits == [0, 1]


def test_a_bad_item_harms_only_itself(rows: Rows) -> None:
    in_one_group(rows, [1, -2, 3, -4, 5])
    assert rows.close() == [0, 1, 3, 5]
    assert rows.told() == [
        (0, None),
        (1, None),
        (-2, ValueError),
        (3, None),
        (-4, ValueError),
        (5, None),
    ]
    assert len(rows.outcomes) == 2, "the group is told once, with every item's outcome"


def test_a_lone_bad_item_is_tried_once(rows: Rows) -> None:
    rows.writer.submit(-1)
    assert rows.close() == []
    assert rows.told() == [(-1, ValueError)]
    assert rows.commits == []


def test_it_is_told_only_what_others_can_read(rows: Rows) -> None:
    in_one_group(rows, [1, -2, 3])
    rows.close()
    assert rows.seen_by_others == [[0], [0, 1, 3]]


def test_groups_are_bounded(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "rows.db", group_max=4)
    in_one_group(rows, range(1, 11))
    assert rows.close() == list(range(11))
    assert [len(outcome) for outcome in rows.outcomes] == [1, 4, 4, 2]


def test_closing_drains_and_is_idempotent(rows: Rows) -> None:
    in_one_group(rows, range(1, 5_000))
    assert rows.close() == list(range(5_000))
    rows.writer.close()
    with pytest.raises(RuntimeError, match="closed"):
        rows.writer.submit(1)


def test_a_failing_disk_fails_the_whole_group_at_once(tmp_path: Path) -> None:
    """A full disk is no item's fault: nobody is tried again one by one."""
    path = tmp_path / "rows.db"
    outcomes: list[Outcome[int]] = []
    applied: list[int] = []
    entered, release = threading.Event(), threading.Event()

    def apply(connection: sqlite3.Connection, items: Sequence[int]) -> None:
        if items[0] == 0:
            entered.set()
            assert release.wait(10)
            connection.execute("PRAGMA max_page_count = 3")
            return
        applied.extend(items)
        for _ in items:
            connection.execute("INSERT INTO rows VALUES (zeroblob(100000))")

    def create() -> sqlite3.Connection:
        connection = connect(path)
        connection.execute("CREATE TABLE rows (number INTEGER)")
        return connection

    writer = GroupWriter[int](create, apply, outcomes.append, name="full")
    writer.submit(0)
    assert entered.wait(10)
    for item in (1, 2, 3):
        writer.submit(item)
    release.set()
    writer.close()
    told = [pair for outcome in outcomes for pair in outcome]
    assert [item for item, _ in told] == [0, 1, 2, 3]
    assert all("full" in str(error) for item, error in told if item > 0)
    assert applied == [1, 2, 3]


@given(items=st.lists(st.integers(-5, 50), max_size=40), group_max=st.integers(1, 8))
def test_whatever_comes_each_item_ends_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, items: list[int], group_max: int
) -> None:
    rows = Rows(tmp_path_factory.mktemp("rows") / "rows.db", group_max=group_max)
    for item in items:
        rows.writer.submit(item)
    assert rows.close() == [item for item in items if item >= 0]
    assert rows.told() == [(item, ValueError if item < 0 else None) for item in items]
