"""Dialogs: what will be done is stated, Cancel has the keyboard, and nothing typed is lost."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar

from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Input, Static

from console.actions import Action, Values, answered
from console.children import Outcome
from console.widgets.form import Choice, Press, value_of, widget_of


class Dialog(ModalScreen[Any]):
    """A box over the screen that closes once, whatever arrives how often."""

    DEFAULT_CSS: ClassVar[str] = """
    Dialog { align: center middle; }
    Dialog > Vertical {
        width: 76; max-width: 100%; height: auto; max-height: 100%; overflow-y: auto;
        border: solid $primary; padding: 0 1; background: $surface;
    }
    Dialog .title { text-style: bold; }
    Dialog .gap { height: 1; }
    Dialog .field { height: auto; }
    Dialog .label { width: 22; height: 1; }
    Dialog Input { border: none; height: 1; padding: 0; width: 1fr; background: $panel; }
    Dialog Input:focus { border: none; }
    Dialog .twin { text-style: dim; }
    Dialog .problem { color: $error; text-style: bold; }
    Dialog .buttons { height: 1; margin: 1 0 0 0; }
    Dialog VerticalScroll { height: auto; max-height: 42vh; }
    """
    BINDINGS: ClassVar[list[Any]] = [
        Binding("escape", "cancel", "Cancel"),
        Binding("down", "app.focus_next", show=False),
        Binding("up", "app.focus_previous", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._over = False

    def on_mount(self) -> None:
        if not self._over:  # by a key right behind the one that opened it: it has nothing yet
            self.opened()

    def opened(self) -> None:
        """All of it is there: the place to say what has the keyboard."""

    def close(self, result: Any = None) -> None:
        if not self._over:
            self._over = True
            self.dismiss(result)

    def action_cancel(self) -> None:
        self.close()


def keep_early(dialog: ModalScreen[Any], event: events.Key) -> None:
    """A letter that was typed right behind the key that opened a dialog, before its line had the
    keyboard, comes to the dialog itself: it belongs into the line."""
    line = dialog.focused
    if isinstance(line, Input) and event.is_printable and event.character:
        event.stop()
        line.insert_text_at_cursor(event.character)


class ActionDialog(Dialog):
    """A form, a confirmation, or both. `carry_out` runs the command; it stays open until that
    succeeded, so an error is read beside what was typed. Its result is the Outcome, None if not."""

    BINDINGS: ClassVar[list[Any]] = [
        # Before what scrolls the form: the other answers are as they shall be.
        Binding("pagedown", "to_go", "To the buttons", show=False, priority=True),
    ]

    def __init__(
        self,
        action: Action,
        twin: Callable[[Sequence[str]], str],
        carry_out: Callable[[Values], Awaitable[Outcome]],
        problem: str = "",
    ) -> None:
        super().__init__()
        self.action = action
        self._problem = problem
        self._twin = twin
        self._carry_out = carry_out
        self._pending = False
        self._typed = Input(name="typed", id="typed", select_on_focus=False)

    def compose(self) -> ComposeResult:
        action = self.action
        with Vertical():
            yield Static(Text(action.title), classes="title")
            if action.impact:
                yield Static(Text(action.impact))
            yield Static("", classes="gap")
            with VerticalScroll(can_focus=False):
                for field in action.fields:
                    with Horizontal(classes="field"):
                        star = " *" if field.required else ""
                        yield Static(Text(field.label + star), classes="label")
                        yield widget_of(field)
                    if field.hint:
                        yield Static(Text(" " * 22 + field.hint), classes="twin")
            if action.danger == "typed":
                yield Static(Text(f"Type {action.type_this} to go on:"))
                yield self._typed
            yield Static("", classes="gap")
            yield Static("", id="twin", classes="twin")
            yield Static(Text(self._problem), id="problem", classes="problem")
            with Horizontal(classes="buttons"):
                yield Press("Cancel", name="cancel")
                yield Press(self._verb, name="go")
                if len(action.fields) > 1:
                    yield Static(Text("PgDn comes here"), classes="twin")

    @property
    def _verb(self) -> str:
        return "y  " + self.action.title if self.action.danger == "confirm" else self.action.title

    def opened(self) -> None:
        self._show_twin()
        questions = [self._question(field.name) for field in self.action.fields]
        if questions:
            self.set_focus(questions[0])
        elif self.action.danger == "typed":
            self.set_focus(self._typed)
        else:
            self.set_focus(self._press("cancel"))

    def values(self) -> dict[str, str]:
        return {field.name: value_of(self._question(field.name)) for field in self.action.fields}

    def _question(self, name: str) -> Widget:
        return self.query_one(f"#field-{name}", Widget)

    def _press(self, name: str) -> Press:
        return next(press for press in self.query(Press) if press.name == name)

    @on(Choice.Changed)
    @on(Input.Changed)
    def _show_twin(self) -> None:
        try:
            line = self._twin(self.action.argv(self.values()))
        except ValueError as error:  # what is typed so far makes no command yet
            line = str(error)
        self.query_one("#twin", Static).update(Text(line))

    @on(Input.Submitted)
    def _next(self, event: Input.Submitted) -> None:
        event.stop()
        self.focus_next()
        if isinstance(self.focused, Press) and self.focused.name == "cancel":
            self.focus_next()

    def action_to_go(self) -> None:
        self.set_focus(self._press("go"))

    def on_key(self, event: events.Key) -> None:
        wanted = self.action.danger == "confirm" and not isinstance(self.focused, Input)
        if wanted and event.character in ("y", "Y"):
            event.stop()
            self._go()
        else:
            keep_early(self, event)

    @on(Press.Pressed)
    def _pressed(self, event: Press.Pressed) -> None:
        event.stop()
        if event.press.name == "go":
            self._go()
        else:
            self.action_cancel()

    def _go(self) -> None:
        if self._pending or self._over:
            return
        values = self.values()
        problem = answered(self.action.fields, values)
        named = self._typed.value.strip() == self.action.type_this
        if not problem and self.action.danger == "typed" and not named:
            problem = f"That is not {self.action.type_this}."
        if not problem:
            try:
                self.action.argv(values)
            except ValueError as error:  # what was answered makes no command
                problem = str(error)
        if problem:
            self._say(problem)
            return
        self._pending = True
        self._say("pending…")
        self.run_worker(self._run(values), name="action", exclusive=True)

    async def _run(self, values: Values) -> None:
        try:
            outcome = await self._carry_out(values)
        finally:
            self._pending = False
        if outcome.ok:
            self.close(outcome)
        else:
            self._say(outcome.sentence)

    def _say(self, text: str) -> None:
        self.query_one("#problem", Static).update(Text(text))

    def action_cancel(self) -> None:
        """What the appliance was asked already it will do: closing would only hide how it ended."""
        if not self._pending:
            self.close()


class SecretDialog(Dialog):
    """Shows a secret this once. It is closed by its button, so that no stray key loses it."""

    BINDINGS: ClassVar[list[Any]] = [Binding("y", "copy", "Copy")]

    def __init__(self, title: str, secret: str, rest: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._title = title
        self._secret = secret
        self._rest = rest

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(Text(self._title), classes="title")
            yield Static("", classes="gap")
            yield Static(Text(self._secret), id="secret")
            yield Static("", classes="gap")
            for label, value in self._rest:
                yield Static(Text(f"{label:<20} {value}"))
            yield Static(Text("It is shown this once and kept nowhere. y copies it."))
            with Horizontal(classes="buttons"):
                yield Press("I have kept it", name="close")

    def opened(self) -> None:
        self.query_one(Press).focus()

    def action_copy(self) -> None:
        self.app.copy_to_clipboard(self._secret)
        self.notify("Copied, where the terminal allows it.")

    def action_cancel(self) -> None:
        """Not by Escape."""

    @on(Press.Pressed)
    def _pressed(self, event: Press.Pressed) -> None:
        event.stop()
        self.close()


class TextDialog(Dialog):
    """A text to read: help, an answer, an error in full."""

    DEFAULT_CSS: ClassVar[str] = """
    TextDialog VerticalScroll { max-height: 100%; height: auto; }
    """
    BINDINGS: ClassVar[list[Any]] = [
        Binding("q", "cancel", show=False),
        Binding("question_mark", "cancel", show=False),
        Binding("y", "copy", "Copy"),
    ]

    def __init__(self, title: str, text: str) -> None:
        super().__init__()
        self._title = title
        self._text = text

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(Text(self._title), classes="title")
            yield Static("", classes="gap")
            with VerticalScroll() as scroll:
                scroll.can_focus = True
                yield Static(Text(self._text))
            yield Static(Text("Esc closes · arrows scroll · y copies"), classes="twin")

    def opened(self) -> None:
        self.query_one(VerticalScroll).focus()

    def action_copy(self) -> None:
        self.app.copy_to_clipboard(self._text)
        self.notify("Copied, where the terminal allows it.")


class ProgressDialog(Dialog):
    """The messages of a command that takes long. Escape leaves it working in the background."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title
        self._lines: list[str] = []

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(Text(self._title), classes="title")
            yield Static("", id="lines")
            yield Static(Text("pending… Esc leaves it working; Ops lists it."), classes="twin")

    def on_mount(self) -> None:
        self._show_lines()

    def tell(self, line: str) -> None:
        self._lines = [*self._lines, line][-10:]
        self._show_lines()

    def _show_lines(self) -> None:
        for lines in self.query("#lines").results(Static):
            lines.update(Text("\n".join(self._lines)))
