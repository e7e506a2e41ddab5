"""Anything typed, over a site where anything goes wrong: the console stays, and says ASCII only."""

import contextlib
import logging
import os
from pathlib import Path

import pytest
from textual.worker import WorkerFailed

from tests.fakes.console_fuzz import Fuzz
from tests.fakes.console_reached import Reached
from tests.fakes.simulated_site import simulated_site

EVENTS = int(os.environ.get("CONSOLE_FUZZ", "1500"))
SEED = int(os.environ.get("CONSOLE_FUZZ_SEED", "1"))
_EACH = 5_000  # events of a seed, on a long way
_SEEDS = int(os.environ.get("CONSOLE_FUZZ_SEEDS", "0")) or max(2, EVENTS // _EACH)
_MEASURED = 10_000  # events that are worth to ask which lines they run
log = logging.getLogger(__name__)


async def _survives(folder: Path, seed: int, events: int, reached: Reached) -> bool:
    """Whether one console after the other did. Why one did not is told; the others go on."""
    async with simulated_site(folder / f"home-{seed}", every_s=3_600, seed=seed) as site:
        site.frozen = True
        fuzz = Fuzz(site, seed, reached, ascii_only=seed % 2 == 1)
        try:
            await fuzz.run(events)
        except Exception as error:
            if isinstance(error, WorkerFailed):  # it names its cause, but not where that was
                log.exception("In a worker:", exc_info=error.error)
            log.exception("Seed %d, event %d, after:\n%s", seed, fuzz.events, "\n".join(fuzz.trail))
            return False
    told = (seed, fuzz.events, fuzz.begun, fuzz.children, fuzz.slowest_s)
    log.info("Seed %d: %d events, %d consoles, %d commands, slowest way out %.1f s", *told)
    return fuzz.events >= events


@pytest.mark.timeout(180 + EVENTS // 5)
async def test_the_console_survives_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # `w` writes here
    for noisy in ("httpx", "aiohttp.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # A reader of anyio's that is cancelled as its socket has something says so, and that is all.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    reached, fell = Reached(), []
    for seed in range(SEED, SEED + _SEEDS):
        measured = reached.measured() if EVENTS >= _MEASURED else contextlib.nullcontext()
        with measured:
            if not await _survives(tmp_path, seed, EVENTS // _SEEDS, reached):
                fell.append(seed)
    log.info("%d events:\n%s", EVENTS, reached.report())
    assert not fell, f"seeds {fell}"
    assert not reached.missing(EVENTS)
