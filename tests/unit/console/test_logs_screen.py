"""6 Logs: what each of its tables shows, in all states and sizes, and which commands it runs."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance.domain.clock import iso
from appliance.wire.admin import AuditEntry
from appliance.wire.log_lines import LogLevel, LogLine
from console.screens.logs import LogsView
from console.screens.logs_audit import facts_of
from console.screens.logs_words import change_of, differences, log_text, printable
from tests.fakes.console_pilot import NOW, Driven, driven

SIZES = [(80, 24), (160, 48)]
Opened = Callable[..., AbstractAsyncContextManager[Driven]]


def at(minutes: float) -> str:
    return iso(int((NOW - timedelta(minutes=minutes)).timestamp() * 1_000) * 10**6)


def line(seq: int, level: LogLevel, event: str, **told: Any) -> LogLine:
    fields = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in told.items()}
    return LogLine(
        seq=seq, at=at(30 - seq), level=level, logger="appliance.fleet", event=event, fields=fields
    )


LOG = [
    line(1, "info", "ready", endpoint="http://10.0.0.1:8080/v1"),
    line(2, "warning", "node lost", node="gpu-00", silent_s=41),
    line(3, "error", "background task failed", traceback="Traceback:\n  File x\nOSError: no"),
]


def entry(seq: int, action: str, name: str, before: Any, after: Any) -> AuditEntry:
    return AuditEntry(
        seq=seq, at=at(90 - seq), actor="1000:ada" if seq % 2 else "0:root", action=action,
        object_kind="tenant", object_id=f"ten_{name}", object_name=name,
        before=before, after=after, sha256=f"{seq:064x}",
    )  # fmt: skip


AUDIT = [
    entry(1, "create", "acme", None, {"name": "acme", "plan": "team", "limits": {"tpm": None}}),
    entry(
        *(2, "update", "acme"),
        {"name": "acme", "plan": "team", "limits": {"tpm": None}},
        {"name": "acme", "plan": "business", "limits": {"tpm": 200_000}},
    ),
    entry(3, "suspend", "globex", {"state": "active"}, {"state": "suspended"}),
    entry(4, "delete", "globex", {"state": "suspended"}, None),
]


def lines(rows: Any) -> bytes:
    return b"".join(msgspec.json.encode(row) + b"\n" for row in rows)


def prepare(seen: Driven, *, empty: bool = False) -> None:
    answers: dict[str, Any] = seen.site.answers
    answers["/v1/logs"] = b"\n" if empty else lines(LOG)
    answers["/v1/audit"] = b"" if empty else lines(AUDIT)


def top(seen: Driven) -> LogsView:
    assert isinstance(seen.app.top, LogsView)
    return seen.app.top


@pytest.fixture
def console(tmp_path: Path) -> Opened:
    def opened(**how: Any) -> AbstractAsyncContextManager[Driven]:
        return driven(tmp_path / "home", **how)

    return opened


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("state", ["empty", "busy", "failed"])
async def test_each_table_in_each_state(console: Opened, state: str, size: tuple[int, int]) -> None:
    async with console(size=size, condition=state) as seen:
        prepare(seen, empty=state == "empty")
        await seen.press("6")
        for key, name, text in (
            ("l", "log", "Nothing of info" if state == "empty" else "background task failed"),
            ("u", "audit", "Nothing was changed" if state == "empty" else "delete"),
            ("a", "alerts", "fell off the bus" if state == "failed" else "Nothing wants"),
            ("e", "events", "gpu.alert" if state == "failed" and size[0] > 80 else "Events"),
        ):
            await seen.press(key)
            await seen.reads(text)
            await seen.pilot.pause()
            seen.check(f"logs-{name}-{state}")


async def test_the_log_is_followed_and_shown_in_full(console: Opened) -> None:
    async with console() as seen:
        prepare(seen)
        await seen.press("6")
        await seen.reads("background task failed")
        assert len(top(seen).subject()) == 3
        await seen.reads("followed")
        await seen.press("up")
        await seen.reads("End goes on following")
        await seen.press("end", "enter")
        await seen.reads("OSError: no")
        await seen.press("escape", "v")
        await seen.reads("of warning and worse")
        await seen.until(lambda: seen.site.asked.count("/v1/logs") >= 2)


async def test_an_account_that_may_not_read_the_log_is_told_so(console: Opened) -> None:
    async with console(role="viewer") as seen:
        prepare(seen)
        seen.site.faults.status = 403
        await seen.press("6")
        await seen.reads("It cannot be read.")
        await seen.reads("It broke.")


async def test_the_audit_shows_what_a_change_was(console: Opened) -> None:
    async with console() as seen:
        prepare(seen)
        await seen.press("6", "u")
        await seen.reads("delete")
        await seen.press("down", "down")
        await seen.reads("plan: team → business")
        await seen.press("enter")
        await seen.reads("- team")
        await seen.reads("+ business")
        await seen.reads("1 other value stayed")
        await seen.press("escape", "b")
        await seen.until(lambda: len(top(seen).subject()) == 2)
        assert {each["actor"] for each in top(seen).subject()} == {"0:root"}
        await seen.press("b")
        await seen.until(lambda: len(top(seen).subject()) == 4)
        await seen.press("o")
        await seen.until(lambda: len(top(seen).subject()) == 2)
        verify = top(seen).actions()[0]
        assert (verify.key, tuple(verify.argv({}))) == ("V", ("audit", "verify"))


async def test_only_what_is_new_is_read_again(console: Opened) -> None:
    async with console() as seen:
        prepare(seen)
        await seen.press("6", "u")
        await seen.reads("Audit 4")
        seen.site.answers["/v1/audit"] = lines([entry(5, "create", "initech", None, {"a": 1})])
        await seen.press("r")
        await seen.reads("Audit 5")


async def test_alerts_are_acknowledged_by_a_command_and_lead_to_their_subject(
    console: Opened,
) -> None:
    async with console(condition="failed") as seen:
        prepare(seen)
        await seen.press("1")
        await seen.press("exclamation_mark")
        await seen.reads("[a Alerts 2]")
        view = top(seen)
        (acknowledge,) = view.actions()
        assert acknowledge.role == "operator"
        assert tuple(acknowledge.argv({}))[:2] == ("alert", "acknowledge")
        assert tuple(acknowledge.argv({}))[2].startswith("gpu:")  # the worst is under the cursor
        await seen.reads("cic node drain gpu-01")
        await seen.press("down", "enter")
        await seen.until(lambda: not isinstance(seen.app.top, LogsView))


async def test_a_viewer_acknowledges_nothing(console: Opened) -> None:
    async with console(condition="failed", role="viewer") as seen:
        await seen.until(lambda: seen.app.me is not None)
        await seen.press("exclamation_mark")
        await seen.reads("a Alerts 2")
        assert "Acknowledge" not in seen.picture()
        await seen.press("A")
        await seen.reads("needs the role operator")


async def test_arrows_turn_to_the_next_table(console: Opened) -> None:
    async with console() as seen:
        prepare(seen)
        await seen.press("6", "right")
        await seen.reads("[u Audit]")
        await seen.press("left", "left")
        await seen.reads("[e Events]")


def test_differences_name_each_value_that_is_another() -> None:
    before, after = {"a": 1, "b": {"c": [1], "d": "x"}}, {"a": 1, "b": {"c": [2]}, "e": None}
    assert list(differences(before, after)) == [
        ("b.c", "[1]", "[2]"),
        ("b.d", "x", ""),
        ("e", "", "null"),
    ]
    assert list(differences(None, {"a": 1})) == [("a", "", "1")]
    assert list(differences(None, None)) == []


def test_an_entry_is_told_in_signs_as_well_as_colours() -> None:
    assert [value for _, value, _ in facts_of(AUDIT[2])] == ["- active", "+ suspended"]
    assert change_of(AUDIT[3]) == "It is no more; 1 value of it was known."
    assert facts_of(entry(9, "refuse", "x", None, None))[0][1] == "Nothing is told with it."


def test_what_was_logged_does_not_command_the_terminal() -> None:
    assert printable("a\x1b[2Jb\nc") == "a [2Jb c"
    assert "\x1b" not in log_text(line(1, "info", "\x1b]52;c;x", name="\x1bc"))
