"""The ledger under kill -9, power cuts and failing disks: what it said stays true.

Each test has its control: a naive ledger that the same checker must catch. CRASH_KILLS and
CRASH_CUTS set how often; CRASH_SEED repeats a run.
"""

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.crash.evidence import Evidence, objections
from tests.integration.crash.power import Disk, Entry, cut, said

ROOT = Path(__file__).parents[3]
KILLS = max(5, int(os.environ.get("CRASH_KILLS", "20")) // 2)
CUTS = int(os.environ.get("CRASH_CUTS", "60"))
SEED = int(os.environ.get("CRASH_SEED", "1"))
DEADLINE_S = 30.0


@contextmanager
def writing(
    folder: Path, *options: str, environ: dict[str, str] | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """The program of `load.py` at work on `folder`; killed at the end of the block."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.integration.crash.load", folder / "ledger.db"),
            *("--acks", folder / "acks", *options),
        ],
        cwd=ROOT,
        env={**os.environ, **(environ or {})},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(DEADLINE_S)


def until(wanted: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not wanted():
        assert process.poll() is None, "the program ended by itself"
        assert time.monotonic() < deadline, "not seen in time"
        time.sleep(0.005)


def heard(folder: Path) -> bytes:
    acks = folder / "acks"
    return acks.read_bytes() if acks.exists() else b""


# --- kill -9 -------------------------------------------------------------------------------------


def kill_again_and_again(folder: Path, kills: int, *options: str) -> list[str]:
    """Objections after `kills` kills of one ledger that goes on growing."""
    chance = random.Random(SEED)
    wrong: list[str] = []
    evidence = Evidence()
    for number in range(kills):
        (folder / "acks").unlink(missing_ok=True)
        with writing(folder, "--first", str(number * 1_000_000), *options) as process:
            until(lambda: b"S " in heard(folder), process)
            time.sleep(chance.random() * 0.08)  # the random moment
        evidence.hear(heard(folder))
        wrong += [
            f"kill {number}: {problem}" for problem in objections(folder / "ledger.db", evidence)
        ]
    assert len(evidence.settled) > kills  # there was a load
    return wrong


@pytest.mark.timeout(60 + 5 * KILLS)
def test_nothing_is_lost_or_doubled_by_kills(tmp_path: Path) -> None:
    assert kill_again_and_again(tmp_path, KILLS) == []


def test_a_ledger_that_says_so_before_the_commit_is_caught(tmp_path: Path) -> None:
    wrong = kill_again_and_again(tmp_path, 5, "--naive", "early")
    assert any("was settled with" in problem or "is missing" in problem for problem in wrong)


# --- power cuts ----------------------------------------------------------------------------------


def cut_again_and_again(entries: list[Entry], folder: Path, cuts: int) -> list[str]:
    """Objections over `cuts` moments of one recorded run at which the power may have gone."""
    chance = random.Random(SEED)
    wrong: list[str] = []
    for number in range(cuts):
        moment = chance.randrange(len(entries)) + 1
        evidence = Evidence()
        evidence.hear(said(entries[:moment]))
        after = folder / f"cut-{number}"
        after.mkdir()
        for name, content in cut(entries[:moment], chance).items():
            (after / name).write_bytes(content)
        wrong += [
            f"cut {number} after entry {moment}: {problem}"
            for problem in objections(after / "ledger.db", evidence)
        ]
        shutil.rmtree(after)
    return wrong


def recorded(tmp_path: Path, recorder: Path, *options: str) -> list[Entry]:
    disk = Disk(tmp_path, recorder)
    with writing(disk.folder, "--requests", "1500", *options, environ=disk.environ) as process:
        assert process.wait(DEADLINE_S) == 0
    entries = disk.entries()
    assert said(entries).count(b"S ") > 1_000
    return entries


@pytest.mark.timeout(60 + CUTS)
def test_what_was_said_survives_a_power_cut(tmp_path: Path, recorder: Path) -> None:
    assert cut_again_and_again(recorded(tmp_path, recorder), tmp_path, CUTS) == []


@pytest.mark.parametrize("naive", ["off", "normal", "early"])
def test_a_ledger_that_does_not_wait_for_the_disk_is_caught(
    tmp_path: Path, recorder: Path, naive: str
) -> None:
    wrong = cut_again_and_again(recorded(tmp_path, recorder, "--naive", naive), tmp_path, 12)
    assert any("is missing" in problem or "was settled with" in problem for problem in wrong)


# --- disks that fail -----------------------------------------------------------------------------


@pytest.mark.timeout(60 + CUTS)
@pytest.mark.parametrize("how", [b"s", b"w", b"f"], ids=["full", "write_error", "sync_error"])
def test_a_failing_disk_is_told_and_survived(tmp_path: Path, recorder: Path, how: bytes) -> None:
    disk = Disk(tmp_path, recorder)
    with writing(disk.folder, environ=disk.environ) as process:
        until(lambda: heard(disk.folder).count(b"S ") > 50, process)
        for _ in range(3):
            refused, settled = (heard(disk.folder).count(word) for word in (b"R ", b"S "))
            disk.fail(how)
            until(lambda: heard(disk.folder).count(b"R ") > refused + 20, process)  # noqa: B023
            disk.fail(b"n")
            until(lambda: heard(disk.folder).count(b"S ") > settled + 50, process)  # noqa: B023
    assert cut_again_and_again(disk.entries(), tmp_path, CUTS // 3) == []
    evidence = Evidence()
    evidence.hear(heard(disk.folder))
    assert evidence.refused
    assert objections(disk.folder / "ledger.db", evidence) == []
