"""The tasks of docs/CONSOLE_WALK.md as steps that can be taken.

A block ```keys has a line for each step: KEYS | WHAT IS SEEN THEN | MARK. Keys are single signs,
names such as Enter, `Down*3` for three of them, "text in quotes", Paste for what was copied last.
A line without keys says what else is seen; `gone: TEXT` what is not there any more. The mark `row`
stands where the cursor is on what is acted on, `action` where the dialog of the action is open.
A block ```sh is typed in a shell, a block ```meanwhile happens by itself. `$NAME` is what the page
says it is.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Final, Literal

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "CONSOLE_WALK.md"
Kind = Literal["keys", "sh", "meanwhile"]
_KINDS: Final[Mapping[str, Kind]] = {"keys": "keys", "sh": "sh", "meanwhile": "meanwhile"}
_TASK: Final = re.compile(r"^## (\d+)\. (.+)$", re.MULTILINE)
_BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_KEY: Final = re.compile(r'"[^"]*"|\S+')
_NAMED: Final = {
    "Enter": b"\r",
    "Esc": b"\x1b",
    "Tab": b"\t",
    "Space": b" ",
    "Backspace": b"\x7f",
    "Up": b"\x1b[A",
    "Down": b"\x1b[B",
    "Right": b"\x1b[C",
    "Left": b"\x1b[D",
    "End": b"\x1b[F",
    "Home": b"\x1b[H",
    "PgDn": b"\x1b[6~",
    "Ctrl+U": b"\x15",
}
PASTE: Final = "Paste"


@dataclass(frozen=True, slots=True)
class Step:
    """A line of a block ```keys."""

    keys: tuple[str, ...]
    seen: str
    mark: str = ""

    @property
    def count(self) -> int:
        """How many keys are pressed; a text counts as one."""
        return len(self.keys)


@dataclass(frozen=True, slots=True)
class Block:
    kind: Kind
    steps: tuple[Step, ...] = ()  # of ```keys
    lines: tuple[str, ...] = ()  # of the others


@dataclass(frozen=True, slots=True)
class Task:
    number: int
    title: str
    blocks: tuple[Block, ...]


def tasks(page: str) -> list[Task]:
    """All of a page, in its order."""
    _, *parts = _TASK.split(page)
    return [
        Task(int(number), title, tuple(_blocks(text)))
        for number, title, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    ]


def _blocks(text: str) -> Sequence[Block]:
    found = []
    for name, body in _BLOCK.findall(text):
        kind = _KINDS[name]
        lines = tuple(line for line in body.splitlines() if line.strip())
        steps = tuple(_step(line) for line in lines) if kind == "keys" else ()
        found.append(Block(kind, steps, () if steps else lines))
    return found


def _step(line: str) -> Step:
    keys, seen, *mark = (part.strip() for part in line.split("|"))
    pressed: list[str] = []
    for key in _KEY.findall(keys):
        name, _, times = key.rpartition("*")
        pressed += [name] * int(times) if name in _NAMED and times.isdigit() else [key]
    return Step(tuple(pressed), seen, mark[0] if mark else "")


def to_action(steps: Sequence[Step]) -> list[int]:
    """How many keys lie between each row and its action."""
    found, since = [], None
    for step in steps:
        if since is not None:
            since += step.count
        if step.mark == "row":
            since = 0
        elif step.mark == "action":
            assert since is not None, f"an action without a row: {step}"
            found.append(since)
            since = None
    return found


def typed(key: str, names: Mapping[str, str], copied: str) -> bytes:
    """What a terminal sends for a key of the page. `copied`: what `Paste` is."""
    if key == PASTE:
        return b"\x1b[200~" + copied.encode() + b"\x1b[201~"
    if key in _NAMED:
        return _NAMED[key]
    if key.startswith('"'):
        return filled(key[1:-1], names).encode()
    assert len(key) == 1, f"no key: {key}"
    return key.encode()


def filled(text: str, names: Mapping[str, str]) -> str:
    return Template(text).substitute(names)
