"""`:` — a command line inside the console: its own words, and every `cic` command as a child.

Not Textual's own palette: that one breaks under bursts of keys.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, ClassVar, Final

from rich.cells import cell_len
from rich.segment import Segment
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.geometry import Size
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Input

from appliance.wire.stream import Topic
from console.actions import Action
from console.cells import Cell
from console.command_line import Deed, Go, No, Run, Suggestion, meaning, suggestions
from console.lock import ChooseDialog, lock_now
from console.themes import LOOKS, cursor_style, tone_style
from console.widgets.dialogs import Dialog, keep_early
from console.widgets.line import FrameLine, fit
from console.widgets.output import OutputDialog

if TYPE_CHECKING:
    from console.app import ConsoleApp

_LINES: Final = 10
_LINE_CHARS_MAX: Final = 4_096
# Noun of a command, or name of an option -> the table whose names it takes.
_NAMED_BY: Final[dict[str, Topic]] = {
    "node": "nodes",
    "deployment": "deployments",
    "tenant": "tenants",
    "env": "environments",
    "key": "keys",
    "model": "models",
}


class Suggestions(Widget):
    """What the last word may become; one of them may be chosen."""

    DEFAULT_CSS: ClassVar[str] = "Suggestions { height: auto; max-height: 10; }"

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Suggestion] = []
        self.at: int | None = None

    @property
    def chosen(self) -> Suggestion | None:
        return None if self.at is None else self.found[self.at]

    def show(self, found: list[Suggestion]) -> None:
        if found != self.found or self.at is not None:
            self.found, self.at = found, None
            self.refresh(layout=True)

    def move(self, step: int) -> None:
        """To the next one; before the first and behind the last none is chosen."""
        number = len(self.found)
        at = (number if step < 0 else -1) if self.at is None else self.at
        self.at = at + step if 0 <= at + step < number else None
        self.refresh()

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:  # noqa: ARG002 (Textual's signature)
        return min(_LINES, len(self.found))

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        top = 0 if self.at is None else max(0, self.at - self.size.height + 1)
        if top + y >= len(self.found):
            return Strip.blank(width, self.rich_style)
        each = self.found[top + y]
        look = getattr(self.app, "look", "dark")
        base = self.rich_style
        if top + y == self.at:
            base += cursor_style(look)
        column = min(28, max(12, *(cell_len(one.shown) for one in self.found)))
        word = fit(each.shown, width - 3)
        word += " " * (column - cell_len(word))
        what = fit(each.what, max(0, width - cell_len(word) - 4))
        mark = ">" if top + y == self.at else " "
        line = Strip(
            [
                Segment(f"{mark} {word}  ", base),
                Segment(what, base + tone_style(look, "dim")),
            ]
        )
        return line.adjust_cell_length(width, base)


class CommandLine(Dialog):
    """One line at the bottom, and above it what it may become. Escape closes it."""

    DEFAULT_CSS: ClassVar[str] = """
    CommandLine { align: left bottom; background: transparent; }
    CommandLine > Vertical {
        width: 100%; border: none; border-top: solid $primary; padding: 0 1;
    }
    CommandLine Input { width: 100%; }
    """
    BINDINGS: ClassVar[list[Any]] = [
        Binding("escape", "cancel", "Close"),
        Binding("tab", "take", "Take the suggestion", priority=True),
        Binding("up", "move(-1)", show=False, priority=True),
        Binding("down", "move(1)", show=False, priority=True),
    ]

    def __init__(self, line: str = "") -> None:
        super().__init__()
        self._line = line
        self._earlier: int | None = None  # of the remembered lines, which one stands there

    @property
    def console(self) -> ConsoleApp:
        from console.app import ConsoleApp  # noqa: PLC0415 (it imports this module)

        app = self.app
        assert isinstance(app, ConsoleApp)
        return app

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Suggestions()
            yield Input(
                self._line,
                placeholder="nodes, theme light, tenant list …  Tab completes, Up: what was typed",
                max_length=_LINE_CHARS_MAX,
                select_on_focus=False,
            )
            yield FrameLine(name="said")

    def opened(self) -> None:
        self.set_focus(self.query_one(Input))  # now: keys come before a later message
        self._suggest()
        self.run_worker(self._learn(), name="tree", exit_on_error=True)

    async def _learn(self) -> None:
        await self.console.commands.learn()
        self._suggest()

    @on(Input.Changed)
    def _changed(self, event: Input.Changed) -> None:
        event.stop()
        self._suggest()

    def _suggest(self) -> None:
        if self._over or not (self.query("Suggestions") and self.query("Input")):
            return  # it is on its way out
        line = self.query_one(Input).value
        commands = self.console.commands
        found = suggestions(line, commands.tree, self._names(), tuple(LOOKS)) if line else []
        if len(found) == 1 and found[0].line.strip() == line.strip():
            found = []
        self.query_one(Suggestions).show(found)
        self._say("" if commands.tree else "learning the commands…")

    def _names(self) -> dict[str, list[str]]:
        store = self.console.store
        return {
            noun: sorted({str(row.get("name", "")) for row in store.table(topic).values()} - {""})
            for noun, topic in _NAMED_BY.items()
        }

    def _say(self, text: str, *, bad: bool = False) -> None:
        line = next(each for each in self.query(FrameLine) if each.name == "said")
        line.show([Cell(text, "bad" if bad else "dim")])

    def _put(self, text: str) -> None:
        line = self.query_one(Input)
        line.value = text
        line.cursor_position = len(text)

    def action_take(self) -> None:
        if not self.is_mounted:
            return
        found = self.query_one(Suggestions)
        taken = found.chosen or (found.found[0] if found.found else None)
        if taken is not None:
            self._put(taken.line)

    def action_move(self, step: int) -> None:
        """Among the suggestions; in an empty line among what was typed before."""
        if not self.is_mounted:
            return
        found = self.query_one(Suggestions)
        if found.found and self._earlier is None:
            found.move(step)
            return
        lines = self.console.commands.lines
        at = len(lines) if self._earlier is None else self._earlier
        at += step
        if 0 <= at < len(lines):
            self._earlier = at
            self._put(lines[at])
        elif at >= len(lines):
            self._earlier = None
            self._put("")

    async def on_key(self, event: events.Key) -> None:
        if event.is_printable:
            self._earlier = None
        line = self.query_one(Input)
        if event.key == "enter" and self.focused is line:  # see `keep_early`
            event.stop()
            await line.action_submit()
        else:
            keep_early(self, event)

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        chosen = self.query_one(Suggestions).chosen
        if chosen is not None:
            self._put(chosen.line)
            return
        line = event.value.strip()
        app = self.console
        meant = meaning(line, app.commands.tree, read_only=app.read_only or app.role == "viewer")
        if isinstance(meant, No):
            self._say(meant.why, bad=True)
            return
        if isinstance(meant, Deed) and (why := _impossible(meant)):
            self._say(why, bad=True)
            return
        if meant is not None:
            app.commands.remember(line)
        self.close(meant)


def _impossible(deed: Deed) -> str:
    if deed.name == "theme" and deed.argument not in LOOKS:
        return f"A theme is one of {', '.join(LOOKS)}."
    return ""


async def carry_out(app: ConsoleApp, meant: Go | Deed | Run | None) -> None:
    """Do what a line meant."""
    if isinstance(meant, Go):
        await app.go(meant.digit)
        if app.top is not None and meant.part:
            app.top.reveal(meant.part)
    elif isinstance(meant, Deed):
        await _do(app, meant)
    elif isinstance(meant, Run) and meant.asks:
        app.deeds.act(_confirmed(meant))
    elif isinstance(meant, Run):
        app.push_screen(OutputDialog(meant.argv, reads=meant.reads))


async def _do(app: ConsoleApp, deed: Deed) -> None:
    match deed.name:
        case "quit":
            app.action_leave()
        case "help":
            app.action_help()
        case "pause":
            app.action_pause()
        case "theme":
            app.set_look(deed.argument)
        case "lock" if app.lock.ready:
            lock_now(app)
        case "lock":
            app.push_screen(ChooseDialog(), lambda chosen: _chosen(app, chosen))
        case "wizard":
            from console.screens.first_run import FirstRunView  # noqa: PLC0415 (rarely needed)

            await app.go("1")
            await app.open(FirstRunView())


def _chosen(app: ConsoleApp, passphrase: str | None) -> None:
    if passphrase is not None:
        app.lock.choose(passphrase)
        lock_now(app)


def _confirmed(meant: Run) -> Action:
    """What asks "really?" in a terminal is asked here by a dialog, and its `--yes` given then."""
    return Action(
        key="",
        title=" ".join(meant.argv[:2]),
        role="viewer",  # the appliance says who may
        argv=lambda _values: meant.argv,
        danger="typed",
        impact=f"This cannot be taken back: cic {shlex.join(meant.argv)}",
        type_this=meant.asks,
    )
