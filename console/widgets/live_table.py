"""A table that changes all the time: only the cells that differ are painted again.

Textual's DataTable repaints itself whole for each changed cell (measured: 24–28% of a core for 200
rows changed twice a second); this one, on the Line API, refreshes one Region a cell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from appliance.wire.stream import Topic
from console.cells import Cell, Column, Row
from console.store import Changes, Store
from console.themes import cursor_style, tone_style
from console.widgets.line import fit

_LABELS: Final = "asdfghjklqwertyuiopzxcvbnm"
_MARK: Final = 2  # cells before the first column: the cursor, or a jump label

SortKey = Callable[[str, Row, str], Any]


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
        Binding("home,g", "edge(-1)", "First", show=False),
        Binding("end", "edge(1)", "Last", show=False),
        Binding("enter", "open", "Open"),
        Binding("s", "sort", "Sort by the next column"),
        Binding("slash", "filter", "Filter"),
        Binding("f", "jump", "Jump to a row by its label"),
    ]
    DEFAULT_CSS: ClassVar[str] = """
    LiveTable { height: 1fr; overflow-x: hidden; overflow-y: auto; scrollbar-size-vertical: 1; }
    """

    class Opened(Message):
        """Enter, or a second click."""

        def __init__(self, table: LiveTable, row_id: str) -> None:
            super().__init__()
            self.table = table
            self.row_id = row_id

        @property
        def control(self) -> LiveTable:
            return self.table

    class Moved(Message):
        """The cursor is on another row; None: there is none."""

        def __init__(self, table: LiveTable, row_id: str | None) -> None:
            super().__init__()
            self.table = table
            self.row_id = row_id

        @property
        def control(self) -> LiveTable:
            return self.table

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
    ) -> None:
        super().__init__(id=id)
        self._columns = tuple(columns)
        self._cells_of = cells
        self._sort_key = sort_key
        self._sort_by = sort_by
        self._descending = descending
        self._empty = empty
        self._rows: dict[str, Row] = {}
        self._order: list[str] = []  # ids as they are shown
        self._at: dict[str, int] = {}
        self._keys: dict[str, Any] = {}
        self._painted: dict[str, tuple[Cell, ...]] = {}  # of rows that were looked at
        self._cursor: str | None = None
        self._filter = ""
        self._filtering = False
        self._labels: dict[str, str] = {}  # label -> row id, while jumping
        self._label_typed = ""
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
        return tuple(self._order)

    @property
    def empty_text(self) -> str:
        return self._empty

    def say_empty(self, text: str) -> None:
        """What stands there while there are no rows."""
        if text != self._empty:
            self._empty = text
            if not self._order:
                self.refresh()

    def row(self, row_id: str) -> Row | None:
        return self._rows.get(row_id)

    def replace(self, rows: Mapping[str, Row]) -> None:
        """All rows anew. The cursor stays on its row, or near where that was."""
        self._rows = dict(rows)
        self._painted.clear()
        self._keys = {row_id: self._key(row_id) for row_id in self._rows}
        self._arrange()

    def patch(self, rows: Mapping[str, Row], gone: Iterable[str] = ()) -> None:
        """Rows that are new or different, whole, and ids of those that ended."""
        moved = False
        for row_id in gone:
            if self._rows.pop(row_id, None) is not None:
                self._keys.pop(row_id, None)
                self._painted.pop(row_id, None)
                moved = True
        for row_id, row in rows.items():
            known = row_id in self._rows
            self._rows[row_id] = row
            key = self._key(row_id)
            if not known or key != self._keys[row_id] or self._filter:
                self._keys[row_id] = key
                moved = True
        if moved and self._order != self._ordered():
            self._painted = {key: value for key, value in self._painted.items() if key not in rows}
            self._arrange()
            return
        first, last = self._window()
        for row_id in rows:
            at = self._at.get(row_id)
            if at is None or not first <= at < last:
                self._painted.pop(row_id, None)
                continue
            self._repaint(row_id, at)

    def repaint(self) -> None:
        """The same rows, whose cells may read differently now: ages, for instance."""
        first, last = self._window()
        for at in range(first, min(last, len(self._order))):
            self._repaint(self._order[at], at)

    def select(self, row_id: str) -> None:
        if row_id in self._at:
            self._move_to(self._at[row_id])

    def _repaint(self, row_id: str, at: int) -> None:
        old = self._painted.get(row_id)
        new = tuple(self._cells_of(row_id, self._rows[row_id]))
        if old == new:
            return
        self._painted[row_id] = new
        y = at - self.scroll_offset.y + 1
        if old is None or len(old) != len(new):
            self.refresh(Region(0, y, self.size.width, 1))
            return
        for index, _column, x, width in self._columns_laid_out():
            if old[index] != new[index]:
                self.refresh(Region(x, y, width, 1))

    def _key(self, row_id: str) -> Any:
        if not self._sort_by:
            return None
        if self._sort_key is not None:
            value = self._sort_key(row_id, self._rows[row_id], self._sort_by)
        else:
            value = self._text(row_id, self._sort_by)
        return value

    def _text(self, row_id: str, key: str) -> str:
        cells = self._cells(row_id)
        for column, cell in zip(self._columns, cells, strict=True):
            if column.key == key:
                return cell.text.lower()
        return ""

    def _cells(self, row_id: str) -> tuple[Cell, ...]:
        cells = self._painted.get(row_id)
        if cells is None:
            cells = self._painted[row_id] = tuple(self._cells_of(row_id, self._rows[row_id]))
        return cells

    def _ordered(self) -> list[str]:
        ids = list(self._rows)
        if self._filter:
            words = self._filter.lower().split()
            ids = [row_id for row_id in ids if self._matches(row_id, words)]
        if self._sort_by:
            known = [row_id for row_id in ids if self._keys[row_id] is not None]
            known.sort(key=self._keys.__getitem__, reverse=self._descending)
            unknown = [row_id for row_id in ids if self._keys[row_id] is None]
            ids = known + unknown
        return ids

    def _matches(self, row_id: str, words: Sequence[str]) -> bool:
        text = " ".join(cell.text for cell in self._cells(row_id)).lower()
        return all(word in text for word in words)

    def _arrange(self) -> None:
        before = self._at.get(self._cursor, 0) if self._cursor is not None else 0
        self._order = self._ordered()
        self._at = {row_id: at for at, row_id in enumerate(self._order)}
        self.virtual_size = Size(self.size.width, len(self._order) + 1)
        if self._cursor not in self._at:
            self._set_cursor(
                self._order[min(before, len(self._order) - 1)] if self._order else None
            )
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
            return f"/{self._filter}▏ {len(self._order)} of {len(self._rows)}"
        if self._filter:
            return f"/{self._filter}  {len(self._order)} of {len(self._rows)} · Esc shows all"
        return ""

    def _move_to(self, at: int) -> None:
        if not self._order:
            return
        at = max(0, min(len(self._order) - 1, at))
        old = self._at.get(self._cursor, at) if self._cursor else at
        self._set_cursor(self._order[at])
        first, last = self._window()
        if not first <= at < last:
            top = at if at < first else at - self._lines() + 1
            self.scroll_to(y=top, animate=False, force=True, immediate=True)
            self.refresh()
            return
        for line in {old, at}:
            self.refresh(Region(0, line - first + 1, self.size.width, 1))

    def action_move(self, step: int) -> None:
        at = self._at.get(self._cursor, -1) if self._cursor else -1
        self._move_to(at + step)

    def action_page(self, step: int) -> None:
        self.action_move(step * max(1, self._lines() - 1))

    def action_edge(self, step: int) -> None:
        self._move_to(0 if step < 0 else len(self._order) - 1)

    def action_open(self) -> None:
        if self._cursor is not None:
            self.post_message(self.Opened(self, self._cursor))

    def on_click(self, event: events.Click) -> None:
        at = event.y - 1 + self.scroll_offset.y
        if event.y < 1 or at >= len(self._order):
            return
        again = self._order[at] == self._cursor
        self._move_to(at)
        if again:
            self.action_open()

    # Sorting, filtering, jumping.

    def action_sort(self) -> None:
        """The next column; past the last one the other way round from the first."""
        keys = [column.key for _, column, _, _ in self._columns_laid_out()]
        if not keys:
            return
        at = keys.index(self._sort_by) if self._sort_by in keys else -1
        if at + 1 == len(keys):
            self._descending = not self._descending
        self._sort_by = keys[(at + 1) % len(keys)]
        self._keys = {row_id: self._key(row_id) for row_id in self._rows}
        self._arrange()

    def sort_by(self, key: str, *, descending: bool = False) -> None:
        self._sort_by, self._descending = key, descending
        self._keys = {row_id: self._key(row_id) for row_id in self._rows}
        self._arrange()

    def action_filter(self) -> None:
        self._filtering = True
        self.refresh()

    def show_only(self, text: str) -> None:
        """Filter by words that must all be in a row; "" shows all."""
        self._filter = text
        self._arrange()

    def action_jump(self) -> None:
        first, last = self._window()
        ids = self._order[first : min(last, len(self._order))]
        pairs = [a + b for a in _LABELS for b in _LABELS] if len(ids) > len(_LABELS) else _LABELS
        self._labels = dict(zip(pairs, ids, strict=False))
        self._label_typed = ""
        self.refresh()

    def on_key(self, event: events.Key) -> None:
        if self._labels:
            event.stop()
            event.prevent_default()
            self._jump(event)
        elif self._filtering:
            if self._filter_key(event):
                event.stop()
                event.prevent_default()
        elif event.key == "escape" and self._filter:
            event.stop()
            event.prevent_default()
            self.show_only("")

    def _jump(self, event: events.Key) -> None:
        typed = self._label_typed + (event.character or "")
        if typed in self._labels:
            row_id = self._labels[typed]
            self._labels = {}
            self.select(row_id)
        elif event.key != "escape" and any(label.startswith(typed) for label in self._labels):
            self._label_typed = typed
        else:
            self._labels = {}
        self.refresh()

    def _filter_key(self, event: events.Key) -> bool:
        """Whether the key was for the filter; the others move the cursor meanwhile."""
        if event.key == "enter":
            self._filtering = False
        elif event.key == "escape":
            self._filtering = False
            self._filter = ""
        elif event.key == "backspace":
            self._filter = self._filter[:-1]
        elif event.is_printable and event.character:
            self._filter += event.character
        else:
            return False
        self._arrange()
        return True

    def on_paste(self, event: events.Paste) -> None:
        if self._filtering:
            event.stop()
            self._filter += "".join(sign for sign in event.text if sign.isprintable())[:200]
            self._arrange()

    # Painting.

    def on_resize(self) -> None:
        self._laid_out_for = -1
        self.virtual_size = Size(self.size.width, len(self._order) + 1)

    def _columns_laid_out(self) -> tuple[tuple[int, Column, int, int], ...]:
        width = self.size.width
        if self._laid_out_for != width:
            self._layout = lay_out(self._columns, width)
            self._laid_out_for = width
        return self._layout

    def notify_look(self) -> None:
        self.refresh()

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
        if at >= len(self._order):
            if not self._order and y == 1:
                text = "No row has that." if self._filter and self._rows else self._empty
                dim = base + self._tone("dim")
                return Strip([Segment("  " + fit(text, width - 2), dim)]).adjust_cell_length(
                    width, base
                )
            return Strip.blank(width, base)
        return self._line(self._order[at], width, base)

    def _tone(self, tone: Any) -> Style:
        return tone_style(getattr(self.app, "look", "dark"), tone)

    def _titles(self, width: int, base: Style) -> Strip:
        style = base + self._tone("title")
        segments = [Segment(" " * _MARK, style)]
        for _, column, _, wide in self._columns_laid_out():
            title = column.title
            if column.key == self._sort_by:
                title += "▼" if self._descending else "▲"
            segments.append(Segment(_aligned(title, wide, right=column.right) + " ", style))
        return Strip(segments).adjust_cell_length(width, style)

    def _line(self, row_id: str, width: int, base: Style) -> Strip:
        cells = self._cells(row_id)
        mark = "  "
        if self._labels:
            label = next((name for name, each in self._labels.items() if each == row_id), "")
            mark = f"{label:<2}"
        elif row_id == self._cursor:
            mark = "> " if self.has_focus else "· "
            look = getattr(self.app, "look", "dark")
            base += cursor_style(look) if self.has_focus else Style.null()
        segments = [Segment(mark, base + self._tone("accent"))]
        for index, column, _, wide in self._columns_laid_out():
            cell = cells[index]
            text = _aligned(cell.text, wide, right=column.right)
            segments.append(Segment(text, base + self._tone(cell.tone)))
            segments.append(Segment(" ", base))
        return Strip(segments).adjust_cell_length(width, base)


def keep(table: LiveTable, store: Store, changes: Changes, topic: Topic) -> None:
    """Bring a table that shows a whole topic to what the store has."""
    rows = store.table(topic)
    if topic in changes.whole:
        table.replace(rows)
    elif changes.touches(topic):
        changed = {row_id: rows[row_id] for row_id in changes.changed(topic) if row_id in rows}
        table.patch(changed, changes.ended(topic))


def lay_out(columns: Sequence[Column], width: int) -> tuple[tuple[int, Column, int, int], ...]:
    """Which columns fit into `width` cells: index, column, its x and its width. Pure.

    The least important ones go first; what is left over goes to the column that may grow.
    """
    kept = list(enumerate(columns))

    def needed() -> int:
        return _MARK + sum(column.width + 1 for _, column in kept)

    while needed() > width and any(column.priority > 1 for _, column in kept):
        worst = max(range(len(kept)), key=lambda at: (kept[at][1].priority, at))
        del kept[worst]
    spare = max(0, width - needed())
    x = _MARK
    laid_out = []
    for index, column in kept:
        wide = column.width + (spare if column.grow else 0)
        spare = 0 if column.grow else spare
        laid_out.append((index, column, x, wide))
        x += wide + 1
    return tuple(laid_out)


def _aligned(text: str, width: int, *, right: bool) -> str:
    text = fit(text, width)
    pad = " " * (width - cell_len(text))
    return pad + text if right else text + pad
