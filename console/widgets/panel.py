"""A part of a screen under a title line."""

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from textual.containers import Vertical
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from console.cells import Cell
from console.themes import tone_style
from console.widgets.line import fit


class Title(Widget):
    """`── 1 Nodes 64 ─────── note ──`."""

    DEFAULT_CSS: ClassVar[str] = "Title { height: 1; }"

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text
        self._note: Cell = Cell("")

    def show(self, text: str, note: Cell | None = None) -> None:
        note = note or Cell("")
        if (text, note) != (self._text, self._note):
            self._text, self._note = text, note
            self.refresh()

    def render_line(self, y: int) -> Strip:  # noqa: ARG002 (it has one)
        look = getattr(self.app, "look", "dark")
        base = self.rich_style
        width = self.size.width
        focus_within = self.parent is not None and self.parent.has_pseudo_class("focus-within")
        rule = base + tone_style(look, "accent" if focus_within else "dim")
        text = f" {fit(self._text, max(0, width - 6))} "
        note = f" {self._note.text} " if self._note.text else ""
        middle = width - 2 - len(text) - len(note) - (2 if note else 0)
        if middle < 1:
            note, middle = "", max(0, width - 2 - len(text))
        segments = [Segment("──", rule), Segment(text, base + tone_style(look, "title"))]
        segments.append(Segment("─" * middle, rule))
        if note:
            segments.append(Segment(note, base + tone_style(look, self._note.tone)))
            segments.append(Segment("──", rule))
        return Strip(segments).adjust_cell_length(width, rule)


class Panel(Vertical):
    """Widgets under a title; the title says where the keyboard is by its rule."""

    DEFAULT_CSS: ClassVar[str] = "Panel { height: 1fr; }"

    def __init__(self, title: str, *children: Widget, id: str | None = None) -> None:  # noqa: A002 (Textual's name)
        self._title = Title(title)
        super().__init__(self._title, *children, id=id)

    def entitle(self, text: str, note: Cell | None = None) -> None:
        self._title.show(text, note)

    def on_descendant_focus(self) -> None:
        self._title.refresh()

    def on_descendant_blur(self) -> None:
        self._title.refresh()


class Lines(Widget):
    """Lines of cells, repainted only where they differ."""

    DEFAULT_CSS: ClassVar[str] = "Lines { height: 1fr; }"

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 (Textual's name)
        super().__init__(id=id)
        self._lines: tuple[tuple[Cell, ...], ...] = ()

    def show(self, lines: Sequence[Sequence[Cell]]) -> None:
        old, new = self._lines, tuple(tuple(line) for line in lines)
        self._lines = new
        for y in range(max(len(old), len(new))):
            span = differing(old[y] if y < len(old) else (), new[y] if y < len(new) else ())
            if span is not None:
                first, last = span
                width = self.size.width - first if last is None else last - first
                self.refresh(Region(first, y, width, 1))

    def render_line(self, y: int) -> Strip:
        base = self.rich_style
        look = getattr(self.app, "look", "dark")
        cells = self._lines[y] if y < len(self._lines) else ()
        segments = [Segment(cell.text, base + tone_style(look, cell.tone)) for cell in cells]
        return Strip(segments).simplify().adjust_cell_length(self.size.width, base)


def differing(old: Sequence[Cell], new: Sequence[Cell]) -> tuple[int, int | None] | None:
    """From where to where two lines differ, in cells; to None: to the end. None: they are alike."""
    if old == new:
        return None
    same = 0
    while same < min(len(old), len(new)) and old[same] == new[same]:
        same += 1
    first = sum(cell_len(cell.text) for cell in new[:same])
    widths = [cell_len(cell.text) for cell in old], [cell_len(cell.text) for cell in new]
    if widths[0] != widths[1]:
        return first, None
    end = len(new)
    while old[end - 1] == new[end - 1]:
        end -= 1
    return first, sum(widths[1][:end])
