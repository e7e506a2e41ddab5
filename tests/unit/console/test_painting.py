"""What is sent to the terminal has the effect of what was to be sent, and costs less."""

import re
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from console.painting import Painting, turned

SIZE = (24, 5)
PIECE = re.compile(
    r"\x1b\[(?P<at>[\d;]*)H|\x1b\[(?P<on>\d*)C|\x1b\[(?P<shade>[\d;]*)m"
    r"|\x1b\[(?P<all>2)J|\x1b\[\?\d+[hl]|(?P<end>\n)|(?P<sign>[^\x1b])"
)
SHADES = ("", "1", "38;2;1;2;3", "1;38;2;1;2;3;48;2;9;9;9", "48;5;7", "31", "7;91;100", "2;3")


def shown(given: str) -> tuple[frozenset[int], str, str]:
    """What an SGR means: attributes, colour, background."""
    attributes: set[int] = set()
    colours = {"fg": "", "bg": ""}
    words = [int(word or 0) for word in given.split(";")] if given else [0]
    while words:
        number = words[0]
        taken = (5 if words[1] == 2 else 3) if number in (38, 48) else 1
        text, words = ";".join(map(str, words[:taken])), words[taken:]
        if number == 0:
            attributes, colours = set(), {"fg": "", "bg": ""}
        elif number == 38 or number // 10 in (3, 9):
            colours["fg"] = text
        elif number == 48 or number // 10 in (4, 10):
            colours["bg"] = text
        else:
            attributes.add(number)
    return frozenset(attributes), colours["fg"], colours["bg"]


class Glass:
    """A terminal that knows colours; nothing may be written past its right edge."""

    def __init__(self, size: tuple[int, int] = SIZE) -> None:
        self.size = size
        self.cells = {
            (line, column): (" ", shown("")) for line in range(size[1]) for column in range(size[0])
        }
        self.cursor = (0, 0)
        self._shade = ""

    def feed(self, data: str) -> None:
        done = 0
        for piece in PIECE.finditer(data):
            assert piece.start() == done
            done = piece.end()
            line, column = self.cursor
            if piece["at"] is not None:
                row, _, across = piece["at"].partition(";")
                self.cursor = int(row or 1) - 1, int(across or 1) - 1
            elif piece["on"] is not None:
                self.cursor = line, column + int(piece["on"] or 1)
                assert self.cursor[1] < self.size[0]
            elif piece["shade"] is not None:
                given = piece["shade"]
                fresh = given in ("", "0") or given.startswith("0;")
                self._shade = given if fresh else f"{self._shade or 0};{given}"
            elif piece["all"]:
                for at in self.cells:
                    self.cells[at] = (" ", shown(""))
            elif piece["end"]:
                self.cursor = line + 1, 0
            elif piece["sign"]:
                wide = cell_len(piece["sign"])
                assert column + wide <= self.size[0]
                for offset in range(wide):
                    sign = "" if offset else piece["sign"]
                    self.cells[line, column + offset] = sign, shown(self._shade)
                self.cursor = line, column + wide
        assert done == len(data)


@st.composite
def updates(draw: st.DrawFn) -> str:
    """What Textual sends for one: lines of runs, each placed and with its style."""
    if draw(st.integers(0, 9)) == 0:
        return "\x1b[2J"
    out = []
    for _ in range(draw(st.integers(1, 3))):
        line, column = draw(st.integers(0, SIZE[1] - 1)), draw(st.integers(0, SIZE[0] - 4))
        out.append(f"\x1b[{line + 1};{column + 1}H")
        room = SIZE[0] - column
        for _ in range(draw(st.integers(1, 4))):
            text = draw(st.text("ab 7●世", min_size=1, max_size=8))
            while cell_len(text) > room:
                text = text[:-1]
            room -= cell_len(text)
            shade = draw(st.sampled_from(SHADES))
            if text:
                out.append(f"\x1b[{shade}m{text}\x1b[0m" if shade else text)
    out.append(f"\x1b[{draw(st.integers(1, SIZE[1]))};{draw(st.integers(1, SIZE[0]))}H")
    return "".join(out)


def sent(all_of: Iterable[str]) -> tuple[Glass, Glass, list[str]]:
    wanted, got, painting, out = Glass(), Glass(), Painting(), []
    for data in all_of:
        wanted.feed(data)
        out.append(painting.changed(data, SIZE))
        got.feed(out[-1])
    return wanted, got, out


@given(st.lists(updates(), max_size=12))
def test_the_picture_is_the_one_that_was_meant(all_of: list[str]) -> None:
    wanted, got, out = sent(all_of)
    assert got.cells == wanted.cells
    assert got.cursor == wanted.cursor
    assert got._shade in ("", "0")
    again = [data for data in all_of if data != "\x1b[2J" and "世" not in data]
    assert sum(map(len, out)) <= sum(map(len, all_of)) + 8 * len(again)


@given(st.sampled_from(SHADES), st.sampled_from(SHADES))
def test_a_style_turns_into_another(old: str, new: str) -> None:
    glass = Glass()
    glass.feed(f"\x1b[{old}m{turned(old, new)}x")
    assert glass.cells[0, 0] == ("x", shown(new))


ROW = (
    "\x1b[2;1H\x1b[38;2;1;1;1mname \x1b[0m\x1b[32m● ready \x1b[0m"
    "\x1b[38;2;1;1;1m {} \x1b[0m\x1b[1;1H"
)


def test_of_a_row_only_the_figure_that_moved_is_sent() -> None:
    painting = Painting()
    assert painting.changed(ROW.format(2413), SIZE).count("name") == 1
    assert painting.changed(ROW.format(2413), SIZE) == ""
    assert painting.changed(ROW.format(2415), SIZE) == (
        "\x1b[2;18H\x1b[38;2;1;1;1m5\x1b[0m\x1b[1;1H"
    )


def test_figures_beside_each_other_are_reached_by_a_step() -> None:
    painting = Painting()
    painting.changed("\x1b[1;1Haaaaaaaaaaaaaaaaaaaa", SIZE)
    assert painting.changed("\x1b[1;1Hbaaaaaaaaabaabaaaaaa", SIZE) == (
        "\x1b[1;1Hb\x1b[9Cbaab\x1b[1;21H"
    )


@pytest.mark.parametrize(
    "what",
    ["\x1b[2J", "\x1b[?1049h", "\x1b]52;c;eA==\x07", "\x1bc", "\x1b[3;1H\x1b[K", "\t", "\x9b2J"],
)
def test_what_is_more_than_text_makes_all_unknown(what: str) -> None:
    painting = Painting()
    row = "\x1b[2;1Hready"
    painting.changed(row, SIZE)
    assert painting.changed(what, SIZE) == what
    assert "ready" in painting.changed(row, SIZE)


def test_another_size_makes_all_unknown() -> None:
    painting = Painting()
    row = "\x1b[2;1Hready"
    painting.changed(row, SIZE)
    assert painting.changed(row, SIZE) == ""
    assert "ready" in painting.changed(row, (80, 24))


def test_text_that_does_not_fit_is_sent_as_it_came() -> None:
    row = "\x1b[2;20Hmuch too long"
    assert Painting().changed(row, SIZE) == row


def test_a_synchronised_update_stays_one() -> None:
    painting = Painting()
    row = "\x1b[2;1Hready"
    painting.changed(row, SIZE)
    assert painting.changed("\x1b[?2026h", SIZE) == "\x1b[?2026h"
    assert painting.changed(row, SIZE) == ""
    assert painting.changed("\x1b[?2026l", SIZE) == "\x1b[?2026l"
