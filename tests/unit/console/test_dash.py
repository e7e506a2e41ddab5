"""1 Dash: where its parts lead, the past it draws, and its map of nodes."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from console.cells import Cell
from console.screens.dash_map import labelled, node_map
from console.screens.dash_past import HEIGHT, figures_now, pictures, titles
from console.screens.places import alert_place
from console.store import Store
from tests.fakes.console_pilot import NOW, Driven, driven
from tests.fakes.simulated_fleet import SimulatedFleet
from tests.fakes.simulated_past import past

Opened = Callable[..., AbstractAsyncContextManager[Driven]]
WIDE = (160, 48)


@pytest.fixture
def console(tmp_path: Path) -> Opened:
    def opened(**how: Any) -> AbstractAsyncContextManager[Driven]:
        return driven(tmp_path / "home", **how)

    return opened


def cursor_line(seen: Driven) -> str:
    return next(line for line in seen.picture().split("\n") if line.startswith("> "))


@pytest.mark.parametrize(
    ("keys", "mode", "there"),
    [
        (("plus", "1", "enter"), "2", "── Nodes 4"),
        (("plus", "2", "j", "enter"), "3", "> qwen-2.5-32b"),
        (("plus", "3", "j", "enter"), "4", "> tenant-003"),
        (("plus", "5", "enter"), "1", "The site, the last 1h"),
        (("exclamation_mark",), "6", "gpu-01 GPU 1 fell off"),
    ],
)
async def test_enter_opens_what_a_part_shows(
    console: Opened, keys: tuple[str, ...], mode: str, there: str
) -> None:
    async with console(size=WIDE, condition="failed") as seen:
        await seen.reads("1h ago")
        await seen.press(*keys)
        await seen.until(lambda: seen.app.mode == mode)
        await seen.reads(there)


async def test_an_alert_leads_to_the_node_of_its_gpu(console: Opened) -> None:
    async with console(condition="failed") as seen:
        await seen.reads("live 1s")
        await seen.press("plus", "4", "enter")
        await seen.until(lambda: seen.app.mode == "2")
        await seen.until(lambda: "gpu-01" in cursor_line(seen))
        await seen.press("1", "plus", "4", "j", "enter")
        await seen.until(lambda: "gpu-00" in cursor_line(seen))


async def test_letters_on_the_map_lead_to_a_node(console: Opened) -> None:
    async with console(nodes=9) as seen:
        await seen.reads("live 1s")
        await seen.press("plus", "1", "f")
        await seen.reads("\na")
        await seen.press("d")
        await seen.until(lambda: seen.app.mode == "2")
        await seen.until(lambda: "gpu-02" in cursor_line(seen))


async def test_a_past_that_cannot_be_read_is_told_in_its_place(console: Opened) -> None:
    async with console(size=(80, 24)) as seen:
        await seen.reads("live 1s")
        seen.site.answers["/v1/history"] = b"no JSON"
        await seen.pilot.resize_terminal(*WIDE)
        await seen.reads("+5 The last hour")
        await seen.reads("GPU use 63%")
        await seen.until(lambda: "pending" not in seen.picture())
        assert "1h ago" not in seen.picture()
        await seen.pilot.resize_terminal(80, 24)
        await seen.until(lambda: "The last hour" not in seen.picture())


async def test_the_ascii_profile_draws_the_past_too(console: Opened) -> None:
    async with console(size=WIDE, ascii_only=True) as seen:
        await seen.reads("1h ago")
        assert seen.picture().isascii()


def test_plots_are_as_wide_as_there_is_room() -> None:
    told = past(SimulatedFleet(), {"span": "24h", "newest": "61"})
    for width in (140, 160, 203):
        lines = [
            titles(told, figures_now(None, {}), width),
            *pictures(told, width, NOW.timestamp()),
        ]
        assert len(lines) == HEIGHT
        assert {sum(len(cell.text) for cell in line) for line in lines} == {width // 4 * 4}


def test_the_use_of_gpus_is_of_those_that_are_heard() -> None:
    gpus = {
        "a": {"utilisation": 50},
        "b": {"utilisation": 100, "stale": True},
        "c": {"utilisation": None},
        "d": {"utilisation": 70},
    }
    assert figures_now({"requests_queued": 3}, gpus) == ["–", "60%", "3", "–"]
    assert figures_now(None, {}) == ["–"] * 4


@pytest.mark.parametrize(("nodes", "width"), [(3, 80), (20, 80), (64, 160), (200, 80)])
def test_every_place_on_the_map_is_where_its_node_begins(nodes: int, width: int) -> None:
    tables = SimulatedFleet(nodes=nodes, gpus=4).tables()
    picture = node_map(tables["nodes"], tables["gpus"], width, 4)
    assert all(sum(len(cell.text) for cell in line) <= width for line in picture.lines)
    assert len(set(picture.places.values())) == len(picture.places)
    label = labelled(picture, dict.fromkeys(picture.places, "zz"))
    for line, column in picture.places.values():
        assert label[line][column] == Cell("z", "accent")
    if nodes <= 64:
        assert set(picture.places) == set(tables["nodes"])


def test_an_alert_has_a_place() -> None:
    store = Store()
    assert alert_place({"subject": "disk", "ref": "/"}, store) == ("6", "alerts")
    assert alert_place({"subject": "certificate", "ref": "node"}, store) == ("8", "certificates")
    assert alert_place({"subject": "gpu", "ref": "GPU-1"}, store) == ("2", "GPU-1")
    assert alert_place({"subject": "node", "ref": "nod_1"}) == ("2", "nod_1")
