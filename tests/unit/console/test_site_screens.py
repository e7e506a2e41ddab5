"""Fleet, tenants and usage on the screen, in all states and sizes; what a viewer may do there."""

import string
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.console_pilot import Driven, driven

SIZES = [(80, 24), (160, 48)]
Opened = Callable[..., AbstractAsyncContextManager[Driven]]


@dataclass(frozen=True)
class Screen:
    """Reached by `keys` in a mode; it is there when it reads a text."""

    name: str
    mode: str
    reads: str
    keys: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ("busy", "failed")
    empty: str = ""  # what it reads of an empty site


SCREENS = (
    Screen("fleet", "2", "gpu-03", empty="No nodes yet"),
    Screen("node", "2", "Health", ("enter",)),
    Screen("gpu", "2", "Its last hour", ("enter", "enter")),
    Screen("gpus", "2", "GPUs 32", ("a",)),
    Screen("joining", "2", "used", ("t",)),
    Screen("regions", "2", "hall-b", ("r",), conditions=("busy",)),
    Screen("bursts", "2", "H100", ("b",)),
    Screen("tenants", "4", "acme", empty="No tenants yet"),
    Screen("tenant", "4", "TOKENS/24 h", ("enter",), conditions=("busy",)),
    Screen("usage", "5", "TOKENS OUT", empty="entitlement"),
    Screen("manifests", "5", "Manifests 40", ("m",)),
    Screen("manifest", "5", "Lines 3", ("m", "enter"), conditions=("busy",)),
    Screen("records", "5", "Records, 800", ("l",), conditions=("busy",)),
)
CASES = [
    pytest.param(screen, condition, id=f"{screen.name}-{condition}")
    for screen in SCREENS
    for condition in (*screen.conditions, *(["empty"] if screen.empty else []))
]


@pytest.fixture
def console(tmp_path: Path) -> Opened:
    def opened(mode: str, **how: Any) -> AbstractAsyncContextManager[Driven]:
        return driven(tmp_path / "home", mode=mode, **how)

    return opened


async def reach(seen: Driven, screen: Screen, reads: str) -> None:
    await seen.reads("live 1s")
    for key in screen.keys:
        await seen.press(key)
        await seen.pilot.pause(0.3)
    await seen.reads(reads)
    await seen.pilot.pause(0.3)  # what it reads beside the stream


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("screen", "condition"), CASES)
async def test_screens_in_every_state(
    console: Opened, screen: Screen, condition: str, size: tuple[int, int]
) -> None:
    async with console(screen.mode, size=size, condition=condition) as seen:
        await reach(seen, screen, screen.empty if condition == "empty" else screen.reads)
        seen.check(f"{screen.name}-{condition}")


@pytest.mark.parametrize("screen", SCREENS, ids=lambda screen: screen.name)
async def test_a_viewer_can_begin_nothing_by_any_key(
    console: Opened, screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with console(screen.mode, role="viewer") as seen:
        started: list[Any] = []

        async def no_child(*arguments: Any, **_: Any) -> None:
            started.append(arguments)

        monkeypatch.setattr(seen.app.deeds.children, "_run", no_child)
        await reach(seen, screen, screen.reads)
        assert seen.app.top is not None
        looks = {each.key for each in seen.app.top.actions() if each.role == "viewer"}
        for key in sorted(set(string.ascii_uppercase) - looks):
            await seen.press(key)
            assert len(seen.app.screen_stack) == 1, f"{key} opened something"
        assert started == []
