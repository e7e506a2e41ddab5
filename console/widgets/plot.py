"""A figure over time, drawn with braille dots: two across and four down in each cell. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from math import floor
from typing import Final

from console.cells import Cell, Tone
from console.words import MISSING, duration

_BLANK: Final = 0x2800
# Bits of the dots of a cell: column, then row from the top (Unicode, "Braille Patterns").
_DOTS: Final = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_LABEL: Final = 7


@dataclass(frozen=True, slots=True)
class Series:
    """Points of (seconds on the wall clock, value), oldest first; a None is a gap."""

    name: str
    points: Sequence[tuple[float, float | None]]
    tone: Tone = "accent"


def plot(
    series: Series,
    *,
    width: int,
    height: int,
    span_s: float,
    until_s: float,
    top: float | None = None,
    unit: str = "",
) -> list[list[Cell]]:
    """`height` lines of `width` cells: title, the picture, times. `top`: of the scale, else found.

    Each column of dots shows the largest value that falls into it; a column without any is blank.
    """
    columns = max(2, (width - _LABEL - 1) * 2)
    rows = max(1, height - 2)
    values = _columns(series.points, columns, span_s, until_s)
    known = [value for value in values if value is not None]
    newest = known[-1] if known else None
    high = top if top is not None else _round_up(max(known, default=0.0))
    title = [
        Cell(f"{series.name} ", "title"),
        Cell(_text(newest, unit), series.tone if newest is not None else "dim"),
        Cell(f"  most {_text(max(known, default=None), unit)}", "dim"),
    ]
    lines = [title]
    picture = _picture(values, rows, high)
    for at, text in enumerate(picture):
        label = _short(high) if at == 0 else "0" if at == rows - 1 else ""
        lines.append([Cell(f"{label:>{_LABEL}}│", "dim"), Cell(text, series.tone)])
    lines.append([Cell(_times(width, span_s, until_s), "dim")])
    return lines


def _columns(
    points: Sequence[tuple[float, float | None]], columns: int, span_s: float, until_s: float
) -> list[float | None]:
    values: list[float | None] = [None] * columns
    began_s = until_s - span_s
    for at_s, value in points:
        place = floor((at_s - began_s) / span_s * columns)
        if value is None or not 0 <= place < columns:
            continue
        before = values[place]
        values[place] = value if before is None else max(before, value)
    return _bridged(values, points, span_s)


def _bridged(
    values: list[float | None], points: Sequence[tuple[float, float | None]], span_s: float
) -> list[float | None]:
    """Points further apart than columns are joined; what is not told for longer stays a gap."""
    steps = sorted(
        later[0] - earlier[0] for earlier, later in pairwise(points) if later[0] > earlier[0]
    )
    step_s = steps[len(steps) // 2] if steps else 0.0
    reach = int(step_s / span_s * len(values) * 1.5) + 1
    last: int | None = None
    for at, value in enumerate(list(values)):
        if value is None:
            continue
        if last is not None and 1 < at - last <= reach:
            for between in range(last + 1, at):
                values[between] = values[last]
        last = at
    return values


def _picture(values: Sequence[float | None], rows: int, high: float) -> list[str]:
    cells = [[_BLANK] * (len(values) // 2 or 1) for _ in range(rows)]
    dots = rows * 4
    before: int | None = None
    for column, value in enumerate(values):
        if value is None or column // 2 >= len(cells[0]):
            before = None
            continue
        share = 0.0 if high <= 0 else max(0.0, min(1.0, value / high))
        level = min(dots - 1, int(share * dots))
        first, last = sorted((level, before if before is not None else level))
        for dot in range(first, last + 1):
            row, inside = divmod(dots - 1 - dot, 4)
            cells[row][column // 2] |= _DOTS[column % 2][inside]
        before = level
    return ["".join(map(chr, row)) for row in cells]


def _round_up(value: float) -> float:
    """A scale whose top reads well: 1, 2 or 5 times a power of ten, not below the value."""
    if value <= 0:
        return 1.0
    power = 1.0
    while power * 10 <= value:
        power *= 10
    while power > value:
        power /= 10
    return next(power * times for times in (1, 2, 5, 10) if power * times >= value)


def _text(value: float | None, unit: str) -> str:
    return MISSING if value is None else f"{_short(value)}{unit}"


def _short(value: float) -> str:
    if value >= 10_000_000_000:
        return f"{value / 1e12:.2g}T" if value >= 1e12 else f"{value / 1e9:.0f}G"
    if value >= 10_000_000:
        return f"{value / 1_000_000:.0f}M"
    if value >= 10_000:
        return f"{value / 1_000:.0f}k"
    return f"{value:.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"


def _times(width: int, span_s: float, until_s: float) -> str:
    end = datetime.fromtimestamp(until_s, UTC).strftime("%H:%M")
    left = f"{duration(span_s)} ago"
    room = max(0, width - _LABEL - 1 - len(left) - len(end))
    return " " * (_LABEL + 1) + left + " " * room + end
