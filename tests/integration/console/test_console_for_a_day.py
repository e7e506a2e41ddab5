"""A console that is left open for a day holds no more than at its beginning."""

import ctypes
import gc
import logging
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from appliance.wire.stream import Change, Tick
from tests.fakes.console_pilot import Driven, driven
from tests.fakes.simulated_fleet import Rows, SimulatedFleet, iso

TICKS = int(os.environ.get("CONSOLE_DAY_TICKS", "1500"))  # seconds of the site; a day has 86,400
GROWTH_BYTES_MAX = 5_000_000
_TRACED_MAX = 10_000  # tracing makes it three times as slow
_STAY = 25  # ticks in a mode
_COME_AND_GO = ("deployments", "replicas", "requests", "alerts", "keys", "tenants")
_NAMES = {"deployments": "dep_", "tenants": "ten_"}


class Days:
    """Ticks as the appliance sends them; in each table some rows end and others come."""

    def __init__(self) -> None:
        self.fleet = SimulatedFleet(nodes=2, deployments=8, tenants=6, condition="failed")
        self.made = 0
        self._told: dict[str, Rows] = {}

    def tick(self) -> Tick:
        self.fleet.step()
        self.made += 1
        if self.made % 3 == 0:
            self._replace_one(_COME_AND_GO[self.made // 3 % len(_COME_AND_GO)])
        self.fleet._event("info", "site.tick", "site", "", f"Second {self.made}.")
        changes = [change for topic in self.fleet.tables() if (change := self._change(topic))]
        return Tick(at=iso(self.fleet.now), changes=changes)

    def _replace_one(self, topic: str) -> None:
        table = self.fleet.tables()[topic]
        row = table.pop(next(iter(table)))
        row_id = f"{topic}-{self.made}"
        row = {**row, "id": row_id}
        if topic in _NAMES:
            row["name"] = row_id
        table[row_id] = row

    def _change(self, topic: str) -> Change | None:
        rows, told = self.fleet.tables()[topic], self._told.get(topic)
        self._told[topic] = {row_id: dict(row) for row_id, row in rows.items()}
        if told is None:
            return Change(topic=topic, whole=True, rows=self._told[topic])  # type: ignore[arg-type]
        changed: dict[str, dict[str, Any]] = {}
        for row_id, row in rows.items():
            old = told.get(row_id, {})
            fields = {name: value for name, value in row.items() if old.get(name, _NONE) != value}
            if fields:
                changed[row_id] = fields
        gone = [row_id for row_id in told if row_id not in rows]
        return Change(topic=topic, rows=changed, gone=gone) if changed or gone else None  # type: ignore[arg-type]


_NONE = object()
log = logging.getLogger(__name__)


async def _live(seen: Driven, days: Days, ticks: int) -> None:
    """Every mode and a view below it are looked at in turn, as fast as it goes."""
    for at in range(ticks):
        seen.app._tick(days.tick())
        if at % _STAY == 0:
            seen.site.asked.clear()  # the site's own memory is not meant
            await seen.app.back()
            await seen.app.go("123465"[at // _STAY % 6])
            await seen.pilot.pause()
        elif at % _STAY == _STAY // 2:
            await seen.press("enter")
        elif at % 10 == 0:
            await seen.pilot.pause()
    await seen.pilot.pause()


def _held() -> int:
    """Bytes of objects where that is traced, or else of the process's memory."""
    gc.collect()
    if tracemalloc.is_tracing():
        return tracemalloc.get_traced_memory()[0]
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.timeout(120 + TICKS // 10)
async def test_it_does_not_grow(tmp_path: Path) -> None:
    for noisy in ("httpx", "aiohttp.access"):  # what is logged is kept until the test ends
        logging.getLogger(noisy).setLevel(logging.WARNING)
    days = Days()
    async with driven(tmp_path / "home", size=(120, 40)) as seen:
        await seen.reads("live 1s")
        seen.app.feed.want(frozenset())  # what comes from here on comes from these days
        seen.app._want = lambda: None  # type: ignore[method-assign]
        warm_up = max(700, TICKS // 20)
        traced = TICKS <= _TRACED_MAX
        if traced:
            tracemalloc.start(1)
        try:
            await _live(seen, days, warm_up)
            before = _held()
            first = tracemalloc.take_snapshot() if traced else None
            await _live(seen, days, TICKS - warm_up)
            grown = _held() - before
            last = tracemalloc.take_snapshot() if traced else None
        finally:
            tracemalloc.stop()
        log.info("%d s of a site: grown by %.1f KiB", TICKS, grown / 1024)
        for topic in seen.app.store._tables:
            assert set(seen.app.store.table(topic)) == set(days.fleet.tables()[topic])
    most = "\n".join(map(str, last.compare_to(first, "lineno")[:12])) if last and first else ""
    assert grown <= GROWTH_BYTES_MAX, most
