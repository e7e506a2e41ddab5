"""Keys and pastes that arrive faster than they are carried out, and the ways through a form."""

from collections.abc import Sequence
from pathlib import Path

from textual import events
from textual.widgets import Input

from tests.fakes.console_pilot import Driven, driven

_NAMED = {"enter": "\r", "colon": ":", "pagedown": None}


def arrive(seen: Driven, typed: Sequence[str | events.Paste]) -> None:
    """All at once, as a slow line brings them."""
    for each in typed:
        if isinstance(each, events.Paste):
            seen.app.post_message(each)
        else:
            seen.app.post_message(events.Key(each, _NAMED.get(each, each)))


async def test_a_paste_comes_to_what_the_key_before_it_opened(tmp_path: Path) -> None:
    async with driven(tmp_path / "home", mode="3") as seen:
        await seen.reads("gemma-2-9b")
        arrive(seen, ["colon", events.Paste("nodes"), "enter"])
        await seen.until(lambda: seen.app.mode == "2", "the nodes")


async def test_each_enter_of_a_form_goes_to_the_next_question(tmp_path: Path) -> None:
    async with driven(tmp_path / "home", mode="2") as seen:
        await seen.reads("> gpu-00")
        await seen.until(lambda: seen.app.role == "admin")
        arrive(seen, ["N", *"n9", "enter", "x"])
        await seen.reads("--ttl 1hx")
        first, second, *_ = seen.app.screen.query(Input)
        assert (first.value, second.value) == ("n9", "1hx")


async def test_page_down_leads_to_the_button(tmp_path: Path) -> None:
    async with driven(tmp_path / "home", mode="2") as seen:
        await seen.reads("> gpu-00")
        await seen.until(lambda: seen.app.role == "admin")
        await seen.press("N")
        await seen.reads("PgDn comes here")
        await seen.press("pagedown")
        assert seen.app.focused is not None
        assert seen.app.focused.name == "go"


async def test_the_wizard_goes_on_when_a_step_is_done(tmp_path: Path) -> None:
    async with driven(tmp_path / "home", condition="empty") as seen:
        await seen.press("i")
        await seen.reads("> 4 A node and its GPUs")
        nodes = seen.site.fleet.tables()["nodes"]
        nodes["nod_1"] = {"id": "nod_1", "name": "n1", "state": "ready"}
        seen.site.tell()
        await seen.reads("> 5 A first model")


async def test_the_wizard_stays_where_somebody_looks(tmp_path: Path) -> None:
    async with driven(tmp_path / "home", condition="empty") as seen:
        await seen.press("i")
        await seen.reads("> 4 A node and its GPUs")
        await seen.press("up")
        await seen.reads("> 3 Entitlement")
        nodes = seen.site.fleet.tables()["nodes"]
        nodes["nod_1"] = {"id": "nod_1", "name": "n1", "state": "ready"}
        seen.site.tell()
        await seen.reads("1 node ready")
        assert "> 3 Entitlement" in seen.picture()
