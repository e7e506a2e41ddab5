"""The past of a deployment, or of the site, as the appliance keeps it: an hour, a day, 30 days."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

import msgspec
from textual.app import ComposeResult
from textual.binding import Binding

from appliance.wire.stream import HistorySeries
from console.cells import Cell
from console.view import View
from console.widgets.panel import Lines, Panel
from console.widgets.plot import Series, plot

_SPANS: Final = (("1h", 3_600.0), ("24h", 86_400.0), ("30d", 30 * 86_400.0))
_REREAD_S: Final = 10.0
_HEIGHT_MIN: Final = 5  # lines of a plot: its title, a picture of three, its times
_WIDE: Final = 110  # columns from which two plots stand side by side


class _Plots(Lines, can_focus=True):
    """Has the keyboard, so that the keys of its view are heard."""


class HistoryView(View):
    """`of` is the deployment's name; "" the site."""

    BINDINGS: ClassVar[list[Any]] = [
        Binding("t", "span", "An hour, a day, thirty days"),
        Binding("pagedown,down,j", "page(1)", "More figures", show=False),
        Binding("pageup,up,k", "page(-1)", "Figures before", show=False),
    ]

    def __init__(self, of: str) -> None:
        super().__init__()
        self.title = "history"
        self._of = of
        self._span = 0
        self._first = 0
        self._read_at_s = 0.0
        self._series: list[HistorySeries] | None = None
        self._plots = _Plots()

    @classmethod
    def of_site(cls) -> HistoryView:
        return cls("")

    def compose(self) -> ComposeResult:
        yield Panel("History", self._plots)

    def on_mount(self) -> None:
        self.set_interval(_REREAD_S, self._again)

    def on_resize(self) -> None:
        self._paint()

    def shown(self) -> None:
        self.load(self._read())

    def _again(self) -> None:
        if self.console.top is self and not self.console.paused:
            self.load(self._read())

    async def _read(self) -> None:
        of = f"deployment/{self._of}" if self._of else ""
        query = {"of": of, "span": _SPANS[self._span][0]}
        self._series = await self.admin.get("/v1/history", list[HistorySeries], query)
        self._read_at_s = self.console.now().timestamp()
        self._paint()

    def action_span(self) -> None:
        self._span = (self._span + 1) % len(_SPANS)
        self._series = None
        self._paint()
        self.load(self._read())

    def action_page(self, step: int) -> None:
        shown, known = self._fitting(), len(self._series or ())
        if 0 <= self._first + step * shown < known:
            self._first += step * shown
            self._paint()

    def subject(self) -> Any:
        return msgspec.to_builtins(self._series)

    def _fitting(self) -> int:
        """How many plots there is room for."""
        return max(1, (self.size.height - 1) // _HEIGHT_MIN) * self._beside()

    def _beside(self) -> int:
        return 2 if self.size.width >= _WIDE else 1

    def _paint(self) -> None:
        if not self.is_attached:
            return
        words, span_s = _SPANS[self._span]
        known = self._series
        if known is None:
            self._plots.show([[Cell("  pending…", "dim")]])
        elif not known:
            self._plots.show([[Cell("  Nothing is kept of it yet: a point takes a while.", "dim")]])
        else:
            self._first = min(self._first, len(known) - 1)
            shown = known[self._first : self._first + self._fitting()]
            room = self.size.width, self.size.height - 1
            self._plots.show(
                pictures(shown, room, self._beside(), span_s=span_s, until_s=self._read_at_s)
            )
        more = len(known or ()) > self._fitting()
        note = "t other spans" + ("  PgDn more" if more else "")
        self.panel().entitle(f"{self._of or 'The site'}, the last {words}", Cell(note, "dim"))


def pictures(
    shown: Sequence[HistorySeries],
    room: tuple[int, int],
    beside: int,
    *,
    span_s: float,
    until_s: float,
) -> list[list[Cell]]:
    """Plots in rows of `beside`, which fill a room of (columns, lines)."""
    rows = -(-len(shown) // beside)
    width, height = room[0] // beside, max(_HEIGHT_MIN, room[1] // max(1, rows))
    lines: list[list[Cell]] = []
    for row in range(rows):
        drawn = [
            plot(
                Series(_title(each), [(point.at_s, point.largest) for point in each.points]),
                width=width - 1,
                height=height,
                span_s=span_s,
                until_s=until_s,
                unit=_unit(each.unit),
            )
            for each in shown[row * beside : (row + 1) * beside]
        ]
        for at in range(height):
            line: list[Cell] = []
            for picture in drawn:
                cells = picture[at] if at < len(picture) else []
                taken = sum(len(cell.text) for cell in cells)
                line += [*cells, Cell(" " * max(0, width - taken))]
            lines.append(line)
    return lines


def _title(series: HistorySeries) -> str:
    """Its name without the unit, which stands behind its figure."""
    return series.series.removesuffix("_per_s").removesuffix("_ms").replace("_", " ")


def _unit(unit: str) -> str:
    return f" {unit}" if unit else ""
