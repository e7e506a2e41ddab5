"""Actions through their dialogs, carried out by real commands against a real admin server."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static

from appliance.wire.access import Me
from console.actions import Action, Field, plain
from console.app import ConsoleApp
from console.children import Outcome
from console.modes import Mode
from console.profile import Profile
from console.view import View
from console.widgets.dialogs import ActionDialog, ProgressDialog, SecretDialog, TextDialog
from tests.fakes.admin_site import AdminSite, make_home, served

NEW = Action(
    key="N",
    title="New tenant",
    role="admin",
    argv=lambda values: ["tenant", "create", values["name"], "--plan", values["plan"]],
    fields=(
        Field("name", "Name", required=True),
        Field("plan", "Plan", "choice", ("free", "business"), default="free"),
    ),
    done="The tenant is there.",
)
DELETE = Action(
    key="X",
    title="Delete",
    role="admin",
    argv=plain("tenant", "delete", "acme", "--yes"),
    danger="typed",
    type_this="acme",
    impact="Deletes acme.",
)
SUSPEND = Action(
    key="D",
    title="Suspend",
    role="operator",
    argv=plain("tenant", "suspend", "acme"),
    danger="confirm",
    impact="Its keys stop.",
)
KEY = Action(
    key="R",
    title="New key",
    role="admin",
    argv=plain("key", "create", "--tenant", "acme", "--env", "prod", "--name", "web"),
    shown_once="key",
    danger="confirm",
)
SLOW = Action(
    key="V",
    title="Verify",
    role="operator",
    argv=plain("ledger", "verify"),
    slow=True,
    done="It holds.",
)


class ActionsView(View):
    """A view that offers what a test says."""

    def actions(self) -> Sequence[Action]:
        return (NEW, DELETE, SUSPEND, KEY, SLOW)


@dataclass
class Bench:
    app: ConsoleApp
    pilot: Pilot[int]
    site: AdminSite

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def until(self, seen: Any, why: str = "it") -> None:
        for _ in range(600):
            if seen():
                return
            await self.pilot.pause(0.02)
        raise AssertionError(f"{why} was not seen on {self.app.screen}: {self.said()!r}")

    def said(self) -> str:
        found = self.app.screen.query("#problem")
        return str(found.first(Static).render()) if found else ""

    async def dialog(self, kind: type) -> None:
        await self.until(lambda: isinstance(self.app.screen, kind), kind.__name__)

    async def gone(self) -> None:
        await self.until(lambda: len(self.app.screen_stack) == 1, "the end of the dialog")

    async def names(self) -> list[str]:
        return [
            row["name"] for row in await self.app.admin.get("/v1/tenants", list[dict[str, Any]])
        ]


@asynccontextmanager
async def bench(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    home = make_home(folder)
    monkeypatch.setattr(Mode, "make", lambda _self: ActionsView())
    with served(folder) as site:
        profile = Profile(dumb=False, ascii=False, colours="truecolor", mouse=False, refresh_s=1.0)
        app = ConsoleApp(home, profile)
        async with app.run_test(size=(80, 24)) as pilot:
            seen = Bench(app, pilot, site)
            app.me = await app.admin.get("/v1/me", Me)
            yield seen


async def test_a_form_makes_one_tenant_however_often_enter_is_pressed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench(tmp_path, monkeypatch) as seen:
        await seen.press("N")
        await seen.dialog(ActionDialog)
        await seen.press(*"acme", "enter", "right", "tab", "tab")
        await seen.press("enter", "enter", "enter", "enter", "escape")
        await seen.gone()
        assert await seen.names() == ["acme"]
        found = await seen.app.admin.get("/v1/tenants", list[dict[str, Any]])
        assert found[0]["plan"] == "business"


async def test_a_refusal_stands_in_the_dialog_and_nothing_typed_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench(tmp_path, monkeypatch) as seen:
        await seen.app.deeds.children.act(("tenant", "create", "acme"), key="before")
        await seen.press("N")
        await seen.dialog(ActionDialog)
        await seen.press(*"acme", "enter", "tab", "tab", "enter")
        await seen.until(lambda: "acme" in seen.said(), "the refusal")
        line = seen.app.screen.query_one("#field-name", Input)
        assert line.value == "acme"
        line.focus()
        await seen.press("2", "enter", "tab", "tab", "enter")
        await seen.gone()
        assert sorted(await seen.names()) == ["acme", "acme2"]


async def test_a_form_without_what_is_needed_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench(tmp_path, monkeypatch) as seen:
        await seen.press("N")
        await seen.dialog(ActionDialog)
        await seen.press("tab", "tab", "tab", "enter")
        await seen.until(lambda: "Name is needed" in seen.said())
        await seen.press("escape")
        await seen.gone()
        assert await seen.names() == []


async def test_what_is_lost_for_ever_is_typed_and_cancel_has_the_keyboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench(tmp_path, monkeypatch) as seen:
        await seen.app.deeds.children.act(("tenant", "create", "acme"), key="before")
        await seen.press("X")
        await seen.dialog(ActionDialog)
        await seen.press(*"acm", "enter", "enter")
        await seen.until(lambda: "That is not acme" in seen.said())
        seen.app.screen.query_one("#typed", Input).focus()
        await seen.press("e", "enter", "enter")
        await seen.gone()
        assert await seen.names() == []


async def test_a_confirmation_is_cancelled_by_enter_and_done_by_y(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def state() -> str:
        rows = await seen.app.admin.get("/v1/tenants", list[dict[str, Any]])
        return str(rows[0]["state"])

    async with bench(tmp_path, monkeypatch) as seen:
        await seen.app.deeds.children.act(("tenant", "create", "acme"), key="before")
        await seen.press("D")
        await seen.dialog(ActionDialog)
        await seen.press("enter")
        await seen.gone()
        assert await state() == "active"
        await seen.press("D")
        await seen.dialog(ActionDialog)
        await seen.press("y", "y", "y")
        await seen.gone()
        assert await state() == "suspended"


async def test_a_secret_is_shown_once_and_no_stray_key_closes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench(tmp_path, monkeypatch) as seen:
        for line in (("tenant", "create", "acme"), ("env", "create", "prod", "--tenant", "acme")):
            assert (await seen.app.deeds.children.act(line, key="-".join(line))).ok
        await seen.press("R")
        await seen.dialog(ActionDialog)
        await seen.press("y")
        await seen.dialog(SecretDialog)
        secret = str(seen.app.screen.query_one("#secret", Static).render())
        assert secret.startswith("clsk_")
        await seen.press("escape", "q", "x")
        assert isinstance(seen.app.screen, SecretDialog)
        await seen.press("y")
        assert seen.app.clipboard == secret
        await seen.press("enter")
        await seen.gone()


async def test_a_slow_action_goes_on_behind_escape_and_is_listed_with_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench(tmp_path, monkeypatch) as seen:
        children, go_on = seen.app.deeds.children, asyncio.Event()
        act = children.act

        async def held(*arguments: Any, **options: Any) -> Outcome:
            options["on_line"]("reading the ledger")
            await go_on.wait()
            return await act(*arguments, **options)

        monkeypatch.setattr(children, "act", held)
        await seen.press("V")
        await seen.dialog(ProgressDialog)
        await seen.until(lambda: "reading" in str(seen.app.screen.query_one("#lines").render()))
        assert seen.app.tasks.running == 1
        await seen.press("escape", "escape")
        await seen.gone()
        assert seen.app.tasks.running == 1
        go_on.set()
        await seen.until(lambda: seen.app.tasks.running == 0, "its end")
        task = seen.app.tasks.all[0]
        assert (task.title, task.state) == ("Verify", "done")
        assert task.twin.endswith("ledger verify")


async def test_an_action_beyond_the_role_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nobody_asks(_self: ConsoleApp) -> None:
        """The test says who sits there."""

    monkeypatch.setattr(ConsoleApp, "_ask_who", nobody_asks)
    async with bench(tmp_path, monkeypatch) as seen:
        assert seen.app.me is not None
        seen.app.me = msgspec.structs.replace(seen.app.me, role="operator")
        await seen.press("N", "X")
        assert len(seen.app.screen_stack) == 1
        await seen.press("D")
        await seen.dialog(ActionDialog)
        await seen.press("escape")
        await seen.gone()
        seen.app.read_only = True
        await seen.press("D", "V")
        assert len(seen.app.screen_stack) == 1
        assert seen.app.tasks.all == ()


async def test_an_error_of_an_action_without_a_form_is_read_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench(tmp_path, monkeypatch) as seen:
        bare = replace(SUSPEND, danger="none", argv=plain("tenant", "suspend", "nobody"))
        seen.app.deeds.act(bare)
        await seen.dialog(TextDialog)
        assert "nobody" in seen.app.screen._text  # type: ignore[attr-defined]  # a TextDialog
        await seen.press("q")
        await seen.gone()
