"""Reserved capacity on the screen, and what can be done about it."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance.commands.reservations import reservation
from appliance.wire.reservations import AttainedMinute, Capacity, Reservation
from console.actions import Action
from console.screens.reservation_actions import of_reservation, reserve
from tests.fakes.console_pilot import Driven, driven

SIZES = [(80, 24), (160, 48)]
Opened = Callable[..., AbstractAsyncContextManager[Driven]]


@pytest.fixture
def console(tmp_path: Path) -> Opened:
    def opened(**how: Any) -> AbstractAsyncContextManager[Driven]:
        return driven(tmp_path / "home", mode="4", **how)

    return opened


def minute(delivered: int) -> AttainedMinute:
    return AttainedMinute(
        at="2026-11-23T19:21:00Z",
        promised=2_400,
        offered=3_000,
        delivered=delivered,
        attained_percent=round(100 * min(delivered / 2_400, 1), 1),
    )


def row(number: int, **fields: Any) -> Reservation:
    made = Reservation(
        id=f"rsv_{number:024d}",
        tenant="acme",
        environment=None,
        model="llama-3-70b",
        tokens_per_s=40,
        priority=0,
        state="active",
        starts_at="2026-11-20T00:00:00Z",
        ends_at=None,
        created_at="2026-11-20T00:00:00Z",
        ended_at=None,
        slipping=False,
        waiting=0,
        attained=minute(2_400),
    )
    return msgspec.structs.replace(made, **fields)


ROWS = (
    row(1),
    row(2, tenant="hospital-north", environment="prod", slipping=True, waiting=17,
        attained=minute(1_200), ends_at="2026-12-31T00:00:00Z"),
    row(3, tenant="later", state="scheduled", attained=None, starts_at="2027-01-01T00:00:00Z"),
)  # fmt: skip
ROOM = Capacity(
    model="llama-3-70b", measured_tokens_per_s=180, headroom_percent=20,
    promisable_tokens_per_s=144, promised_tokens_per_s=80, free_tokens_per_s=64,
)  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
async def test_promises_and_how_they_are_kept(console: Opened, size: tuple[int, int]) -> None:
    async with console(size=size) as seen:
        seen.site.answers["/v1/reservations"] = msgspec.to_builtins(ROWS)
        seen.site.answers["/v1/capacity"] = msgspec.to_builtins([ROOM])
        await seen.press("v")
        await seen.reads("✖ slipping")
        await seen.reads("○ scheduled")
        await seen.reads("E Edit")
        seen.check("reservations")
        shown = msgspec.structs.replace(ROWS[0], minutes=(minute(2_400), minute(1_200)))
        seen.site.answers[f"/v1/reservations/{ROWS[0].id}"] = msgspec.to_builtins(shown)
        await seen.press("enter")
        await seen.reads("acme: 40 tokens/s of llama-3-70b, active")
        await seen.reads("19:21")


async def test_nothing_reserved_says_what_to_do(console: Opened) -> None:
    async with console(condition="empty") as seen:
        seen.site.answers["/v1/reservations"] = []
        seen.site.answers["/v1/capacity"] = []
        await seen.press("v")
        await seen.reads("N reserves tokens a second")
        await seen.reads("Nothing is deployed.")


def taken(argv: Any) -> dict[str, Any]:
    """What `cic` understands; it refuses a line that is none."""
    group, verb, *rest = argv
    assert group == "reservation"
    return reservation.commands[verb].make_context(verb, list(rest)).params


def filled(action: Action, **values: str) -> dict[str, str]:
    return {field.name: field.default for field in action.fields} | values


def test_reserving_says_all_that_was_answered() -> None:
    action = reserve("acme", ["llama"])
    values = filled(action, rate="40", env="prod", until="2026-12-31", priority="7")
    told = taken(action.argv(values))
    assert (told["tenant"], told["model"], told["tokens_per_s"]) == ("acme", "llama", 40)
    assert (told["environment"], told["priority"]) == ("prod", 7)
    assert told["ends_at"].startswith("2026-12-31")
    asked = reserve()
    assert taken(asked.argv(filled(asked, tenant="x", model="m", rate="1")))["tenant"] == "x"


def test_an_edit_says_what_was_changed_and_no_more() -> None:
    edit, end = of_reservation(msgspec.to_builtins(ROWS[1]))
    told = taken(edit.argv(filled(edit, **{"tokens-per-s": "50", "until": "never"})))
    assert (told["tokens_per_s"], told["ends_at"], told["priority"]) == (50, "never", None)
    assert taken(end.argv({})) == {"ref": ROWS[1].id}
    assert end.danger == "confirm"
    assert "hospital-north/prod loses its promise of 40 tokens/s" in end.impact
