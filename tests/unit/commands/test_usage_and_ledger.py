"""Usage and the ledger: of a site that runs, and the same of one that does not."""

import contextlib
import json
from pathlib import Path

import pytest

from appliance.admin.ledger_usage import LedgerUsage
from appliance.commands.stopped import StoppedLedger
from appliance.domain.usage import TokenCount
from appliance.metering.book import Book
from appliance.metering.reader import LedgerReader
from appliance.metering.schema import MIGRATIONS
from appliance.storage.database import connect, migrate
from appliance.wire.command import ExitCode
from tests.fakes.admin_site import make_home, served
from tests.fakes.command_line import Done, cic
from tests.fakes.ledger_items import opening, settlement

COUNT = 1_100  # more than two pages
QUESTIONS = (
    ("usage",),
    ("usage", "--by", "tenant,env,key,model,hour"),
    ("usage", "--by", "env", "--since", "1h"),
    ("usage", "--since", "2026-11-22T00:00:00Z", "--until", "2030-01-01", "--by", "model"),
    ("ledger", "list"),
    ("ledger", "list", "--since", str(COUNT - 2)),
    ("ledger", "verify"),
)
# What programs rely on in every record.
FIELDS = {
    *("seq", "request_id", "status", "tenant", "environment", "key", "model", "region"),
    *("input_tokens", "output_tokens", "cached_tokens"),
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopped")
    write_ledger(make_home(folder).ledger_file)
    return folder


def write_ledger(path: Path) -> None:
    migrate(path, MIGRATIONS)
    with contextlib.closing(connect(path)) as connection:
        connection.row_factory = None
        book = Book(connection)
        connection.execute("BEGIN")
        book.apply(
            connection,
            [settlement(opening(n), tokens=TokenCount(10, 7, 2)) for n in range(1, COUNT + 1)],
        )
        connection.execute("COMMIT")
        book.committed()


def ask(home: Path, *arguments: str) -> Done:
    done = cic("--home", home, "--json", *arguments)
    assert done.code == ExitCode.OK, done
    return done


@pytest.mark.parametrize("question", QUESTIONS, ids=" ".join)
def test_a_running_and_a_stopped_site_give_the_same_answer(
    stopped: Path, tmp_path: Path, question: tuple[str, ...]
) -> None:
    at_rest = ask(stopped, *question)
    with served(tmp_path) as site:
        object.__setattr__(site.services, "usage", LedgerUsage(LedgerReader(stopped / "ledger.db")))
        running = ask(tmp_path, *question)
    assert at_rest.out == running.out
    assert at_rest.out != ""


def test_usage_names_its_columns_as_they_were_asked_for(stopped: Path) -> None:
    (row,) = ask(stopped, "usage", "--by", "env").json
    assert row["env"] == row["environment"]
    assert row["environment_id"] == opening(1).environment_id
    assert {key: row[key] for key in ("requests", "input_tokens", "output_tokens")} == {
        "requests": COUNT,
        "input_tokens": 10 * COUNT,
        "output_tokens": 7 * COUNT,
    }
    (total,) = ask(stopped, "usage").json
    assert set(total) == {"requests", "input_tokens", "output_tokens", "cached_tokens"}
    plain = cic("--home", stopped, "usage", "--by", "env").out.splitlines()
    assert plain[0].split() == ["ENVIRONMENT", "REQUESTS", "INPUT", "OUTPUT", "CACHED"]
    assert "11,000" in plain[1]


def test_the_ledger_is_one_object_a_line_with_or_without_json(stopped: Path) -> None:
    plain = cic("--home", stopped, "ledger", "list").out
    assert plain == ask(stopped, "ledger", "list").out
    rows = [json.loads(line) for line in plain.splitlines()]
    assert [row["seq"] for row in rows] == list(range(1, COUNT + 1))
    assert set(rows[0]) >= FIELDS


def test_the_progress_of_a_verification_is_told(stopped: Path) -> None:
    told: list[tuple[int, int]] = []
    StoppedLedger(make_home(stopped)).verify(lambda *progress: told.append(progress))
    assert told[-1] == (COUNT, COUNT)


@pytest.mark.parametrize(
    "question",
    [
        ("usage", "--since", "999999w"),
        ("usage", "--since", "0001-01-01T00:00:00+14:00"),
        ("ledger", "list", "--since", str(2**63)),
        ("audit", "list", "--since", str(2**63)),
    ],
    ids=" ".join,
)
def test_what_no_calendar_and_no_number_holds_is_a_wrong_command_line(
    stopped: Path, question: tuple[str, ...]
) -> None:
    done = cic("--home", stopped, "--json", *question)
    assert (done.code, done.error["code"]) == (ExitCode.USAGE, "usage")


def test_a_damaged_ledger_is_told_by_the_exit_code(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    write_ledger(home.ledger_file)
    assert ask(tmp_path, "ledger", "verify").json["records"] == COUNT
    with contextlib.closing(connect(home.ledger_file)) as connection:
        connection.execute("UPDATE records SET output_tokens = 1 WHERE seq = 5")
    done = cic("--home", tmp_path, "--json", "ledger", "verify")
    assert done.code == ExitCode.DAMAGED
    assert done.json["ok"] is False
    assert done.json["problems"]


def test_a_ledger_that_is_no_database_is_told(tmp_path: Path) -> None:
    make_home(tmp_path).ledger_file.write_bytes(b"junk" * 2_000)
    for command in (["usage"], ["ledger", "list"], ["ledger", "verify"]):
        done = cic("--home", tmp_path, "--json", *command)
        assert (done.code, done.error["code"]) == (ExitCode.DAMAGED, "database_damaged")


def test_a_site_that_never_served_has_an_empty_ledger(tmp_path: Path) -> None:
    make_home(tmp_path)
    assert ask(tmp_path, "usage").json[0]["requests"] == 0
    assert ask(tmp_path, "usage", "--by", "key").json == []
    assert ask(tmp_path, "ledger", "list").out == ""
    assert ask(tmp_path, "ledger", "verify").json["records"] == 0
    assert not (tmp_path / "ledger.db").exists()


def test_only_a_site_that_does_not_run_is_read_from_its_file(tmp_path: Path) -> None:
    """Any other refusal is an error: the file may not be the whole truth then."""
    with served(tmp_path) as site:

        def broken() -> None:
            raise ZeroDivisionError

        site.records.verify = broken  # type: ignore[method-assign, assignment]
        done = cic("--home", tmp_path, "--json", "ledger", "verify")
    assert (done.code, done.error["code"]) == (ExitCode.FAILED, "internal_error")
