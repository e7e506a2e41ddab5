"""What a site tells is text: nothing of it commands the terminal.

Names, reasons and lines of logs come from people, programs and machines. An escape sequence in one
would rename the window, clear the screen or type an answer (CVE-2003-0063 and its kind); a mark of
direction would show a name as another. The signs that do so are left out; none has a width, so
every column stays where it is.
"""

from collections.abc import Sequence
from typing import Final

from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from console.ascii import AsciiFilter

_LEFT_OUT: Final[dict[int, None]] = dict.fromkeys(
    (
        *range(0x20),  # C0, of it ESC, tabulators and ends of lines
        *range(0x7F, 0xA0),  # DEL and C1, of it CSI and OSC of eight bits
        *(0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)),  # directions
        *(0x2028, 0x2029),  # ends of lines and paragraphs
    )
)


def plain(text: str) -> str:
    """The same text without what a terminal would obey."""
    return text if text.isprintable() else text.translate(_LEFT_OUT)


class PlainFilter(LineFilter):
    """Of every line that is written; what Textual itself commands is no text of a line."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:  # noqa: ARG002 (Textual's signature)
        return _without(segments)


def _without(segments: Sequence[Segment]) -> list[Segment]:
    return [
        segment
        if segment.control or segment.text.isprintable()
        else Segment(plain(segment.text), segment.style, segment.control)
        for segment in segments
    ]


def line_filters(*, ascii_only: bool) -> list[LineFilter]:
    """What happens to each line last."""
    return [PlainFilter(), AsciiFilter()] if ascii_only else [PlainFilter()]
