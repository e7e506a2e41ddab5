"""Jump labels: letters beside the rows on the screen; typing them goes there. Pure."""

from collections.abc import Sequence
from typing import Final

_LETTERS: Final = "asdfghjklqwertyuiopzxcvbnm"


class Labels:
    """None until `offer`; then each key is `typed` until one row is named or none can be."""

    def __init__(self) -> None:
        self._rows: dict[str, str] = {}  # label -> row
        self._labels: dict[str, str] = {}  # row -> label
        self._typed = ""

    @property
    def offered(self) -> bool:
        return bool(self._rows)

    def offer(self, row_ids: Sequence[str]) -> None:
        """One letter each while there are enough of them, else two."""
        pairs = [first + second for first in _LETTERS for second in _LETTERS]
        names = list(_LETTERS) if len(row_ids) <= len(_LETTERS) else pairs
        self._rows = dict(zip(names, row_ids, strict=False))
        self._labels = {row_id: name for name, row_id in self._rows.items()}
        self._typed = ""

    def of(self, row_id: str) -> str:
        return self._labels.get(row_id, "")

    def type(self, character: str | None) -> str | None:
        """The row that is named now. Labels go when one is named, or none can be any more."""
        typed = self._typed + (character or "\0")
        row_id = self._rows.get(typed)
        if row_id is None and any(name.startswith(typed) for name in self._rows):
            self._typed = typed
        else:
            self._rows, self._labels = {}, {}
        return row_id
