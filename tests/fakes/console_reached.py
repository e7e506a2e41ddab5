"""How far somebody got around in the console: views, dialogs, actions, and lines of its modules."""

import ast
import importlib
import logging
import pkgutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import coverage
from textual.screen import ModalScreen

import console
from console.modes import MODES
from console.view import View
from console.widgets.dialogs import Dialog

log = logging.getLogger(__name__)
_ROOT: Final = Path(console.__file__).parent
# Without a terminal or a browser these do nothing.
_ELSEWHERE: Final = frozenset({"hang_up", "main", "terminal", "remembered"})
_FEW: Final = 0.5  # of the lines of a screen's functions, on a long way
_LONG: Final = 20_000  # events


@dataclass
class Reached:
    """`ran` are the lines of functions that were run, by module; `of`: how many there are."""

    views: set[str] = field(default_factory=set)
    dialogs: set[str] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)  # View.KEY of actions that were begun
    carried_out: set[str] = field(default_factory=set)  # the first words of commands
    ran: dict[str, set[int]] = field(default_factory=dict)
    of: dict[str, int] = field(default_factory=dict)

    def command(self, arguments: Sequence[str]) -> None:
        words = [word for word in arguments[:2] if word.isascii() and not word.startswith("-")]
        self.carried_out.add(" ".join(words))

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Which lines run within; nothing where somebody else measures already."""
        if coverage.Coverage.current() is not None:
            yield
            return
        measure = coverage.Coverage(data_file=None, config_file=False, source=[str(_ROOT)])
        measure.set_option(
            "run:disable_warnings",
            ["already-imported", "module-not-measured", "no-data-collected"],
        )
        measure.start()
        try:
            yield
        finally:
            measure.stop()
            for name, ran, of in _lines(measure):
                self.ran.setdefault(name, set()).update(ran)
                self.of[name] = len(of)

    def part(self, name: str) -> float:
        """How much of a module was run."""
        return len(self.ran[name]) / self.of[name] if self.of[name] else 1.0

    def report(self) -> str:
        least = sorted((self.part(name), name) for name in self.of)[:12]
        ran, of = sum(len(each) for each in self.ran.values()), sum(self.of.values())
        return "\n".join(
            (
                f"{len(self.views)} views: {', '.join(sorted(self.views))}",
                f"{len(self.dialogs)} dialogs: {', '.join(sorted(self.dialogs))}",
                f"{len(self.asked)} actions begun: {', '.join(sorted(self.asked))}",
                f"{len(self.carried_out)} commands: {', '.join(sorted(self.carried_out))}",
                f"{ran} of {of} lines of functions ({ran / max(1, of):.0%}); least of all: "
                + ", ".join(f"{name} {part:.0%}" for part, name in least),
            )
        )

    def missing(self, events: int) -> list[str]:
        """Where somebody should have been who did so much."""
        far = events >= _LONG
        views = names_of(View) if far else {each.view for each in MODES}
        dialogs = names_of(Dialog) if far else {"ActionDialog", "CommandLine", "TextDialog"}
        found = [f"view {name}" for name in sorted(views - self.views)]
        found += [f"dialog {name}" for name in sorted(dialogs - self.dialogs)]
        for what, number, least in (
            ("views", len(self.views), min(20, events // 80)),
            ("actions", len(self.asked), min(40, events // 150)),
            ("commands", len(self.carried_out), min(25, events // 400)),
        ):
            if number < least:
                found.append(f"only {number} {what}, not {least}")
        for name in self.of if far else ():
            if name.startswith("screens.") and self.part(name) < _FEW:
                found.append(f"only {self.part(name):.0%} of the lines of {name}")
        return found


def names_of(kind: type[View | ModalScreen[object]]) -> set[str]:
    """All classes of a kind that the console has."""
    for module in pkgutil.iter_modules([str(_ROOT / "screens")], "console.screens."):
        importlib.import_module(module.name)
    found, new = set(), [kind]
    while new:
        for each in new.pop().__subclasses__():
            if each.__module__.startswith("console."):
                found.add(each.__name__)
                new.append(each)
    return found


def _lines(measure: coverage.Coverage) -> Iterator[tuple[str, set[int], set[int]]]:
    """Of each module those lines of its functions that ran, and all of them."""
    for file in sorted(_ROOT.rglob("*.py")):
        name = ".".join(file.relative_to(_ROOT).with_suffix("").parts)
        if name in _ELSEWHERE or name.startswith("web."):
            continue
        inside = _inside_functions(file)
        _, statements, _, missing, _ = measure.analysis2(str(file))
        of = inside & set(statements)
        yield name, of - set(missing), of


def _inside_functions(file: Path) -> set[int]:
    """Lines that do not run when the module is imported."""
    return {
        line
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for line in range(node.body[0].lineno, (node.end_lineno or 0) + 1)
    }
