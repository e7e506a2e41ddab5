"""What a command writes, as it writes it, and how it ended."""

from __future__ import annotations

import asyncio
import re
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.widgets import Static
from textual.worker import Worker

from console.cells import Cell
from console.children import Outcome
from console.widgets.dialogs import Dialog
from console.widgets.line import FrameLine
from console.widgets.log_text import LogText

if TYPE_CHECKING:
    from console.app import ConsoleApp

_LINES_MAX: Final = 20_000
_COLUMNS: Final = re.compile(r"\S  +\S")
_PAINT_S: Final = 0.1  # lines that come faster are shown together


class OutputDialog(Dialog):
    """Runs a command as it was typed. Closed while it runs, one that only reads is ended; one that
    may change the site goes on in the background, and the list of tasks has it."""

    DEFAULT_CSS: ClassVar[str] = """
    OutputDialog > Vertical { width: 100%; height: 100%; padding: 0; }
    OutputDialog Log { height: 1fr; background: $surface; scrollbar-size-vertical: 1;
                       scrollbar-size-horizontal: 1; }
    """
    BINDINGS: ClassVar[list[Any]] = [
        Binding("q", "cancel", show=False),
        Binding("y", "copy", "Copy"),
        Binding("ctrl+c", "end", "End it"),
        Binding("colon", "again", "Another command"),
    ]

    def __init__(self, argv: Sequence[str], *, reads: bool) -> None:
        super().__init__()
        self._argv = tuple(argv)
        self._reads = reads
        self._waiting: list[str] = []
        self._exit_code: int | None = None
        self._work: Worker[None] | None = None
        self._log = LogText(max_lines=_LINES_MAX)
        self._foot = FrameLine(name="foot")

    @property
    def console(self) -> ConsoleApp:
        from console.app import ConsoleApp  # noqa: PLC0415 (it imports this module)

        app = self.app
        assert isinstance(app, ConsoleApp)
        return app

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._exit_code

    @property
    def lines(self) -> Sequence[str]:
        return tuple(self._log.lines)

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(Text(self.console.deeds.children.twin(self._argv)), classes="title")
            yield self._log
            yield self._foot

    def on_mount(self) -> None:
        self._log.focus()
        self._say()
        self.set_interval(_PAINT_S, self._paint)
        # Of the app, because one that changes something outlives this dialog.
        self._work = self.console.run_worker(self._run(), group=f"command-{id(self)}")

    async def _run(self) -> None:
        console = self.console
        twin = console.deeds.children.twin(self._argv)
        task = (
            None
            if self._reads
            else console.tasks.begin(" ".join(self._argv[:2]), twin, console.now())
        )

        def tell(line: str) -> None:
            if task is not None:
                task.tell(line)
            self._waiting.append(line)
            del self._waiting[:-_LINES_MAX]

        code = -1
        try:
            code = await console.deeds.children.follow(self._argv, tell)
        except OSError as error:
            tell(f"It cannot be started: {error}.")
        except asyncio.CancelledError:
            tell("It was ended.")
            raise
        finally:
            self._exit_code = code
            if task is not None:
                task.ended_at = console.now()
                task.outcome = Outcome(self._argv, code, lines=tuple(task.lines))
            self._paint()
            self._say()
            console.refresh_footer()

    def _paint(self) -> None:
        if self._waiting and self._log.is_mounted:
            lines, self._waiting = self._waiting, []
            width = max(20, self._log.scrollable_content_region.width)
            whole = [part for line in lines for part in wrapped(line, width)]
            self._log.write_lines(whole, scroll_end=self._log.is_vertical_scroll_end)

    def _say(self) -> None:
        if self._exit_code is None:
            leave = "ends it" if self._reads else "leaves it running"
            left = Cell(f" running…  Esc {leave}  ctrl+c ends it ", "accent")
        elif self._exit_code == 0:
            left = Cell(" ● exit code 0 ", "good")
        else:
            left = Cell(f" ✖ exit code {self._exit_code} ", "bad")
        self._foot.show([left], [Cell(" Esc close  y copy  : command ", "dim")])

    def action_copy(self) -> None:
        self.console.copy_to_clipboard("\n".join(self._log.lines))
        self.notify("Copied, where the terminal allows it (OSC 52).")

    def action_end(self) -> None:
        if self._exit_code is None and self._work is not None:
            self._work.cancel()
        elif self._exit_code is not None:
            self.close()

    def action_again(self) -> None:
        self.action_cancel()
        self.console.action_palette()

    def action_cancel(self) -> None:
        if self._exit_code is None and self._reads and self._work is not None:
            self._work.cancel()
        self.close()


def wrapped(line: str, width: int) -> list[str]:
    """Sentences are broken to the width; what has columns stays in one line, which scrolls."""
    text = line.expandtabs()
    if len(text) <= width or _COLUMNS.search(text.strip()):
        return [text]
    return textwrap.wrap(text, width) or [""]
