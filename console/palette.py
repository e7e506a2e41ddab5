"""`:` — a command line inside the console: its own words, and every `cic` command as a child."""

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Input

from console.widgets.dialogs import Dialog


class CommandLine(Dialog):
    """One line to type into."""

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Input(placeholder="a `cic` command")
