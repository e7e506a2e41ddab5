"""Every fault point names a function that is there, and kills where it says."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conservation import launcher
from tests.integration.conservation.launcher import Armed, place, wrapped
from tests.integration.conservation.points import CONTROL, POINTS, SITE, Point, names


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.name)
def test_a_point_is_a_function_of_the_product(point: Point) -> None:
    _, _, found = place(point)
    assert callable(getattr(found, "__func__", found))


def test_points_are_named_once() -> None:
    told = [*names(SITE), *names(CONTROL)]
    assert len(set(told)) == len(told) == 2 * len(POINTS)
    assert max(len(name.encode()) for name in told) < launcher.ARMED_BYTES - 1


def test_a_point_kills_at_its_hit_and_only_while_it_is_armed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    died: list[int] = []
    monkeypatch.setattr(os, "kill", lambda _pid, number: died.append(number))
    armed = Armed(tmp_path / "armed")
    done: list[Any] = []
    function = wrapped(done.append, "a point", armed)
    function(1)
    armed.arm("a point after", 2)
    function(2)
    assert died == []
    function(3)
    assert died == [9]
    assert done == [1, 2, 3]
    armed.arm("a point before", 1)
    armed.disarm()
    function(4)
    assert died == [9]


def test_a_point_of_a_coroutine_kills_before_and_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[object] = []
    monkeypatch.setattr(os, "kill", lambda _pid, number: log.append(number))
    armed = Armed(tmp_path / "armed")

    async def work() -> None:
        log.append("work")

    function = wrapped(work, "late", armed)
    armed.arm("late before", 1)
    asyncio.run(function())
    armed.arm("late after", 1)
    asyncio.run(function())
    assert log == [9, "work", "work", 9]
