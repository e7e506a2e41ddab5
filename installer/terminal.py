"""What a person sees while it runs: numbered steps, notes, a question. All on standard error."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO

from installer.errors import Declined
from installer.plan import Step


@dataclass(slots=True)
class Teller:
    """Progress in lines, which a log takes as well as a terminal. `quiet`: for --json."""

    out: TextIO = field(default_factory=lambda: sys.stderr)
    clock: Callable[[], float] = time.monotonic
    quiet: bool = False
    _began: float = 0.0

    def line(self, text: str) -> None:
        if self.quiet:
            return
        try:
            print(text, file=self.out, flush=True)
        except OSError:
            self.quiet = True  # the terminal is gone; what it was told of goes on

    def began(self, number: int, of: int, step: Step) -> None:
        self._began = self.clock()
        self.line(f"[{number:2}/{of}] {step.does}")

    def detail(self, text: str) -> None:
        self.line(f"        {text}")

    def ended(self) -> None:
        self.line(f"        done in {self.clock() - self._began:.1f} s")

    def skipped(self, number: int, of: int, step: Step) -> None:
        self.line(f"[{number:2}/{of}] {step.does} (done already)")


@contextmanager
def waiting(tell: Callable[[str], None], what: str, *, every_s: float = 10.0) -> Iterator[None]:
    """Tells every few seconds that something of one piece still goes on, and for how long."""
    ended, began = threading.Event(), time.monotonic()

    def repeat() -> None:
        while not ended.wait(every_s):
            tell(f"{what}: {time.monotonic() - began:.0f} s so far")

    teller = threading.Thread(target=repeat, daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()


def confirm(question: str, *, yes: bool) -> None:
    """Asks where a person sits at the terminal; elsewhere the command line was the answer.

    Raises Declined.
    """
    if yes or not sys.stdin.isatty():
        return
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise Declined("Nothing was changed.", next_step="Run it again when you want to.")
