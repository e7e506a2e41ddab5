"""The nodes of a site and their GPUs, a sign each, on as many lines as there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from textual import events
from textual.binding import Binding
from textual.message import Message

from console.cells import Cell, Row
from console.widgets.labels import Labels
from console.widgets.panel import Lines
from console.words import state

# A GPU this close to where it slows itself down is called hot, °C.
_HOT: Final = 3
_TEN: Final = 10


@dataclass(frozen=True, slots=True)
class Picture:
    """Lines of cells, and where a node begins in them: its id -> line and column."""

    lines: Sequence[Sequence[Cell]]
    places: Mapping[str, tuple[int, int]]


def gpu_mark(gpu: Row) -> Cell:
    """0–9 tenths of its use, ! hot or unwell, x down, - not known."""
    if gpu.get("stale") or gpu.get("state") in ("gone", "failed"):
        return Cell("x", "bad")
    hot_at, at = gpu.get("temperature_slowdown"), gpu.get("temperature")
    hot = hot_at is not None and at is not None and at >= hot_at - _HOT
    if hot or gpu.get("state") == "degraded":
        return Cell("!", "warn")
    used = gpu.get("utilisation")
    if used is None:
        return Cell("-", "dim")
    # One tone: the digit says it all.
    return Cell(str(min(9, int(used) // 10)))


def worst_mark(marks: Sequence[Cell], node: Row) -> Cell:
    """One sign for a node: its worst GPU; a node without any shows only whether it is there."""
    if node.get("state") in ("unreachable", "failed"):
        return Cell("x", "bad")
    rank = {"x": 100, "!": 50, "-": -1}  # before the tenths of its use
    if not marks:
        return Cell("·", "dim")
    return max(
        marks, key=lambda mark: rank.get(mark.text, int(mark.text) if mark.text.isdigit() else 0)
    )


def node_map(nodes: Mapping[str, Row], gpus: Mapping[str, Row], width: int, lines: int) -> Picture:
    """A line a node while there is room, else every GPU in groups, else a sign a node, in tens."""
    marks: dict[str, list[tuple[int, Cell]]] = {}
    for gpu in gpus.values():
        marks.setdefault(gpu.get("node", ""), []).append((gpu.get("index", 0), gpu_mark(gpu)))
    named = sorted(nodes.items(), key=lambda node: str(node[1].get("name")))
    of = {
        name: [mark for _, mark in sorted(each, key=lambda at: at[0])]
        for name, each in marks.items()
    }
    every = [of.get(str(node.get("name")), []) for _, node in named]
    ids = [node_id for node_id, _ in named]
    if len(named) <= lines:
        return Picture(
            [_node_line(node, own) for (_, node), own in zip(named, every, strict=True)],
            {node_id: (at, 0) for at, node_id in enumerate(ids)},
        )
    groups = [own or [worst_mark(own, node)] for own, (_, node) in zip(every, named, strict=True)]
    wide = max(len(group) for group in groups) + 1
    in_line = max(1, width // wide)
    if -(-len(groups) // in_line) <= lines:
        return _in_groups(ids, groups, in_line, wide)
    worst = [worst_mark(own, node) for own, (_, node) in zip(every, named, strict=True)]
    return _in_tens(ids, worst, max(_TEN, (width - 1) // (_TEN + 1) * _TEN))


def _in_groups(
    ids: Sequence[str], groups: Sequence[Sequence[Cell]], in_line: int, wide: int
) -> Picture:
    lines = [
        [
            cell
            for group in groups[at : at + in_line]
            for cell in (*group, Cell(" " * (wide - len(group))))
        ]
        for at in range(0, len(groups), in_line)
    ]
    places = {node_id: (at // in_line, at % in_line * wide) for at, node_id in enumerate(ids)}
    return Picture(lines, places)


def _in_tens(ids: Sequence[str], marks: Sequence[Cell], in_row: int) -> Picture:
    """Of each ten only the first can be named: there is one sign a node."""
    rows: list[list[Cell]] = [[]]
    places: dict[str, tuple[int, int]] = {}
    for at, (node_id, mark) in enumerate(zip(ids, marks, strict=True)):
        if at and at % in_row == 0:
            rows.append([])
        elif at and at % _TEN == 0:
            rows[-1].append(Cell(" "))
        if at % _TEN == 0:
            places[node_id] = len(rows) - 1, len(rows[-1])
        rows[-1].append(mark)
    return Picture(rows, places)


def _node_line(node: Row, marks: Sequence[Cell]) -> list[Cell]:
    cells = [Cell(f"{node.get('name', '')!s:<16.16} "), state(str(node.get("state", "")))]
    cells.append(Cell(" " * max(1, 15 - len(cells[-1].text))))
    cells += [part for mark in marks for part in (mark, Cell(" "))]
    if not marks:
        cells.append(Cell("no GPUs", "dim"))
    return cells


def labelled(picture: Picture, labels: Mapping[str, str]) -> list[list[Cell]]:
    """The lines with a label over the first signs of each node that has one."""
    lines = [
        [Cell(sign, cell.tone) for cell in line for sign in cell.text] for line in picture.lines
    ]
    for node_id, label in labels.items():
        line, column = picture.places[node_id]
        for offset, sign in enumerate(label):
            if column + offset < len(lines[line]):
                lines[line][column + offset] = Cell(sign, "accent")
    return lines


class NodeMap(Lines, can_focus=True):
    """The map. Enter opens the fleet; `f` puts letters over the nodes, which open one."""

    BINDINGS: ClassVar[list[Any]] = [
        Binding("enter", "open", "The fleet"),
        Binding("f", "jump", "Jump to a node by its label"),
    ]

    class Opened(Message):
        """None: the fleet, no certain node."""

        def __init__(self, node_id: str | None) -> None:
            super().__init__()
            self.node_id = node_id

    def __init__(self) -> None:
        super().__init__()
        self._labels = Labels()
        self._picture = Picture((), {})

    def draw(self, picture: Picture) -> None:
        self._picture = picture
        offered = {
            node_id: label for node_id in picture.places if (label := self._labels.of(node_id))
        }
        self.show(labelled(picture, offered) if offered else picture.lines)

    def action_open(self) -> None:
        self.post_message(self.Opened(None))

    def action_jump(self) -> None:
        self._labels.offer(list(self._picture.places))
        self.draw(self._picture)

    def on_key(self, event: events.Key) -> None:
        if not self._labels.offered:
            return
        event.stop()
        event.prevent_default()
        node_id = self._labels.type(event.character)
        self.draw(self._picture)
        if node_id is not None:
            self.post_message(self.Opened(node_id))
