"""The console over a simulated site, driven by keys, and its picture as text."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from console.app import ConsoleApp
from console.profile import Profile
from tests.fakes.simulated_site import SimulatedSite, simulated_site

NOW = datetime(2026, 11, 23, 19, 22, tzinfo=UTC)
SNAPSHOTS = Path(__file__).resolve().parents[1] / "snapshots"
_WRITE = "CONSOLE_SNAPSHOTS"  # =write makes them anew
_PAUSES_MAX = 400


@dataclass
class Driven:
    """A console that is looked at. `press` types keys, `until` waits for what shall be seen."""

    app: ConsoleApp
    pilot: Pilot[int]
    site: SimulatedSite

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def until(self, seen: Callable[[], Any], why: str = "") -> None:
        for _ in range(_PAUSES_MAX):
            if seen():
                return
            await self.pilot.pause(0.02)
        raise AssertionError(f"{why or 'It'} was not seen on:\n{self.picture()}")

    async def reads(self, text: str) -> None:
        await self.until(lambda: text in self.picture(), repr(text))

    def picture(self) -> str:
        """What the terminal shows, without spaces at the ends of lines."""
        strips = self.app.screen._compositor.render_strips()
        return "\n".join(strip.text.rstrip() for strip in strips)

    def check(self, name: str) -> None:
        """The picture between the frame's lines is that of the snapshot, and stays inside."""
        width, height = self.app.size
        lines = self.picture().split("\n")
        assert len(lines) <= height
        assert all(len(line) <= width for line in lines)
        picture = "\n".join(lines[2:-1])
        path = SNAPSHOTS / f"{name}-{width}x{height}.txt"
        if os.environ.get(_WRITE) == "write":
            path.write_text(picture + "\n")
        assert path.read_text() == picture + "\n", f"{path.name} differs: {_WRITE}=write, then look"


@asynccontextmanager
async def driven(
    folder: Path,
    *,
    size: tuple[int, int] = (80, 24),
    mode: str = "1",
    ascii_only: bool = False,
    role: str = "admin",
    **fleet: Any,
) -> AsyncIterator[Driven]:
    """A console of a site where nothing changes by itself."""
    async with simulated_site(folder, role=role, every_s=3_600, **fleet) as site:
        site.frozen = True
        profile = Profile(
            dumb=False, ascii=ascii_only, colours="truecolor", mouse=False, refresh_s=1.0
        )
        app = ConsoleApp(site.home, profile, start=mode, now=lambda: NOW)
        async with app.run_test(size=size, notifications=True) as pilot:
            yield Driven(app, pilot, site)
