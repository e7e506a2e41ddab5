"""One line of the frame: texts with tones, repainted only when they change."""

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from console.cells import Cell
from console.themes import DEFAULT, strip_style, tone_style


def fit(text: str, width: int) -> str:
    """Cut with an ellipsis where it is too wide, by cells."""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, max(0, width - 1)) + "…" if width > 0 else ""


def wrapped(text: str, width: int) -> list[str]:
    """A text in lines of at most `width` cells, broken at spaces where there are any."""
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        joined = f"{line} {word}" if line else word
        if cell_len(joined) <= width:
            line = joined
            continue
        if line:
            lines.append(line)
        line = word
        while cell_len(line) > width > 0:
            head = set_cell_size(line, width).rstrip(" ")
            lines.append(head)
            line = line[len(head) :]
    return [*lines, line]


class FrameLine(Widget):
    """Cells from the left and from the right. Where they do not fit, those of the left lose."""

    DEFAULT_CSS: ClassVar[str] = "FrameLine { height: 1; }"

    def __init__(self, *, name: str, classes: str = "") -> None:
        super().__init__(name=name, classes=classes)
        self._left: tuple[Cell, ...] = ()
        self._right: tuple[Cell, ...] = ()

    def show(self, left: Sequence[Cell], right: Sequence[Cell] = ()) -> None:
        if (tuple(left), tuple(right)) != (self._left, self._right):
            self._left, self._right = tuple(left), tuple(right)
            self.refresh()

    def render_line(self, y: int) -> Strip:  # noqa: ARG002 (it has one)
        look = getattr(self.app, "look", "dark")
        base = strip_style(look)
        width = self.size.width
        right = [(fit(cell.text, width), cell.tone) for cell in self._right]
        room = width - sum(cell_len(text) for text, _ in right)
        segments = []
        for cell in self._left:
            if room <= 0:
                break
            text = fit(cell.text, room)
            room -= cell_len(text)
            style = base + tone_style(look, cell.tone)
            if cell.colour and look == DEFAULT:
                style += Style.parse(cell.colour)
            segments.append(Segment(text, style))
        segments.append(Segment(" " * max(0, room), base))
        segments += [Segment(text, base + tone_style(look, tone)) for text, tone in right]
        return Strip(segments).simplify().adjust_cell_length(width, base)
