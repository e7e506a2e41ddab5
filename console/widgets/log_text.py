"""Text that grows at its end."""

from rich.cells import cell_len
from textual.widgets import Log


class LogText(Log):
    """Textual's Log measures new lines in a thread; one that was closed meanwhile ends the app.

    What is written here at once is little: it is measured where it is written.
    """

    def _update_size(self, updates: int, lines: list[str]) -> None:  # type: ignore[override]  # see above
        if lines:
            longest = max(cell_len(self._process_line(line)) for line in lines)
            self._update_maximum_width(updates, longest)
