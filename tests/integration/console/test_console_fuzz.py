"""Anything typed, over a site where anything goes wrong: the console stays, and says ASCII only."""

import logging
import os
from pathlib import Path

import pytest
from textual.worker import WorkerFailed

from tests.fakes.console_fuzz import Fuzz
from tests.fakes.simulated_site import simulated_site

EVENTS = int(os.environ.get("CONSOLE_FUZZ", "2000"))
log = logging.getLogger(__name__)
SEED = int(os.environ.get("CONSOLE_FUZZ_SEED", "1"))
_SEEDS = int(os.environ.get("CONSOLE_FUZZ_SEEDS", "2"))


@pytest.mark.timeout(60 + EVENTS // 10)
@pytest.mark.parametrize("nth", range(_SEEDS))
async def test_the_console_survives_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    monkeypatch.chdir(tmp_path)  # `w` writes here
    for noisy in ("httpx", "aiohttp.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    seed = SEED + nth
    async with simulated_site(tmp_path / "home", every_s=3_600, seed=seed) as site:
        site.frozen = True
        fuzz = Fuzz(site, seed, ascii_only=nth % 2 == 0)
        try:
            await fuzz.run(EVENTS // _SEEDS)
        except BaseException as error:
            if isinstance(error, WorkerFailed):  # it names its cause, but not where that was
                log.exception("In a worker:", exc_info=error.error)
            log.exception("Seed %d, event %d, after:\n%s", seed, fuzz.events, "\n".join(fuzz.trail))
            raise
    log.info("%d consoles, %d commands, in %s", fuzz.begun, fuzz.children, sorted(fuzz.visited))
    assert fuzz.events >= EVENTS // _SEEDS
    assert len(fuzz.visited) >= min(12, EVENTS // _SEEDS // 200), fuzz.visited
