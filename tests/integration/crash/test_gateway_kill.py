"""kill -9 of a whole appliance at random moments under load: every answer is in the ledger, once.

CRASH_KILLS says how often (`make crash`: 300), CRASH_SEED repeats a run. A kill takes about 1.5 s,
most of it the start of the next process.
"""

import asyncio
import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.metering.reader import LedgerReader
from tests.fakes.site import Key, Site
from tests.integration.crash.clients import MODEL, Answers, crowd, objections

ROOT = Path(__file__).parents[3]
KILLS = int(os.environ.get("CRASH_KILLS", "20"))
CONTROL_KILLS_MAX = 15
SEED = int(os.environ.get("CRASH_SEED", "1"))
LOADED_S = 20.0


class NaiveSite(Site):
    @property
    def command(self) -> list[str]:
        module = "tests.integration.crash.naive_site"
        return [sys.executable, "-m", module, "--home", str(self.home)]


@contextlib.contextmanager
def engine() -> Iterator[str]:
    """The fake engine as a process of its own, which outlives the appliance; its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.engine", "--port", "0", "--token-s", "0.002"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        with process.stdout:
            yield process.stdout.readline().decode().split()[1]
    finally:
        process.kill()
        process.wait(LOADED_S)


@contextlib.contextmanager
def stopped_site(kind: type[Site], engine_url: str) -> Iterator[tuple[Site, Key]]:
    """A site with a key and a deployment of the engine. It does not run."""
    folder = Path(tempfile.mkdtemp(prefix="cl-"))
    site = kind(folder)
    try:
        site.init()
        site.start()
        site.deployment(MODEL, engine_url)
        key = site.key()
        site.kill()
        yield site, key
    finally:
        site.kill()
        shutil.rmtree(folder, ignore_errors=True)


async def loaded_and_killed(site: Site, key: Key, seed: int, answers: Answers) -> None:
    """Start the site, let clients at it, and kill it a random moment after the first answers."""
    chance = random.Random(seed)
    site.start()
    busy = asyncio.Event()
    clients = asyncio.create_task(
        crowd(site.base_url, key, seed, answers, busy.set, after=chance.randint(1, 40))
    )
    try:
        await asyncio.wait_for(busy.wait(), LOADED_S)
        await asyncio.sleep(chance.random() * 0.05)
        await asyncio.to_thread(site.kill)
        await asyncio.sleep(0.02)  # what had left the appliance before still arrives
    finally:
        clients.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await clients


@pytest.mark.timeout(120 + 4 * KILLS)
async def test_every_answer_is_recorded_once_whenever_the_appliance_is_killed() -> None:
    answers = Answers()
    with engine() as url, stopped_site(Site, url) as (site, key):
        ledger = site.home / "ledger.db"
        for number in range(KILLS):
            await loaded_and_killed(site, key, SEED * 100_000 + number, answers)
            assert objections(ledger, answers) == [], f"kill {number}"
        found = site.cic("ledger", "verify")  # of a killed site
        assert found["ok"], found["problems"]
        site.start()
        assert site.status()["requests_running"] == 0
        assert site.stop() == 0
        found = site.cic("ledger", "verify")
        assert (found["ok"], found["open"]) == (True, 0), found["problems"]
        assert objections(ledger, answers) == []
        statuses = {record.status for record in LedgerReader(ledger).rows()}
        assert statuses == {"ok", "aborted"}
        assert len(answers.tokens) > KILLS


@pytest.mark.timeout(120)
async def test_an_appliance_that_answers_before_the_commit_is_caught() -> None:
    answers = Answers()
    with engine() as url, stopped_site(NaiveSite, url) as (site, key):
        for number in range(CONTROL_KILLS_MAX):
            await loaded_and_killed(site, key, SEED * 100_000 + number, answers)
            if any("missing" in wrong for wrong in objections(site.home / "ledger.db", answers)):
                return
    pytest.fail(f"{CONTROL_KILLS_MAX} kills did not show that answers were lost")
