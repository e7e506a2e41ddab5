"""A table that changes all the time: only the cells that differ are painted again.

Textual's DataTable repaints itself whole for each changed cell (measured: 24–28% of a core for 200
rows changed twice a second); this one, on the Line API, refreshes one Region a row.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from console.cells import Cell, Column, Row
from console.themes import cursor_style, tone_style
from console.widgets.columns import MARK, aligned, lay_out
from console.widgets.labels import Labels
from console.widgets.line import fit
from console.widgets.ranking import Ranking, SortKey

_FILTER_MAX: Final = 200


class _OfRow(Message):
    """About one row of a table."""

    def __init__(self, table: LiveTable, row_id: str | None) -> None:
        super().__init__()
        self.table = table
        self.row_id = row_id

    @property
    def control(self) -> LiveTable:
        return self.table


class LiveTable(ScrollView, can_focus=True):
    """Rows by id. `cells` makes the texts of a row, one a column, when the row is looked at.

    `sort_key` gives what a column sorts by, (row id, row, column key) -> anything ordered; a None
    in it sorts last. Without it a column sorts by its text.
    """

    BINDINGS: ClassVar[list[Any]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home", "edge(-1)", "First", show=False),
        Binding("end", "edge(1)", "Last", show=False),
        Binding("enter", "open", "Open"),
        Binding("s", "sort", "Sort by the next column"),
        Binding("slash", "filter", "Filter"),
        Binding("f", "jump", "Jump to a row by its label"),
    ]
    DEFAULT_CSS: ClassVar[str] = """
    LiveTable { height: 1fr; overflow-x: hidden; overflow-y: auto; scrollbar-size-vertical: 1; }
    """

    class Opened(_OfRow):
        """Enter, or a second click."""

        row_id: str

    class Moved(_OfRow):
        """The cursor is on another row; None: there is none."""

    def __init__(
        self,
        columns: Sequence[Column],
        cells: Callable[[str, Row], Sequence[Cell]],
        *,
        sort_key: SortKey | None = None,
        sort_by: str = "",
        descending: bool = False,
        empty: str = "Nothing here yet.",
        id: str | None = None,  # noqa: A002 (Textual's name)
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(id=id)
        self._monotonic_s = monotonic_s
        self._columns = tuple(columns)
        self._cells_of = cells
        self._empty = empty
        self._ranking = Ranking(
            sort_key or self._by_text, self._words, sort_by=sort_by, descending=descending
        )
        self._painted: dict[str, tuple[Cell, ...]] = {}  # of rows that were looked at
        self._cursor: str | None = None
        self._filtering = False
        self._labels = Labels()
        self._layout: tuple[tuple[int, Column, int, int], ...] = ()  # index, column, x, width
        self._laid_out_for = -1

    # What is shown.

    @property
    def current(self) -> str | None:
        """The id of the row under the cursor."""
        return self._cursor

    @property
    def shown(self) -> Sequence[str]:
        """Ids of the rows that pass the filter, in their order."""
        return tuple(self._ranking.order)

    @property
    def row_ids(self) -> Sequence[str]:
        """Ids of all rows, those that the filter hides too, in the order in which they came."""
        return tuple(self._ranking.rows)

    def say_empty(self, text: str) -> None:
        """What stands there while there are no rows."""
        if text != self._empty:
            self._empty = text
            self.refresh()

    def row(self, row_id: str) -> Row | None:
        return self._ranking.rows.get(row_id)

    def replace(self, rows: Mapping[str, Row]) -> None:
        """All rows anew. The cursor stays on its row, or near where that was."""
        before = self._place()
        self._painted.clear()
        self._ranking.replace(rows)
        self._arranged(before)

    def patch(self, rows: Mapping[str, Row], gone: Iterable[str] = ()) -> None:
        """Rows that are new or different, whole, and ids of those that ended."""
        before = self._place()
        first, last = self._window()
        old = {row_id: self._painted.pop(row_id) for row_id in rows if row_id in self._painted}
        for row_id in (gone := tuple(gone)):
            self._painted.pop(row_id, None)
        window, many = self._ranking.order[first:last], len(self._ranking.order)
        moved = self._ranking.patch(rows, gone, settle=self._ranking.settles(self._monotonic_s()))
        order = self._ranking.order
        if moved and (many != len(order) or self._cursor not in self._ranking):
            self._arranged(before)
            return
        for at, row_id in enumerate(order[first:last], start=first):
            if moved and window[at - first] != row_id:
                self.refresh(Region(0, at - first + 1, self.size.width, 1))
            elif row_id in rows:
                self._repaint(row_id, at, old.get(row_id))

    def repaint(self) -> None:
        """The same rows, whose cells may read differently now: ages, for instance."""
        first, last = self._window()
        for at, row_id in enumerate(self._ranking.order[first:last], start=first):
            self._repaint(row_id, at, self._painted.pop(row_id, None))

    def select(self, row_id: str) -> None:
        at = self._ranking.at(row_id)
        if at is not None:
            self._move_to(at)

    def _repaint(self, row_id: str, at: int, old: tuple[Cell, ...] | None) -> None:
        new = self._cells(row_id)
        if old == new:
            return
        y = at - self.scroll_offset.y + 1
        if old is None or len(old) != len(new):
            self.refresh(Region(0, y, self.size.width, 1))
            return
        changed = [at for at in self._columns_laid_out() if old[at[0]] != new[at[0]]]
        if changed:  # one region: a line is painted from its left once for each
            first, (_, _, last, width) = changed[0][2], changed[-1]
            self.refresh(Region(first, y, last + width - first, 1))

    def _by_text(self, row_id: str, _row: Row, key: str) -> str:
        for column, cell in zip(self._columns, self._cells(row_id), strict=True):
            if column.key == key:
                return cell.text.lower()
        return ""

    def _words(self, row_id: str) -> str:
        return " ".join(cell.text for cell in self._cells(row_id)).lower()

    def _cells(self, row_id: str) -> tuple[Cell, ...]:
        cells = self._painted.get(row_id)
        if cells is None:
            row = self._ranking.rows[row_id]
            cells = self._painted[row_id] = tuple(self._cells_of(row_id, row))
        return cells

    def _place(self) -> int:
        """Where the cursor is among the rows."""
        at = None if self._cursor is None else self._ranking.at(self._cursor)
        return 0 if at is None else at

    def _arranged(self, before: int) -> None:
        """The rows are others, or in another order; the cursor was at `before`."""
        order = self._ranking.order
        self.virtual_size = Size(self.size.width, len(order) + 1)
        if self._cursor not in self._ranking:
            self._set_cursor(order[min(before, len(order) - 1)] if order else None)
        self.refresh()

    # The cursor.

    def _set_cursor(self, row_id: str | None) -> None:
        if row_id != self._cursor:
            self._cursor = row_id
            self.post_message(self.Moved(self, row_id))

    def _window(self) -> tuple[int, int]:
        first = self.scroll_offset.y
        return first, first + max(0, self._lines())

    def _lines(self) -> int:
        """Lines for rows: without the titles, and the filter's line while there is one."""
        return self.size.height - 1 - (1 if self._bottom() else 0)

    def _bottom(self) -> str:
        if self._filtering:
            return f"/{self._ranking.wanted}▏ {self._ranking.counts}"
        if self._ranking.wanted:
            return f"/{self._ranking.wanted}  {self._ranking.counts} · Esc shows all"
        return ""

    def _move_to(self, at: int) -> None:
        order = self._ranking.order
        if not order:
            return
        at = max(0, min(len(order) - 1, at))
        old = self._place()
        self._set_cursor(order[at])
        first, last = self._window()
        if not first <= at < last:
            top = at if at < first else at - self._lines() + 1
            self.scroll_to(y=top, animate=False, force=True, immediate=True)
            self.refresh()
            return
        for line in {old, at}:
            self.refresh(Region(0, line - first + 1, self.size.width, 1))

    def action_move(self, step: int) -> None:
        self._move_to(self._place() + step if self._cursor in self._ranking else 0)

    def action_page(self, step: int) -> None:
        self.action_move(step * max(1, self._lines() - 1))

    def action_edge(self, step: int) -> None:
        self.action_move(step * len(self._ranking.order))

    def action_open(self) -> None:
        if self._cursor is not None:
            self.post_message(self.Opened(self, self._cursor))

    def on_click(self, event: events.Click) -> None:
        at = event.y - 1 + self.scroll_offset.y
        if event.y < 1 or at >= len(self._ranking.order):
            return
        again = self._ranking.order[at] == self._cursor
        self._move_to(at)
        if again:
            self.action_open()

    # Sorting, filtering, jumping.

    def action_sort(self) -> None:
        """The next column; past the last one the other way round from the first."""
        keys = [column.key for _, column, _, _ in self._columns_laid_out()]
        by, descending = self._ranking.sort_by, self._ranking.descending
        at = keys.index(by) if by in keys else -1
        if at + 1 == len(keys):
            descending = not descending
        if keys:
            self.sort_by(keys[(at + 1) % len(keys)], descending=descending)

    def sort_by(self, key: str, *, descending: bool = False) -> None:
        before = self._place()
        self._ranking.rank(key, descending=descending)
        self._arranged(before)

    def action_filter(self) -> None:
        self._filtering = True
        self.refresh()

    def show_only(self, text: str) -> None:
        """Filter by words that must all be in a row; "" shows all."""
        before = self._place()
        self._ranking.want(text)
        self._arranged(before)

    def action_jump(self) -> None:
        first, last = self._window()
        self._labels.offer(self._ranking.order[first:last])
        self.refresh()

    def on_key(self, event: events.Key) -> None:
        if self._labels.offered:
            row_id = self._labels.type(event.character)
            if row_id is not None:
                self.select(row_id)
            self.refresh()
        elif self._filtering:
            if not self._filter_key(event):
                return
        elif event.key == "escape" and self._ranking.wanted:
            self.show_only("")
        else:
            return
        event.stop()
        event.prevent_default()

    def _filter_key(self, event: events.Key) -> bool:
        """Whether the key was for the filter; the others move the cursor meanwhile."""
        text = self._ranking.wanted
        if event.key in ("enter", "escape"):
            self._filtering = False
            text = text if event.key == "enter" else ""
        elif event.key == "backspace":
            text = text[:-1]
        elif event.is_printable and event.character:
            text += event.character
        else:
            return False
        self.show_only(text)
        return True

    def on_paste(self, event: events.Paste) -> None:
        if self._filtering:
            event.stop()
            pasted = "".join(sign for sign in event.text if sign.isprintable())
            self.show_only((self._ranking.wanted + pasted)[:_FILTER_MAX])

    def on_resize(self) -> None:
        self._laid_out_for = -1
        self.virtual_size = Size(self.size.width, len(self._ranking.order) + 1)

    def _columns_laid_out(self) -> tuple[tuple[int, Column, int, int], ...]:
        width = self.size.width
        if self._laid_out_for != width:
            self._layout = lay_out(self._columns, width)
            self._laid_out_for = width
        return self._layout

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        base = self.rich_style
        bottom = self._bottom()
        if bottom and y == self.size.height - 1:
            text = fit(bottom, width)
            return Strip([Segment(text, base + self._tone("accent"))]).adjust_cell_length(
                width, base
            )
        if y == 0:
            return self._titles(width, base)
        at = y - 1 + self.scroll_offset.y
        order = self._ranking.order
        if at >= len(order):
            if not order and y == 1:
                text = "No row has that." if self._ranking.rows else self._empty
                dim = base + self._tone("dim")
                return Strip([Segment("  " + fit(text, width - 2), dim)]).adjust_cell_length(
                    width, base
                )
            return Strip.blank(width, base)
        return self._line(order[at], width, base)

    def _tone(self, tone: Any) -> Style:
        return tone_style(getattr(self.app, "look", "dark"), tone)

    def _titles(self, width: int, base: Style) -> Strip:
        style = base + self._tone("title")
        segments = [Segment(" " * MARK, style)]
        for _, column, _, wide in self._columns_laid_out():
            title = column.title
            if column.key == self._ranking.sort_by:
                title = title[: wide - 1] + ("▼" if self._ranking.descending else "▲")
            segments.append(Segment(aligned(title, wide, right=column.right) + " ", style))
        return Strip(segments).adjust_cell_length(width, style)

    def _line(self, row_id: str, width: int, base: Style) -> Strip:
        cells = self._cells(row_id)
        mark = "  "
        if self._labels.offered:
            mark = f"{self._labels.of(row_id):<2}"
        elif row_id == self._cursor:
            mark = "> " if self.has_focus else "· "
            look = getattr(self.app, "look", "dark")
            base += cursor_style(look) if self.has_focus else Style.null()
        segments = [Segment(mark, base + self._tone("accent"))]
        for index, column, _, wide in self._columns_laid_out():
            cell = cells[index]
            text = cell.text[-wide:] if column.newest else cell.text
            text = aligned(text, wide, right=column.right)
            segments.append(Segment(text, base + self._tone(cell.tone)))
            segments.append(Segment(" ", base))
        return Strip(segments).simplify().adjust_cell_length(width, base)
