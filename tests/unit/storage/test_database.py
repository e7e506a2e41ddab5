"""SQLite files: migrations, damaged and foreign files, writes that are durable and isolated."""

import asyncio
import os
import sqlite3
import stat
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest

from appliance.storage.database import Database, Migration, Schema, connect, migrate
from appliance.storage.errors import DatabaseDamaged, DatabaseUnavailable, SchemaTooNew


def create_notes(schema: Schema) -> None:
    schema.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE)")


def add_colour(schema: Schema) -> None:
    schema.execute("ALTER TABLE notes ADD COLUMN colour TEXT NOT NULL DEFAULT 'none'")


def fail_half_way(schema: Schema) -> None:
    schema.execute("CREATE TABLE half (id INTEGER)")
    schema.execute("INSERT INTO nowhere VALUES (1)")


FIRST = Migration("0001 notes", create_notes)
SECOND = Migration("0002 colour", add_colour)
BROKEN = Migration("0003 broken", fail_half_way)
# Counts for seconds, if nobody interrupts it.
LONG = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000000)"
    " SELECT count(*) FROM n"
)


class Insert:
    """A write that inserts a note and returns its id."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __call__(self, connection: sqlite3.Connection) -> int:
        cursor = connection.execute("INSERT INTO notes (text) VALUES (?)", [self.text])
        assert cursor.lastrowid is not None
        return cursor.lastrowid


def texts(connection: sqlite3.Connection) -> list[str]:
    return [row["text"] for row in connection.execute("SELECT text FROM notes ORDER BY id")]


def tables(path: Path) -> set[str]:
    connection = connect(path, read_only=True)
    try:
        return {row["name"] for row in connection.execute("SELECT name FROM sqlite_master")}
    finally:
        connection.close()


# --- migrations


def test_migrations_are_applied_once_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    migrate(path, [FIRST])
    migrate(path, [FIRST, SECOND])
    migrate(path, [FIRST, SECOND])  # applying either again would fail
    connection = connect(path)
    connection.execute("INSERT INTO notes (text) VALUES ('x')")
    assert connection.execute("SELECT colour FROM notes").fetchone()["colour"] == "none"
    connection.close()


def test_a_failing_migration_leaves_nothing_of_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        migrate(path, [FIRST, BROKEN])
    assert "notes" in tables(path)
    assert "half" not in tables(path)
    migrate(path, [FIRST, SECOND])  # the next version's repaired step applies


def test_a_newer_file_that_only_expanded_is_used_by_the_version_before(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    migrate(path, [FIRST, SECOND])
    migrate(path, [FIRST])  # rolled back
    migrate(path, [FIRST, SECOND])  # and upgraded again: nothing is applied twice
    assert "notes" in tables(path)


def test_a_file_from_before_steps_told_whether_they_expand_is_refused_when_newer(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE _migrations (name TEXT PRIMARY KEY)")
    connection.execute("INSERT INTO _migrations VALUES ('0001 of old'), ('0002 of old')")
    connection.commit()
    connection.close()
    migrate(path, [Migration("0001 of old", FIRST.apply), Migration("0002 of old", FIRST.apply)])
    with pytest.raises(SchemaTooNew, match="0002 of old"):
        migrate(path, [Migration("0001 of old", FIRST.apply)])


def test_a_newer_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    migrate(path, [FIRST, Migration(SECOND.name, SECOND.apply, expands=False)])
    before = tables(path)
    with pytest.raises(SchemaTooNew) as caught:
        migrate(path, [FIRST])
    assert "0002 colour" in caught.value.message
    assert caught.value.code == "schema_too_new"
    assert caught.value.next_step
    assert tables(path) == before


# --- files that are not as they should be


def test_a_file_that_is_no_database_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(DatabaseDamaged) as caught:
        Database(path, [FIRST])
    assert str(path) in caught.value.message
    assert "backup" in caught.value.next_step
    assert path.read_bytes().startswith(b"not a database"), "kept for examination"


def test_a_table_that_was_overwritten_is_damaged_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    database = Database(path, [FIRST])
    for number in range(200):
        database.submit(Insert(f"{number} " + "x" * 200))
    database.close()
    whole = path.read_bytes()
    page_bytes = 4_096
    assert len(whole) > 8 * page_bytes
    # The first two pages hold the schema; all behind them is overwritten.
    path.write_bytes(whole[: 3 * page_bytes] + b"\xff" * (len(whole) - 3 * page_bytes))
    damaged = Database(path, [FIRST])
    try:
        with pytest.raises(DatabaseDamaged, match=r"a\.db"):
            damaged.read(texts)
    finally:
        damaged.close()


@pytest.mark.parametrize("read_only", [True, False])
def test_a_folder_that_is_not_there(tmp_path: Path, read_only: bool) -> None:  # noqa: FBT001 (a parameter)
    with pytest.raises(DatabaseUnavailable) as caught:
        connect(tmp_path / "nowhere" / "a.db", read_only=read_only)
    assert str(tmp_path / "nowhere" / "a.db") in caught.value.message


def test_reading_does_not_create(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable):
        connect(tmp_path / "a.db", read_only=True)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    folder = Path("/proc")  # nobody, not even root, makes a file there
    if os.geteuid() != 0:
        folder = tmp_path / "read-only"
        folder.mkdir(mode=0o500)
    with pytest.raises(DatabaseUnavailable) as caught:
        Database(folder / "a.db", [FIRST])
    assert "writable" in caught.value.next_step


async def test_a_full_disk_is_named_and_the_file_stays_sound(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db", [FIRST])

    def fill(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA max_page_count = 20")  # SQLite's own way to have no more room
        for number in range(1_000):
            connection.execute("INSERT INTO notes (text) VALUES (?)", [f"{number}" + "x" * 500])

    with pytest.raises(DatabaseUnavailable, match="full") as caught:
        await database.write(fill)
    assert "free space" in caught.value.next_step
    assert database.read(texts) == []
    await database.write(Insert("fits"))
    assert database.read(texts) == ["fits"]
    database.close()


def test_a_reading_connection_cannot_write(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db", [FIRST])
    with pytest.raises(DatabaseUnavailable, match="readonly"):
        database.read(lambda connection: connection.execute("DELETE FROM notes"))
    database.close()


def test_commits_are_synced_and_logged_ahead(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db", [FIRST])

    def pragmas(connection: sqlite3.Connection) -> tuple[str, int, int]:
        return (
            connection.execute("PRAGMA journal_mode").fetchone()[0],
            connection.execute("PRAGMA synchronous").fetchone()[0],
            connection.execute("PRAGMA foreign_keys").fetchone()[0],
        )

    assert database.submit(pragmas).result() == ("wal", 2, 1)
    database.close()


def test_files_are_closed_to_other_accounts(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db", [FIRST])
    database.submit(Insert("x")).result()
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert modes == {"a.db": 0o600, "a.db-wal": 0o600, "a.db-shm": 0o600}
    database.close()


def test_a_closed_database_is_one_file(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db", [FIRST])
    database.submit(Insert("x"))
    database.read(texts)
    database.close()
    assert [file.name for file in tmp_path.iterdir()] == ["a.db"]


# --- writes


async def test_a_write_returns_its_result_and_is_seen_by_readers(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db", [FIRST])
    assert await database.write(Insert("one")) == 1
    assert await database.read_async(texts) == ["one"]
    database.close()


async def test_a_failing_write_changes_nothing_and_harms_no_other(tmp_path: Path) -> None:
    """Three that belong to one group: the middle one fails after it has written."""
    database = Database(tmp_path / "a.db", [FIRST])
    hold = threading.Event()
    database.submit(lambda _: hold.wait(10))  # the group behind it gathers meanwhile

    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO notes (text) VALUES ('never')")
        raise ValueError("on purpose")

    writes = [database.write(Insert("a")), database.write(fail), database.write(Insert("b"))]
    gathered = asyncio.gather(*writes, return_exceptions=True)
    await asyncio.sleep(0)  # the three are submitted
    hold.set()
    first, failed, last = await gathered
    assert (first, last) == (1, 2)
    assert isinstance(failed, ValueError)
    assert await database.read_async(texts) == ["a", "b"]
    database.close()


async def test_a_broken_constraint_is_the_writer_s_own_error(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db", [FIRST])
    await database.write(Insert("a"))
    with pytest.raises(sqlite3.IntegrityError):
        await database.write(Insert("a"))
    database.close()


async def test_a_cancelled_writer_s_write_stands(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db", [FIRST])
    hold = threading.Event()
    database.submit(lambda _: hold.wait(10))
    waiting = asyncio.create_task(database.write(Insert("kept")))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    hold.set()
    await database.write(Insert("next"))
    assert database.read(texts) == ["kept", "next"]
    database.close()


def test_closing_writes_what_was_submitted(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db", [FIRST])
    futures: list[Future[int]] = [database.submit(Insert(str(n))) for n in range(500)]
    database.close()
    assert [future.result(timeout=0) for future in futures] == list(range(1, 501))
    with pytest.raises(RuntimeError, match="closed"):
        database.submit(Insert("late"))
    again = Database(tmp_path / "a.db", [FIRST])
    assert len(again.read(texts)) == 500
    again.close()


def test_a_second_process_s_lock_is_waited_for(tmp_path: Path) -> None:
    """Another connection holds the write lock for a moment: the write waits, and succeeds."""
    path = tmp_path / "a.db"
    database = Database(path, [FIRST])
    other = connect(path)
    other.execute("BEGIN IMMEDIATE")
    future = database.submit(Insert("late"))
    assert not future.done()
    other.execute("COMMIT")
    other.close()
    assert future.result(timeout=10) == 1
    database.close()


def test_closing_waits_for_a_read_that_is_under_way(tmp_path: Path) -> None:
    database = Database(tmp_path / "notes.db", [FIRST], readers=1)
    begun, go_on, looked = threading.Event(), threading.Event(), threading.Event()

    def slow(connection: sqlite3.Connection) -> None:
        begun.set()
        assert go_on.wait(10)
        connection.execute("SELECT count(*) FROM notes").fetchone()  # it is open still
        looked.set()

    reading = threading.Thread(target=database.read, args=(slow,))
    closing = threading.Thread(target=database.close)
    reading.start()
    assert begun.wait(10)
    closing.start()
    closing.join(0.2)
    assert closing.is_alive()
    go_on.set()
    closing.join(10)
    reading.join(10)
    assert looked.is_set()
    assert not closing.is_alive()


async def test_a_read_nobody_waits_for_any_more_outlives_neither_file_nor_program(
    tmp_path: Path,
) -> None:
    for count in range(20):
        database = Database(tmp_path / f"notes{count}.db", [FIRST])
        reads = [
            asyncio.create_task(database.read_async(lambda c: c.execute(LONG).fetchone()))
            for _ in range(4)
        ]
        await asyncio.sleep(0.001 * (count % 5))
        for read in reads:
            read.cancel()
        database.close()
        await asyncio.gather(*reads, return_exceptions=True)


def test_a_read_after_closing_is_an_error_and_waits_for_nothing(tmp_path: Path) -> None:
    database = Database(tmp_path / "notes.db", [FIRST])
    database.close()
    database.close()
    with pytest.raises(DatabaseUnavailable):
        database.read(lambda connection: connection.execute("SELECT 1").fetchone())
