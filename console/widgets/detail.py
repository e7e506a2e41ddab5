"""A list of names and values, one a line, that scrolls."""

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from console.cells import Tone
from console.themes import tone_style
from console.widgets.line import wrapped

Fact = tuple[str, str, Tone]  # name, value and the value's tone


class Detail(ScrollView, can_focus=True):
    """Repainted only where it differs; the arrows scroll it."""

    DEFAULT_CSS: ClassVar[str] = """
    Detail { height: 1fr; overflow-x: hidden; scrollbar-size-vertical: 1; }
    """

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 (Textual's name)
        super().__init__(id=id)
        self._facts: tuple[Fact, ...] = ()
        self._lines: list[Fact] = []
        self._wide = 0

    def show(self, facts: Sequence[Fact]) -> None:
        if tuple(facts) != self._facts:
            self._facts = tuple(facts)
            self._lay_out()

    def on_resize(self) -> None:
        self._lay_out()

    def _lay_out(self) -> None:
        width = self.size.width
        wide = max((cell_len(name) for name, _, _ in self._facts), default=0) + 2
        self._lines = [
            (name if not at else "", part, tone)
            for name, value, tone in self._facts
            for at, part in enumerate(wrapped(value, max(8, width - wide - 2)))
        ]
        self._wide = wide
        self.virtual_size = Size(width, len(self._lines))
        self.refresh()

    def render_line(self, y: int) -> Strip:
        base = self.rich_style
        width = self.size.width
        at = y + self.scroll_offset.y
        if at >= len(self._lines):
            return Strip.blank(width, base)
        look = getattr(self.app, "look", "dark")
        name, value, tone = self._lines[at]
        segments = [
            Segment(f" {name:<{self._wide}}", base + tone_style(look, "dim")),
            Segment(value, base + tone_style(look, tone)),
        ]
        return Strip(segments).adjust_cell_length(width, base)
