"""Carrying out actions: ask, run the command line, show what came of it."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from console.actions import Action, Values, permitted
from console.children import Children, Outcome
from console.tasks import Task, Tasks
from console.widgets.dialogs import ActionDialog, ProgressDialog, SecretDialog, TextDialog

if TYPE_CHECKING:
    from console.app import ConsoleApp
    from console.view import View


class Deeds:
    """Of one console. Each dialog has an idempotency key: sent twice, done once."""

    def __init__(self, app: ConsoleApp, children: Children, tasks: Tasks) -> None:
        self._app = app
        self.children = children
        self._tasks = tasks

    def begin(self, view: View, key: str) -> bool:
        """Start the action of a key on what is selected in a view. Whether there is one."""
        found = [action for action in view.actions() if action.key == key]
        if not found:
            return False
        allowed = permitted(found, self._app.role)
        if allowed:
            self.act(allowed[0])
            return True
        me = self._app.me
        why = me.read_only_reason if me else ""
        message = f"{found[0].title} needs the role {found[0].role}. {why}"
        self._app.notify(message.strip(), severity="error")
        return True

    def act(self, action: Action, *, problem: str = "") -> None:
        """Ask what is to be asked, then run the command line."""
        key = secrets.token_hex(16)
        if not action.fields and action.danger == "none":
            if action.slow:
                self._begin_slow(action, {}, key)
            else:
                self._app.notify(f"{action.title}: pending…", timeout=2)
                self._app.run_worker(
                    self._act_at_once(action, key), group="act", exit_on_error=True
                )
            return
        carry_out = self._carrier(action, key)
        dialog = ActionDialog(action, self.children.twin, carry_out, problem)
        self._app.push_screen(dialog, lambda outcome: self._ended(action, outcome))

    def _carrier(self, action: Action, key: str) -> Callable[[Values], Awaitable[Outcome]]:
        async def carry_out(values: Values) -> Outcome:
            if action.slow:
                # The dialog closes; what comes of it is shown by its own.
                self._begin_slow(action, values, key)
                return Outcome((), 0)
            return await self._run(action, values, key, lambda _line: None)

        return carry_out

    async def _run(
        self, action: Action, values: Values, key: str, on_line: Callable[[str], None]
    ) -> Outcome:
        stdin = values.get(action.stdin, "") if action.stdin else ""
        argv = action.argv(values)
        return await self.children.act(argv, key=key, stdin=stdin, on_line=on_line)

    async def _act_at_once(self, action: Action, key: str) -> None:
        self._ended(action, await self._run(action, {}, key, lambda _line: None))

    def _ended(self, action: Action, outcome: Outcome | None) -> None:
        if outcome is None or (action.slow and not outcome.argv):
            return
        if not outcome.ok:
            self._app.push_screen(TextDialog(f"{action.title}: not done", outcome.sentence))
        elif action.shown_once and isinstance(outcome.answer, dict):
            answer = dict(outcome.answer)
            secret = str(answer.pop(action.shown_once, ""))
            rest = [(name, str(value)) for name, value in answer.items() if _is_plain(value)]
            self._app.push_screen(SecretDialog(action.title, secret, rest[:8]))
        else:
            self._app.notify(action.done or f"{action.title}: done")
            for warning in _warnings(outcome):
                self._app.notify(warning, severity="warning", timeout=10)
        top = self._app.top
        if top is not None and outcome.ok:
            top.shown()

    def _begin_slow(self, action: Action, values: Values, key: str) -> None:
        twin = self.children.twin(action.argv(values))
        task = self._tasks.begin(action.title, twin, self._app.now())
        dialog = ProgressDialog(action.title)
        self._app.push_screen(dialog)
        work = self._slow(action, values, key, task, dialog)
        self._app.run_worker(work, group=f"task-{id(task)}", exit_on_error=True)

    async def _slow(
        self, action: Action, values: Values, key: str, task: Task, dialog: ProgressDialog
    ) -> None:
        def tell(line: str) -> None:
            task.tell(line)
            dialog.tell(line)

        outcome = await self._run(action, values, key, tell)
        task.outcome, task.ended_at = outcome, self._app.now()
        looked_at = dialog in self._app.screen_stack
        dialog.close()
        self._app.refresh_footer()
        if outcome.ok or not looked_at:
            self._ended(action, outcome)
            return
        again = _filled(action, values)
        if again.fields:
            self.act(again, problem=outcome.sentence)
        else:
            self._ended(action, outcome)


def _warnings(outcome: Outcome) -> list[str]:
    """What a command says of a change that it made: nobody sees its other output."""
    told = outcome.answer.get("warnings") if isinstance(outcome.answer, dict) else None
    return [str(each) for each in told] if isinstance(told, list) else []


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float) and value != ""


def _filled(action: Action, values: Values) -> Action:
    """The same action with its form as it was sent, but for secrets."""
    fields = tuple(
        field if field.kind == "secret" else replace(field, default=values.get(field.name, ""))
        for field in action.fields
    )
    return replace(action, fields=fields)
