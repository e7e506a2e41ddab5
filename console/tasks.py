"""Slow actions at work, and how those that ended did, for as long as the console is open."""

from dataclasses import dataclass, field
from datetime import datetime

from console.children import Outcome

_LINES_MAX = 200
_TASKS_MAX = 100


@dataclass(slots=True)
class Task:
    title: str
    twin: str
    started_at: datetime
    lines: list[str] = field(default_factory=list)
    ended_at: datetime | None = None
    outcome: Outcome | None = None

    @property
    def state(self) -> str:
        if self.outcome is None:
            return "running"
        return "done" if self.outcome.ok else "failed"

    def tell(self, line: str) -> None:
        self.lines.append(line)
        del self.lines[:-_LINES_MAX]


class Tasks:
    """Newest first; the oldest that ended are forgotten."""

    def __init__(self) -> None:
        self._all: list[Task] = []

    def begin(self, title: str, twin: str, at: datetime) -> Task:
        task = Task(title, twin, at)
        self._all.insert(0, task)
        ended = [each for each in self._all if each.outcome is not None]
        for old in ended[_TASKS_MAX:]:
            self._all.remove(old)
        return task

    @property
    def all(self) -> tuple[Task, ...]:
        return tuple(self._all)

    @property
    def running(self) -> int:
        return sum(task.outcome is None for task in self._all)
