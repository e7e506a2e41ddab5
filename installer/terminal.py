"""What a person sees while it runs: numbered steps, notes, a question. All on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
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
        if not self.quiet:
            print(text, file=self.out, flush=True)

    def began(self, number: int, of: int, step: Step) -> None:
        self._began = self.clock()
        self.line(f"[{number:2}/{of}] {step.does}")

    def detail(self, text: str) -> None:
        self.line(f"        {text}")

    def ended(self) -> None:
        self.line(f"        done in {self.clock() - self._began:.1f} s")

    def skipped(self, number: int, of: int, step: Step) -> None:
        self.line(f"[{number:2}/{of}] {step.does} (done already)")


def confirm(question: str, *, yes: bool) -> None:
    """Asks where a person sits at the terminal; elsewhere the command line was the answer.

    Raises Declined.
    """
    if yes or not sys.stdin.isatty():
        return
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise Declined("Nothing was changed.", next_step="Run it again when you want to.")
