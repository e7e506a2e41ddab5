"""What was changed in the file is found, and said in words."""

import contextlib
from pathlib import Path

import pytest

from appliance.metering.book import Book
from appliance.metering.reader import LedgerReader
from appliance.metering.schema import MIGRATIONS
from appliance.metering.verification import PROBLEMS_MAX, Verification
from appliance.storage.database import connect, migrate
from tests.fakes.ledger_items import opening, settlement


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.db"
    migrate(path, MIGRATIONS)
    with contextlib.closing(connect(path)) as connection:
        connection.row_factory = None
        book = Book(connection)
        connection.execute("BEGIN")
        book.apply(connection, [settlement(opening(n)) for n in range(5)] + [opening(9)])
        connection.execute("COMMIT")
    return path


def tampered(path: Path, *statements: str) -> Verification:
    with contextlib.closing(connect(path)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        for statement in statements:
            connection.execute(statement)
    return LedgerReader(path).verify()


def test_a_sound_ledger_verifies(path: Path) -> None:
    seen: list[tuple[int, int]] = []
    found = LedgerReader(path).verify(lambda done, total: seen.append((done, total)))
    assert (found.ok, found.records, found.open, found.problems) == (True, 5, 1, [])
    assert len(bytes.fromhex(found.head_sha256)) == 32
    assert seen[-1] == (5, 5)


def test_an_empty_ledger_verifies(tmp_path: Path) -> None:
    migrate(tmp_path / "ledger.db", MIGRATIONS)
    found = LedgerReader(tmp_path / "ledger.db").verify()
    assert (found.ok, found.records, found.head_sha256) == (True, 0, "00" * 32)


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE records SET output_tokens = 1 WHERE seq = 3", "Record 3 (rec_"),
        ("UPDATE records SET v = 2 WHERE seq = 3", "Record 3 (rec_"),
        ("UPDATE records SET first_token_ms = NULL WHERE seq = 3", "Record 3 (rec_"),
        ("UPDATE records SET sha256 = zeroblob(32) WHERE seq = 2", "Record 2 (rec_"),
        ("UPDATE subjects SET key = 'another'", "Record 1 (rec_"),
        ("DELETE FROM subjects", "Record 1 (rec_"),
        ("DELETE FROM records WHERE seq = 3", "Record 4 follows record 2."),
        ("DELETE FROM records WHERE seq = 1", "Record 2 follows record 0."),
        ("DELETE FROM records WHERE seq = 5", "The head says record 5"),
        ("UPDATE records SET seq = 6 WHERE seq = 5", "Record 6 follows record 4."),
        ("UPDATE head SET input_tokens = 1", "The head says record 5"),
        # SQLite takes values of any type; a verdict is due all the same.
        ("UPDATE head SET sha256 = 'x'", "The head says record 5"),
        ("UPDATE head SET sha256 = 1000000000000", "The head says record 5"),
        ("UPDATE head SET input_tokens = 'x'", "The head says record 5"),
        ("UPDATE records SET sha256 = 'x' WHERE seq = 2", "Record 2 (rec_"),
        ("UPDATE records SET input_tokens = 'x' WHERE seq = 2", "breaks a rule"),
        ("UPDATE records SET cached_tokens = x'00' WHERE seq = 2", "breaks a rule"),
        ("UPDATE records SET output_tokens = 2.5 WHERE seq = 2", "breaks a rule"),
        ("UPDATE openings SET body = 5", "The openings of group 1 cannot be read."),
        ("DELETE FROM head", "The head is there 0 times."),
        ("UPDATE slots SET requests = 6", "The sums of slot"),
        ("DELETE FROM slots", "The sums of slot"),
        ("UPDATE openings SET body = '['", "The openings of group 1 cannot be read."),
        ("UPDATE records SET status = 'paid' WHERE seq = 2", "breaks a rule"),
        ("UPDATE records SET cached_tokens = 10000 WHERE seq = 2", "breaks a rule"),
    ],
)
def test_what_was_changed_is_named(path: Path, statement: str, says: str) -> None:
    found = tampered(path, statement)
    assert not found.ok
    assert any(says in problem for problem in found.problems), found.problems


def test_an_id_that_is_there_twice_is_named(path: Path) -> None:
    found = tampered(
        path,
        "CREATE TABLE copy AS SELECT * FROM records",
        "DROP TABLE records",
        "ALTER TABLE copy RENAME TO records",
        "INSERT INTO records SELECT seq + 1, v, record_id, request_id, subject_no, node, status,"
        " http_status, error_code, measured, prompt_estimate, input_tokens, output_tokens,"
        " cached_tokens, opened_at_ns, settled_at_ns, latency_ms, first_token_ms, sha256"
        " FROM records WHERE seq = 5",
    )
    assert any("record_id rec_" in p and "2 times" in p for p in found.problems)
    assert any("request_id req_" in p and "2 times" in p for p in found.problems)


def test_one_change_is_one_finding_of_the_chain(path: Path) -> None:
    found = tampered(path, "UPDATE records SET latency_ms = 99 WHERE seq = 2")
    assert len(found.problems) == 1


def test_the_list_of_problems_has_an_end(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    migrate(path, MIGRATIONS)
    with contextlib.closing(connect(path)) as connection:
        connection.row_factory = None
        connection.execute("BEGIN")
        Book(connection).apply(connection, [settlement(opening(n)) for n in range(300)])
        connection.execute("COMMIT")
    found = tampered(path, "UPDATE records SET latency_ms = 99")
    assert len(found.problems) == PROBLEMS_MAX
    assert found.problems[-1] == "… and 201 more"


def test_a_file_with_damaged_pages_is_a_finding(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    migrate(path, MIGRATIONS)
    with contextlib.closing(connect(path)) as connection:
        connection.row_factory = None
        connection.execute("BEGIN")
        Book(connection).apply(connection, [settlement(opening(n)) for n in range(300)])
        connection.execute("COMMIT")
        (root,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'records'"
        ).fetchone()
    raw = bytearray(path.read_bytes())
    raw[(root - 1) * 4096 : root * 4096] = b"\xff" * 4096
    path.write_bytes(raw)
    found = LedgerReader(path).verify()
    assert not found.ok
    assert any("cannot be read any further" in problem for problem in found.problems)
