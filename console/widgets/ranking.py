"""The rows of a table in the order they are shown. Pure."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from console.cells import Row

SortKey = Callable[[str, Row, str], Any]  # (row id, row, column) -> anything ordered, None last
# Rows whose figures change their order move no oftener: what jumps each second cannot be read.
_SETTLE_S: Final = 5.0


class Ranking:
    """`words` gives the text of a row in which the words of a filter are looked for."""

    def __init__(
        self,
        sort_key: SortKey,
        words: Callable[[str], str],
        *,
        sort_by: str = "",
        descending: bool = False,
    ) -> None:
        self.sort_by = sort_by
        self.descending = descending
        self.wanted = ""
        self.rows: dict[str, Row] = {}
        self.order: list[str] = []
        self.unsettled = False
        self._settled_s = 0.0
        self._sort_key = sort_key
        self._words = words
        self._at: dict[str, int] = {}
        self._keys: dict[str, Any] = {}

    def at(self, row_id: str) -> int | None:
        """Its place among those that are shown."""
        return self._at.get(row_id)

    def __contains__(self, row_id: object) -> bool:
        """Whether it is shown."""
        return row_id in self._at

    @property
    def counts(self) -> str:
        return f"{len(self.order)} of {len(self.rows)}"

    def replace(self, rows: Mapping[str, Row]) -> None:
        self.rows = dict(rows)
        self._keys = {row_id: self._key(row_id) for row_id in self.rows}
        self._arrange()

    def settles(self, now_s: float) -> bool:
        """Whether rows may change places now (monotonic): so often and no oftener."""
        due = now_s - self._settled_s >= _SETTLE_S
        if due:
            self._settled_s = now_s
        return due

    def patch(self, rows: Mapping[str, Row], gone: Iterable[str], *, settle: bool) -> bool:
        """Whether the order, or what is shown, is another one now.

        Without `settle` rows whose figures alone changed stay where they are for now, so that
        they can be read; `unsettled` then says that the order is not quite right.
        """
        moved = False
        for row_id in gone:
            if self.rows.pop(row_id, None) is not None:
                self._keys.pop(row_id, None)
                moved = True
        for row_id, row in rows.items():
            known = row_id in self.rows
            self.rows[row_id] = row
            key = self._key(row_id)
            if not known or self.wanted:
                moved = True
            elif key != self._keys[row_id]:
                self.unsettled = True
            self._keys[row_id] = key
        if moved or (settle and self.unsettled):
            return self._arrange()
        return False

    def rank(self, key: str, *, descending: bool) -> None:
        """Sort by another column."""
        self.sort_by, self.descending = key, descending
        self._keys = {row_id: self._key(row_id) for row_id in self.rows}
        self._arrange()

    def want(self, text: str) -> None:
        """Show only rows that have each of these words; "" shows all."""
        self.wanted = text
        self._arrange()

    def _key(self, row_id: str) -> Any:
        return self._sort_key(row_id, self.rows[row_id], self.sort_by) if self.sort_by else None

    def _arrange(self) -> bool:
        self.unsettled = False
        before = self.order
        ids = list(self.rows)
        if self.wanted:
            words = self.wanted.lower().split()
            ids = [row_id for row_id in ids if self._matches(row_id, words)]
        if self.sort_by:
            known = [row_id for row_id in ids if self._keys[row_id] is not None]
            known.sort(key=self._keys.__getitem__, reverse=self.descending)
            ids = known + [row_id for row_id in ids if self._keys[row_id] is None]
        self.order = ids
        self._at = {row_id: at for at, row_id in enumerate(ids)}
        return ids != before

    def _matches(self, row_id: str, words: Iterable[str]) -> bool:
        text = self._words(row_id)
        return all(word in text for word in words)
