"""What a terminal can do."""

from typing import Any

import pytest

from console.profile import profile_of

UTF8 = {"LANG": "en_US.UTF-8"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, ("truecolor", False, True, 1.0)),
        ({"TERM": "xterm-256color"}, ("256", False, True, 1.0)),
        ({"TERM": "xterm"}, ("16", False, True, 1.0)),
        ({"TERM": "xterm-direct"}, ("truecolor", False, True, 1.0)),
        ({"TERM": "linux"}, ("16", True, False, 2.0)),
        ({"TERM": "vt220", "COLORTERM": "truecolor"}, ("16", True, False, 2.0)),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, ("none", False, True, 1.0)),
        ({"TERM": "xterm-256color", "NO_COLOR": ""}, ("256", False, True, 1.0)),
        ({"TERM": "linux", "NO_COLOR": "1"}, ("none", True, False, 2.0)),
        ({"TERM": "xterm-256color", "LC_ALL": "C"}, ("256", True, True, 1.0)),
        ({"TERM": "xterm-256color", "LANG": "C", "LC_CTYPE": "C.utf8"}, ("256", False, True, 1.0)),
    ],
)
def test_of_a_terminal(environ: dict[str, str], expected: tuple[Any, ...]) -> None:
    found = profile_of({**UTF8, **environ}, is_terminal=True)
    assert (found.colours, found.ascii, found.mouse, found.refresh_s) == expected
    assert not found.dumb


def test_a_serial_line_is_slow_and_plain_whatever_its_term_says() -> None:
    found = profile_of({**UTF8, "TERM": "xterm-256color"}, is_terminal=True, device="/dev/ttyS0")
    assert (found.colours, found.ascii, found.mouse, found.refresh_s) == ("16", True, False, 2.0)
    assert found.line_speed_low
    asked = profile_of(
        {**UTF8, "TERM": "vt100"}, is_terminal=True, device="/dev/ttyUSB0", refresh_s=5.0
    )
    assert asked.refresh_s == 5.0


@pytest.mark.parametrize("term", ["", "dumb", "unknown"])
def test_nothing_is_painted_where_nothing_can_be(term: str) -> None:
    assert profile_of({**UTF8, "TERM": term}, is_terminal=True).dumb
    assert profile_of({**UTF8, "TERM": "xterm"}, is_terminal=False).dumb


def test_without_any_locale_it_is_ascii() -> None:
    assert profile_of({"TERM": "xterm"}, is_terminal=True).ascii
    assert profile_of({**UTF8, "TERM": "xterm"}, is_terminal=True, ascii_only=True).ascii
