"""Text of a site loses what a terminal would obey, and nothing else."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.segment import ControlType, Segment
from textual.color import Color

from console.plain import line_filters, plain

_BLACK = Color(0, 0, 0)


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ("gpu-00", "gpu-00"),
        ("\x1b]0;owned\x07gpu", "]0;ownedgpu"),
        ("\x1b[2J", "[2J"),
        ("\x9b2J", "2J"),
        ("a\r\nb\tc\x00\x7f", "abc"),
        ("evil\u202egpj", "evilgpj"),
        ("漢字 é 👩\u200d👩 ●◐…", "漢字 é 👩\u200d👩 ●◐…"),
    ],
)
def test_only_signs_that_command_are_left_out(told: str, text: str) -> None:
    assert plain(told) == text


@given(st.text())
def test_no_control_is_left_and_no_column_moves(told: str) -> None:
    text = plain(told)
    assert not any(unicodedata.category(sign) in ("Cc", "Zl", "Zp") for sign in text)
    assert cell_len(text) == cell_len(told) or "\u200d" in told or "\ufe0f" in told
    assert plain(text) == text


@pytest.mark.parametrize("ascii_only", [True, False])
@given(told=st.text())
def test_what_is_written_has_none_and_in_ascii_only_ascii(told: str, *, ascii_only: bool) -> None:
    segments = [Segment(told)]
    for each in line_filters(ascii_only=ascii_only):
        segments = each.apply(segments, _BLACK)
    written = "".join(segment.text for segment in segments)
    assert "\x1b" not in written
    assert written.isascii() or not ascii_only


def test_what_textual_commands_itself_is_left() -> None:
    command = Segment("\x1b[H", None, [(ControlType.HOME,)])
    (filtered,) = line_filters(ascii_only=False)[0].apply([command], _BLACK)
    assert filtered is command
