"""What stands on the terminal, so that only the signs that differ are sent to it. Pure.

Textual paints a line from the left edge of its widget to the last cell that changed, once for each
region in it, every run of a style with its colours and a reset: for a row of a table of which one
figure moved that is 200 bytes and more, of which four are news. On a serial line, and over a
satellite, the rest is what one waits for.

The picture is known from what was sent. Whatever is sent that is more than placing the cursor, a
style or text (erasing, another screen, a clipboard) makes all of it unknown, and what is unknown is
painted: then it costs bytes, never a wrong sign.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from rich.cells import get_character_cell_size

# ECMA-48: CUP, SGR, the modes of a synchronised update and of the cursor's sight, ends of lines,
# and text without controls.
_PIECE: Final = re.compile(
    r"\x1b\[(?P<at>\d*(?:;\d*)?)H"
    r"|\x1b\[(?P<shade>[\d;]*)m"
    r"|(?P<mode>\x1b\[\?(?:2026|25)[hl])"
    r"|(?P<end>\r?\n)"
    r"|(?P<text>[^\x00-\x1f\x7f-\x9f]+)"
)
_RESET: Final = "\x1b[0m"
# Signs that did not change are written again where a move over them is no shorter.
_JOIN_BYTES: Final = 4
_UNKNOWN: Final = ""

_Place = tuple[int, int]  # line and column, from 0
_Shade = tuple[frozenset[int], tuple[str, ...], tuple[str, ...]]  # attributes, colour, background


class Painting:
    """The signs of a terminal by line, each with its style as it was sent."""

    def __init__(self) -> None:
        self._size = (0, 0)
        self._signs: dict[int, list[str]] = {}
        self._shades: dict[int, list[str]] = {}
        self._cursor: _Place | None = None  # where it was left

    def forget(self) -> None:
        """Nothing is known of what stands there: all is painted."""
        self._signs.clear()
        self._shades.clear()

    def changed(self, data: str, size: tuple[int, int]) -> str:
        """What has the same effect as `data` on a terminal of (columns, lines)."""
        if size != self._size:
            self._size = size
            self.forget()
        stroke = _Stroke(self._cursor)
        line, column, shade, done = 0, 0, "", 0
        placed = False
        for piece in _PIECE.finditer(data):
            if piece.start() != done:
                break
            done = piece.end()
            kind = piece.lastgroup
            if kind == "text":
                if not placed or not self._run(stroke, line, column, piece["text"], shade):
                    done = -1
                    break
                column += len(piece["text"])
            elif kind == "shade":
                given = piece["shade"]
                shade = "" if given in ("", "0") else f"{shade};{given}" if shade else given
            elif kind == "at":
                line, column = _place(piece["at"])
                placed = True
            elif kind == "end":
                line, column = line + 1, 0
            else:
                stroke.mode(piece["mode"])
        if done != len(data):
            self.forget()
            self._cursor = None
            return data
        if placed:
            self._cursor = (line, column)
        return stroke.finish(self._cursor)

    def _run(self, stroke: _Stroke, line: int, column: int, text: str, shade: str) -> bool:
        """Text of one style. False: where it ends up is not sure."""
        columns, lines = self._size
        end = column + len(text)
        if end > columns or line >= lines or not (text.isascii() or all(map(_narrow, text))):
            return False
        signs = self._signs.setdefault(line, [_UNKNOWN] * columns)
        shades = self._shades.setdefault(line, [_UNKNOWN] * columns)
        before, of = signs[column:end], shades[column:end]
        if of.count(shade) == len(text):
            if before == list(text):
                return True
            different = [at for at, sign in enumerate(text) if sign != before[at]]
        else:
            different = [
                at for at, sign in enumerate(text) if sign != before[at] or shade != of[at]
            ]
        for first, last in _joined(different, text):
            stroke.paint(line, column + first, text[first:last], shade)
        signs[column:end] = text
        shades[column:end] = [shade] * len(text)
        return True


class _Stroke:
    """What is sent of one update: where the cursor is and its style, as it goes on."""

    def __init__(self, cursor: _Place | None) -> None:
        self._out: list[str] = []
        self._at = cursor
        self._shade = ""

    def mode(self, sequence: str) -> None:
        self._out.append(sequence)

    def paint(self, line: int, column: int, text: str, shade: str) -> None:
        self._out.append(_moved(self._at, (line, column)))
        self._out.append(turned(self._shade, shade))
        self._out.append(text)
        # Behind the last column terminals differ; from there it is always placed anew.
        self._at, self._shade = (line, column + len(text)), shade

    def finish(self, cursor: _Place | None) -> str:
        """Without a style, and with the cursor where it was to be."""
        if self._shade:
            self._out.append(_RESET)
        if cursor is not None and self._at != cursor:
            self._out.append(_placed(cursor))
        return "".join(self._out)


def _joined(different: list[int], text: str) -> list[tuple[int, int]]:
    """The spans to be painted, from..to."""
    spans: list[tuple[int, int]] = []
    for at in different:
        if spans and len(text[spans[-1][1] : at].encode()) <= _JOIN_BYTES:
            spans[-1] = spans[-1][0], at + 1
        else:
            spans.append((at, at + 1))
    return spans


def _place(given: str) -> _Place:
    """Of the parameters of CUP."""
    line, _, column = given.partition(";")
    return max(1, int(line or 1)) - 1, max(1, int(column or 1)) - 1


def _placed(at: _Place) -> str:
    return f"\x1b[{at[0] + 1};{at[1] + 1}H"


def _moved(old: _Place | None, new: _Place) -> str:
    if old == new:
        return ""
    if old is not None and old[0] == new[0] and old[1] < new[1]:
        step = new[1] - old[1]
        return "\x1b[C" if step == 1 else f"\x1b[{step}C"
    return _placed(new)


@lru_cache(maxsize=4_096)
def _narrow(sign: str) -> bool:
    return get_character_cell_size(sign) == 1


@lru_cache(maxsize=4_096)
def turned(old: str, new: str) -> str:
    """From the style of one SGR to that of another; "" is none."""
    if old == new:
        return ""
    if not new:
        return _RESET
    was, is_ = _read(old), _read(new)
    if was[0] <= is_[0] and bool(was[1]) <= bool(is_[1]) and bool(was[2]) <= bool(is_[2]):
        words = [str(each) for each in sorted(is_[0] - was[0])]
        words += is_[1] if is_[1] != was[1] else ()
        words += is_[2] if is_[2] != was[2] else ()
        return f"\x1b[{';'.join(words)}m" if words else ""
    words = [str(each) for each in sorted(is_[0])]
    return f"\x1b[{';'.join(('0', *words, *is_[1], *is_[2]))}m"


def _read(given: str) -> _Shade:
    attributes: set[int] = set()
    colour: tuple[str, ...] = ()
    background: tuple[str, ...] = ()
    words = given.split(";") if given else []
    while words:
        number = int(words[0] or 0)
        taken = 1
        if number in (38, 48):
            taken = 5 if words[1:2] == ["2"] else 3
        several, words = tuple(words[:taken]), words[taken:]
        if number == 0:
            attributes, colour, background = set(), (), ()
        elif number == 38 or 30 <= number <= 37 or 90 <= number <= 97:
            colour = several
        elif number == 48 or 40 <= number <= 47 or 100 <= number <= 107:
            background = several
        elif number == 39:
            colour = ()
        elif number == 49:
            background = ()
        else:
            attributes.add(number)
    return frozenset(attributes), colour, background
