"""Figures, bars, sparks, plots, lines: whole, and as wide as they shall be."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from rich.cells import cell_len

from console import words
from console.ascii import to_ascii
from console.cells import Column
from console.widgets.bars import bar
from console.widgets.columns import MARK, aligned, lay_out
from console.widgets.labels import Labels
from console.widgets.line import fit, wrapped
from console.widgets.plot import Series, plot
from console.widgets.spark import spark

_LARGE = st.integers(0, 10**15) | st.floats(0, 1e15, allow_nan=False)
_FIGURE = st.none() | st.floats(0, 1e15, allow_nan=False)
_TEXT = st.text(st.sampled_from("ab9 .漢é…\u0301👩"), max_size=40)


@given(_LARGE)
def test_a_figure_is_never_wider_than_its_column(value: float) -> None:
    assert cell_len(words.count(value)) <= 5
    assert cell_len(words.size(value)) <= 5
    assert cell_len(words.milliseconds(min(value, 1e8))) <= 7
    assert words.count(value)[0].isdigit()


@given(_LARGE)
def test_a_count_is_right_to_its_digits(value: float) -> None:
    text = words.count(value)
    factor = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}.get(text[-1], 1.0)
    shown = float(text.rstrip("kMGT")) * factor
    assert shown == pytest.approx(value, rel=0.01, abs=0.51)


def test_columns_with_an_end_grow_first_and_the_rest_goes_to_the_others() -> None:
    columns = (
        Column("name", "N", 5, grow=True),
        Column("rate", "R", 4),
        Column("trend", "T", 5, grow=True, most=10),
    )
    needed = MARK + 6 + 5 + 6
    for spare, name, trend in ((0, 5, 5), (3, 5, 8), (5, 5, 10), (9, 9, 10)):
        laid_out = lay_out(columns, needed + spare)
        assert [wide for _, _, _, wide in laid_out] == [name, 4, trend]
        assert laid_out[-1][2] + trend + 1 == needed + spare


def test_what_was_not_measured_is_a_dash_never_0() -> None:
    makers = (words.count, words.size, words.percent, words.milliseconds, words.duration)
    assert {make(None) for make in makers} == {words.MISSING}
    now = datetime(2026, 11, 23, tzinfo=UTC)
    for odd in (None, "", "soon", "2026-13-45T00:00:00Z"):
        assert words.ago(odd, now) == words.until(odd, now) == words.MISSING
        assert words.clock_time(odd) == words.day_time(odd) == words.MISSING
    assert words.state(None).text == words.or_missing("") == words.MISSING


@given(st.integers(0, 10**10))
def test_a_duration_is_two_units_of_which_none_is_0(seconds: int) -> None:
    units = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
    parts = words.duration(seconds).split()
    assert 1 <= len(parts) <= 2
    told = sum(int(part[:-1]) * units[part[-1]] for part in parts)
    assert told <= seconds < told + units[parts[-1][-1]] * (60 if len(parts) == 1 else 1) * 24
    assert len(parts) == 1 or not parts[1].startswith("0")


@given(st.timedeltas(timedelta(0), timedelta(days=10_000)))
def test_how_long_ago_and_until_agree(span: timedelta) -> None:
    at = datetime(2026, 11, 23, tzinfo=UTC)
    text = at.isoformat()
    assert words.ago(text, at + span) == words.until(text, at - span)
    assume(span.total_seconds() > 0)
    assert words.until(text, at + span) == "passed"


_COLUMNS = st.lists(
    st.builds(Column, st.just("k"), st.just("T"), st.integers(1, 20), priority=st.integers(1, 4)),
    min_size=1,
    max_size=9,
)


@given(_COLUMNS, st.integers(1, 200), st.integers(-1, 8))
def test_columns_stay_inside_and_the_important_ones_stay(
    columns: list[Column], width: int, grows: int
) -> None:
    if 0 <= grows < len(columns):
        old = columns[grows]
        columns[grows] = Column("k", "T", old.width, grow=True, priority=old.priority)
    laid_out = lay_out(columns, width)
    indexes = [index for index, _, _, _ in laid_out]
    must = [index for index, column in enumerate(columns) if column.priority == 1]
    assert set(must) <= set(indexes)
    assert indexes == sorted(indexes)
    x = MARK
    for index, column, at, wide in laid_out:
        assert at == x
        assert column is columns[index]
        assert wide == column.width if not column.grow else wide >= column.width
        x += wide + 1
    least = MARK + sum(columns[index].width + 1 for index in must)
    assert x <= max(width, least)
    if any(column.grow for _, column, _, _ in laid_out):
        assert x >= width
    gone = [column.priority for at, column in enumerate(columns) if at not in indexes]
    assert not gone or min(gone) >= max((each[1].priority for each in laid_out), default=0)


@given(text=_TEXT, width=st.integers(0, 50), right=st.booleans())
def test_aligned_is_as_wide_as_it_shall_be(text: str, width: int, *, right: bool) -> None:
    shown = aligned(text, width, right=right)
    assert cell_len(shown) == width
    if cell_len(text) <= width:
        assert shown.strip(" ") == text.strip(" ")
    elif width:
        assert "…" in shown


@given(_TEXT, st.integers(0, 50))
def test_fit_cuts_only_what_does_not_fit(text: str, width: int) -> None:
    shown = fit(text, width)
    assert cell_len(shown) <= width
    assert shown == text or cell_len(text) > width


@given(_TEXT, st.integers(2, 40))
def test_a_wrapped_text_keeps_every_character(text: str, width: int) -> None:
    lines = wrapped(text, width)
    assert all(cell_len(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_lines_are_broken_at_spaces() -> None:
    assert wrapped("one two three", 8) == ["one two", "three"]
    assert wrapped("abcdefghij kl", 4) == ["abcd", "efgh", "ij", "kl"]
    assert wrapped("", 8) == [""]


@given(_TEXT)
def test_ascii_has_the_same_width(text: str) -> None:
    plain = to_ascii(text)
    assert plain.isascii()
    assert to_ascii(plain) == plain
    assert cell_len(plain) == cell_len(text)


@given(st.lists(_FIGURE, max_size=60), st.integers(0, 40), _FIGURE)
def test_a_spark_is_as_wide_as_asked(
    values: list[float | None], width: int, top: float | None
) -> None:
    text = spark(values, width, top=top)
    assert len(text) == width
    shown = values[-width:] if width else []
    for sign, value in zip(text[width - len(shown) :], shown, strict=True):
        assert (sign == " ") == (value is None)


def test_a_spark_rises_with_its_values() -> None:
    assert spark(list(range(8)), 8) == "▁▂▃▄▅▆▇█"
    assert spark([5, 5], 3) == " ██"


@given(_FIGURE, _FIGURE, st.integers(0, 40))
def test_a_bar_is_as_wide_as_asked(used: float | None, whole: float | None, width: int) -> None:
    cells = bar(used, whole, width)
    assert sum(len(cell.text) for cell in cells) == width
    if used is None or not whole:
        assert cells[0].tone == "dim"


@given(
    st.lists(st.tuples(st.floats(-100, 3_700), _FIGURE), max_size=80).map(
        lambda points: sorted(points, key=lambda point: point[0])
    ),
    st.integers(12, 120),
    st.integers(3, 20),
)
def test_a_plot_stays_in_its_room(
    points: list[tuple[float, float | None]], width: int, height: int
) -> None:
    lines = plot(
        Series("load", points), width=width, height=height, span_s=3_600, until_s=3_600, unit="W"
    )
    assert len(lines) == height
    for line in lines[1:-1]:
        assert sum(cell_len(cell.text) for cell in line) <= width
    inside = [value for at, value in points if value is not None and 0 <= at < 3_600]
    drawn = any(
        any(0x2800 < ord(sign) <= 0x28FF for sign in cell.text) for line in lines for cell in line
    )
    assert drawn == bool(inside)


@given(st.integers(0, 200))
def test_every_label_leads_to_its_row(number: int) -> None:
    rows = [f"row-{at}" for at in range(number)]
    names = Labels()
    names.offer(rows)
    told = [names.of(row) for row in rows]
    assert all(told)
    assert len(set(told)) == number
    for row, name in zip(rows, told, strict=True):
        names.offer(rows)
        found = [names.type(sign) for sign in name]
        assert found[-1] == row
        assert found[:-1] == [None] * (len(name) - 1)
        assert not names.offered


@pytest.mark.parametrize("sign", [None, "Z", "é", "\x00"])
def test_a_key_that_is_no_label_takes_them_away(sign: str | None) -> None:
    names = Labels()
    names.offer(["a", "b"])
    assert names.type(sign) is None
    assert not names.offered
