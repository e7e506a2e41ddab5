"""The last hour of the site in four plots, from what the appliance kept, with what it is now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from rich.cells import cell_len
from textual.binding import Binding
from textual.message import Message

from appliance.wire.stream import HistorySeries
from console.cells import Cell, Row
from console.client import Query
from console.trends import SPAN
from console.widgets.line import fit
from console.widgets.panel import Lines
from console.widgets.plot import Series, plot
from console.words import MISSING, count, milliseconds, percent

SPAN_S: Final = 3_600.0
HEIGHT: Final = 8  # lines: what it is now, a picture of six, its times
# A dot of a plot is about a minute wide: it is read and painted no oftener.
EVERY_S: Final = 60.0
QUERY: Final[Query] = {"span": SPAN, "newest": 61}


@dataclass(frozen=True, slots=True)
class _Figure:
    """`peaks`: of a minute the largest is drawn, else the mean. `top` of the scale, None: found."""

    series: str
    title: str
    peaks: bool = False
    top: float | None = None


_FIGURES: Final = (
    _Figure("output_tokens_per_s", "tok/s"),
    _Figure("utilisation", "GPU use", top=100.0),
    _Figure("queued", "waiting", peaks=True),
    _Figure("first_token_p95_ms", "TTFT95", peaks=True),
)


def figures_now(site: Row | None, gpus: Mapping[str, Row]) -> list[str]:
    """What the four are at this moment. The use of GPUs is the mean of those that are heard."""
    site = site or {}
    used = [
        gpu["utilisation"]
        for gpu in gpus.values()
        if not gpu.get("stale") and gpu.get("utilisation") is not None
    ]
    return [
        count(site.get("output_tokens_per_s")),
        percent(sum(used) / len(used) if used else None),
        count(site.get("requests_queued")),
        milliseconds(site.get("first_token_p95_ms")),
    ]


def pictures(past: Sequence[HistorySeries], width: int, until_s: float) -> list[list[Cell]]:
    """Four plots beside each other, without their titles: HEIGHT - 1 lines of `width` cells."""
    each = width // len(_FIGURES)
    drawn = [_picture(figure, past, each - 1, until_s) for figure in _FIGURES]
    lines: list[list[Cell]] = []
    for at in range(1, HEIGHT):
        line: list[Cell] = []
        for picture in drawn:
            cells = picture[at]
            taken = sum(cell_len(cell.text) for cell in cells)
            line += [*cells, Cell(" " * (each - taken))]
        lines.append(line)
    return lines


def titles(past: Sequence[HistorySeries] | None, now: Sequence[str], width: int) -> list[Cell]:
    """The line above them: what each is now, and what was the most of the hour."""
    each = width // len(_FIGURES)
    line: list[Cell] = []
    for figure, value in zip(_FIGURES, now, strict=True):
        most = _most(figure, past or ())
        cells = [
            Cell(f"{figure.title} ", "title"),
            Cell(value, "dim" if value == MISSING else "accent"),
            Cell(f"  most {most}" if most else "", "dim"),
        ]
        cells = [Cell(fit(cell.text, each - 1), cell.tone) for cell in cells]
        taken = sum(cell_len(cell.text) for cell in cells)
        line += [*cells, Cell(" " * max(0, each - taken))]
    return line


def _picture(
    figure: _Figure, past: Sequence[HistorySeries], width: int, until_s: float
) -> list[list[Cell]]:
    points = [
        (float(point.at_s), point.largest if figure.peaks else point.mean)
        for series in past
        if series.series == figure.series
        for point in series.points
    ]
    return plot(
        Series(figure.title, points),
        width=width,
        height=HEIGHT,
        span_s=SPAN_S,
        until_s=until_s,
        top=figure.top,
    )


def _most(figure: _Figure, past: Sequence[HistorySeries]) -> str:
    values = [
        value
        for series in past
        if series.series == figure.series
        for point in series.points
        if (value := point.largest if figure.peaks else point.mean) is not None
    ]
    if not values:
        return ""
    if figure.series == "first_token_p95_ms":
        return milliseconds(max(values))
    return percent(max(values)) if figure.top else count(max(values))


class Past(Lines, can_focus=True):
    """The plots. Enter opens the site's history with all its figures and spans."""

    BINDINGS: ClassVar[list[Any]] = [Binding("enter", "open", "The history of the site")]

    class Opened(Message):
        """Enter."""

    def __init__(self) -> None:
        super().__init__()
        self._past: list[HistorySeries] | None = None
        self._drawn: list[list[Cell]] = []
        self._trouble = ""
        self._until_s = 0.0
        self._now: list[str] = [MISSING] * len(_FIGURES)

    def take(self, past: list[HistorySeries], until_s: float) -> None:
        self._past, self._until_s, self._trouble = past, until_s, ""
        self._redraw()

    def fail(self, trouble: str) -> None:
        """It cannot be read; what was read before stays."""
        self._trouble = trouble
        self._redraw()

    def now(self, figures: list[str]) -> None:
        if figures != self._now:
            self._now = figures
            self._paint()

    def on_resize(self) -> None:
        self._redraw()

    def action_open(self) -> None:
        self.post_message(self.Opened())

    def _redraw(self) -> None:
        width = self.size.width
        if width <= 0:
            return
        if not self._past:
            text = "pending…" if self._past is None else "Nothing is kept yet: it takes a while."
            text = self._trouble or text
            self._drawn = [[Cell(fit(f"  {text}", width), "dim")]]
        else:
            self._drawn = pictures(self._past, width, self._until_s)
        self._paint()

    def _paint(self) -> None:
        if self.size.width > 0:
            self.show([titles(self._past, self._now, self.size.width), *self._drawn])
