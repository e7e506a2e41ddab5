"""Ops on a real appliance: what keys change is changed, and audited as the command's."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from appliance.settings import load
from appliance.wire.home import find_home
from console.app import ConsoleApp
from console.profile import Profile
from tests.fakes.engine import engine_in_thread
from tests.fakes.site import Site, running_site

PROFILE = Profile(dumb=False, ascii=False, colours="truecolor", mouse=False, refresh_s=1.0)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with running_site(tmp_path) as running:
        yield running


def picture(app: ConsoleApp) -> str:
    strips = app.screen._compositor.render_strips()
    return "\n".join(strip.text.rstrip() for strip in strips)


async def until(app: ConsoleApp, pilot: Pilot[int], seen: Callable[[], Any]) -> None:
    for _ in range(600):
        if seen():
            return
        await pilot.pause(0.02)
    raise AssertionError(picture(app))


async def test_a_setting_is_edited_checked_refused_and_unset(site: Site) -> None:
    home = find_home(str(site.home), {})
    app = ConsoleApp(home, PROFILE, start="8")
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until(app, pilot, lambda: app.role == "admin" and "● in force" in picture(app))
        assert app.top is not None
        app.top.reveal("settings")
        await until(app, pilot, lambda: "site.name" in picture(app))
        await pilot.press("slash", *"drain", "enter")
        await until(app, pilot, lambda: "> timeouts.drain_s" in picture(app))
        await pilot.press("E")
        await until(app, pilot, lambda: len(app.screen_stack) == 2)
        await pilot.press("backspace", "backspace", *"0")
        await until(app, pilot, lambda: "settings set timeouts.drain_s 0" in picture(app))
        await pilot.press("enter", "enter")
        # Refused: what was typed stands there still, and why it is none.
        await until(app, pilot, lambda: "drain_s = '0' is not valid" in picture(app))
        assert load(home.config_file, {}).timeouts.drain_s == 30.0
        await pilot.press("up", "up", "end", "backspace", *"45", "enter", "enter")
        await until(app, pilot, lambda: len(app.screen_stack) == 1 and "▲ 45" in picture(app))
        assert load(home.config_file, {}).timeouts.drain_s == 45.0
        await pilot.press("X")
        await until(app, pilot, lambda: len(app.screen_stack) == 2)
        await pilot.press("y")
        await until(app, pilot, lambda: len(app.screen_stack) == 1 and "▲ 45" not in picture(app))
    assert load(home.config_file, {}).timeouts.drain_s == 30.0
    audit = [
        row["after"] for row in map(dict, site.cic("audit", "list")) if row["action"] == "update"
    ]
    assert audit == [
        {"timeouts.drain_s": ["30", "45"]},
        {"timeouts.drain_s": ["45", "30"]},
    ]


async def test_the_checks_of_a_real_site_come_in_and_say_what_to_do(site: Site) -> None:
    app = ConsoleApp(find_home(str(site.home), {}), PROFILE, start="8")
    with engine_in_thread() as engine:
        site.deployment("good", engine.url)
        site.deployment("dark", "http://127.0.0.1:9/v1", wait=False)
        async with app.run_test(size=(160, 48), notifications=True) as pilot:
            await until(app, pilot, lambda: "Health checks" in picture(app))
            await pilot.press("enter")
            await until(app, pilot, lambda: "process.event-loop" in picture(app))
            await until(app, pilot, lambda: "> ✖ failed" in picture(app))
            told = picture(app)
            assert "A token of 1 replica" in told
            assert "cic deployment explain dark" in told
            await pilot.press("escape")
            assert app.top is not None
            app.top.reveal("diagnostics")
            await until(app, pilot, lambda: "% of a core" in picture(app))
