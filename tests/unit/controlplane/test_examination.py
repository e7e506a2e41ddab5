"""Stage 1 in other processes gives what it gives here, also when they die."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.controlplane import bulk, examination
from appliance.controlplane.database import Database
from appliance.controlplane.examination import Examination
from appliance.controlplane.site_tables import EVIDENCE, OPERATOR_AUDIT
from appliance.manifests.bundle import CarriedManifest
from appliance.manifests.verify import LIMITS
from tests.fakes.reporting import sealed
from tests.fakes.sites import Site


@pytest.fixture
def helped(monkeypatch: pytest.MonkeyPatch) -> Iterator[Examination]:
    monkeypatch.setattr(examination, "MANIFESTS_MIN", 4)
    made = Examination(LIMITS, 2)
    made.load()
    yield made
    made.close()


def some(site: Site) -> list[CarriedManifest]:
    """Good ones, and one of each way to be wrong."""
    manifests = sealed(site, 6)
    return [
        *manifests,
        manifests[0]._replace(envelope=b"nonsense"),
        manifests[1]._replace(lines=b"other\n"),
        manifests[2]._replace(envelope=manifests[2].envelope + b" " * 40_000),
    ]


def pids(of: Examination) -> list[int]:
    assert of._pool is not None
    return list(of._pool._processes)


def test_the_answers_are_the_same(helped: Examination) -> None:
    site = Site()
    known = replace(site.known(), keys=site.known().keys * 2)
    manifests = some(site)
    here = Examination(LIMITS, 0).begin(manifests, known)()
    there = helped.begin(manifests, known)()
    assert there == here
    assert [one.checked is None for one in there] == [False] * 6 + [True] * 3
    assert helped.begin(manifests, None)() == Examination(LIMITS, 0).begin(manifests, None)()
    assert os.getpid() not in pids(helped)


def test_processes_that_are_killed_cost_nothing_but_time(helped: Examination) -> None:
    site = Site()
    manifests, known = some(site), site.known()
    expected = helped.begin(manifests, known)()
    for pid in pids(helped):
        os.kill(pid, signal.SIGKILL)
    for _ in range(3):
        assert helped.begin(manifests, known)() == expected


def test_they_end_with_the_process_that_began_them() -> None:
    program = (
        "from appliance.controlplane.examination import Examination\n"
        "from appliance.manifests.verify import LIMITS\n"
        "import time\n"
        "if __name__ == '__main__':\n"
        "    made = Examination(LIMITS, 1)\n"
        "    made.load()\n"
        "    print(*made._pool._processes, flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    (pid,) = process.stdout.readline().split()
    process.kill()
    process.communicate(timeout=20)
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and _runs(pid):
        assert time.monotonic() < deadline, "it outlives its parent"
        time.sleep(0.05)


def _runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_rows_that_are_inserted_at_once_are_read_as_they_were(database: Database) -> None:
    awkward = 'tab\t newline\n return\r backslash\\ \\N quote" ’ é 漢 \\.'
    rows = [
        {
            "appliance_id": "apl",
            "sha256": f"{number}",
            "code": awkward,
            "epoch": 2**62 + number,
            "seq": 0,
            "detail": "",
            "via": "\\.",
            "at_ns": number,
            "bytes": 0,
            "envelope": bytes(range(256)),
            "lines": b"",
        }
        for number in range(100)
    ]
    for part in (rows[:1], rows[1:4], rows[4:], []):
        database.transact(lambda c, part=part: bulk.insert_rows(c, EVIDENCE, part))  # type: ignore[misc]
    read = database.read(lambda c: [dict(row) for row in c.execute(EVIDENCE.select()).mappings()])
    assert sorted(read, key=lambda row: row["at_ns"]) == rows


def test_nothing_stands_for_nothing(database: Database) -> None:
    rows = [
        {
            "seq": number,
            "at_ns": 1,
            "actor": "a",
            "action": "b",
            "object_kind": "c",
            "object_id": "d",
            "object_name": "e",
            "before": None,
            "after": "x" if number % 2 else None,
            "sha256": "f",
        }
        for number in range(10)
    ]
    database.transact(lambda c: bulk.insert_rows(c, OPERATOR_AUDIT, rows))
    read = database.read(lambda c: [dict(r) for r in c.execute(OPERATOR_AUDIT.select()).mappings()])
    assert sorted(read, key=lambda row: row["seq"]) == rows
