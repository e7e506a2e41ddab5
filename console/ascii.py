"""For terminals with nothing beyond ASCII: every character is replaced, by as many cells."""

from collections.abc import Sequence
from typing import Final

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

_SAME: Final = {
    "-": "─━╌╍┄┅┈┉╴╶╸╺╼╾═▔▁‾⎺–—−",
    "_": "⎽▂",
    "|": "│┃╎╏┆┇┊┋╵╷╹╻╽╿║▏▕▎▐▌",
    "#": "▊▉▋▍▀█▄▇▆▅■",
    "=": "▃⏎",
    ".": "░·•⋅",
    ":": "▒⋮",
    "%": "▓",
    "^": "▲△▴↑",
    "v": "▼▽▾⏷↓",
    ">": "▶▸►▷→❯»",
    "<": "◀◂◄←«",
    "*": "●◉★",
    "o": "○◌°",
    "c": "◐◑◒◓",
    "x": "✗✘✖×",
    "y": "✓✔",
    "~": "…≈",
    "u": "µμ",
    "'": "‘’",
    '"': "“”",
}
_TABLE: Final[dict[int, str]] = {
    **dict.fromkeys(range(0x250C, 0x254C), "+"),
    **dict.fromkeys(range(0x2550, 0x2580), "+"),
    **{ord(sign): plain for plain, signs in _SAME.items() for sign in signs},
    # Heights of a spark.
    **{ord(sign): plain for sign, plain in zip("▁▂▃▄▅▆▇█", "_.,-=+*#", strict=True)},
    # Braille: by how many of the eight dots are set.
    **{0x2800 + bits: " .:#"[min(3, (bits.bit_count() + 2) // 3)] for bits in range(256)},
}


def to_ascii(text: str) -> str:
    """The same text in ASCII, of the same width in cells."""
    if text.isascii():
        return text
    text = text.translate(_TABLE)
    if text.isascii():
        return text
    return "".join(sign if sign.isascii() else "?" * cell_len(sign) for sign in text)


class AsciiFilter(LineFilter):
    """The last thing that happens to a line before it is written."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:  # noqa: ARG002 (Textual's signature)
        return _translated(segments)


def _translated(segments: Sequence[Segment]) -> list[Segment]:
    return [
        segment
        if segment.text.isascii()
        else Segment(to_ascii(segment.text), segment.style, segment.control)
        for segment in segments
    ]
