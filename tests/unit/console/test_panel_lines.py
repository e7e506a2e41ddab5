"""Which part of a line is painted again."""

from hypothesis import given
from hypothesis import strategies as st

from console.cells import Cell
from console.widgets.panel import differing

CELLS = st.lists(
    st.builds(Cell, st.text("ab●", max_size=3), st.sampled_from(["plain", "good"])), max_size=8
)


def painted(cells: list[Cell]) -> list[tuple[str, str]]:
    return [(sign, cell.tone) for cell in cells for sign in cell.text]


@given(CELLS, CELLS)
def test_what_is_not_painted_again_is_as_it_was(old: list[Cell], new: list[Cell]) -> None:
    span = differing(old, new)
    before, after = painted(old), painted(new)
    if span is None:
        assert before == after
        return
    first, last = span
    assert before[:first] == after[:first]
    if last is not None:
        assert before[last:] == after[last:]


def test_one_cell_in_the_middle() -> None:
    line = [Cell("ab"), Cell("c"), Cell("d")]
    assert differing(line, [Cell("ab"), Cell("x", "bad"), Cell("d")]) == (2, 3)
    assert differing(line, line) is None
    assert differing(line, line[:2]) == (3, None)
