"""Processes behind an engine's front one without which it serves nothing.

A front process may live on, answer health questions and tell its last figures when the one that
works has died: no counter moves, and none says that anybody waits.
"""

from agent import host
from agent.processes import Process


class Members:
    """Those of one engine. Blocks for as long as a look at the process table does."""

    __slots__ = ("_known", "_prefixes", "_process")

    def __init__(self, process: Process, prefixes: tuple[str, ...]) -> None:
        self._process = process
        self._prefixes = prefixes
        self._known: dict[int, tuple[int, str]] = {}  # pid -> start and title

    def lost(self) -> str | None:
        """Which of those that were seen has ended, for a person; None: none has."""
        if not self._prefixes:
            return None
        for pid, (started_ticks, title) in self._known.items():
            stat = host.process_stat(pid)
            gone = stat is None or stat.started_ticks != started_ticks or stat.state in {"Z", "X"}
            if gone and self._process.alive():  # else its own end is told in a moment
                return f"The engine's process {title!r} ({pid}) has ended, and its front lives on."
        for pid in self._process.family():
            title = host.process_title(pid)
            stat = host.process_stat(pid)
            if stat is not None and title.startswith(self._prefixes):
                self._known.setdefault(pid, (stat.started_ticks, title.split(" ")[0]))
        return None
