"""The table that changes all the time: what differs is painted, and nothing else."""

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from textual.app import App, ComposeResult
from textual.geometry import Region
from textual.pilot import Pilot

from console.cells import Cell, Column, Row
from console.widgets.live_table import LiveTable
from console.widgets.ranking import Ranking

COLUMNS = (
    Column("name", "NAME", 8, grow=True),
    Column("n", "N", 5, right=True),
    Column("rank", "RANK", 5, right=True, priority=2),
)
_SETTLED_S = 100.0  # rows move at once, each patch is so much later


def cells(_row_id: str, row: Row) -> Sequence[Cell]:
    return [Cell(str(row["name"])), Cell(str(row["n"])), Cell(str(row["rank"]))]


def sort_key(_row_id: str, row: Row, key: str) -> Any:
    return row[key]


class Shown(App[None]):
    """One table, alone. `refreshed` is what was asked to be painted again."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.refreshed: list[Region] = []
        self.table = LiveTable(
            COLUMNS, cells, sort_key=sort_key, sort_by="rank", monotonic_s=self._later
        )

    def _later(self) -> float:
        self.now_s += _SETTLED_S
        return self.now_s

    def compose(self) -> ComposeResult:
        yield self.table

    def watch(self) -> None:  # type: ignore[override]  # of this test
        """From now on."""
        self.refreshed.clear()
        before = self.table.refresh

        def refresh(*regions: Region, **how: Any) -> LiveTable:
            self.refreshed.extend(regions or (Region(-1, -1, 0, 0),))
            return before(*regions, **how)

        self.table.refresh = refresh  # type: ignore[method-assign,assignment]

    def lines(self) -> list[str]:
        return [self.table.render_line(y).text for y in range(self.table.size.height)]


def rows(number: int) -> dict[str, Row]:
    return {f"r{at}": {"name": f"name-{at}", "n": at, "rank": at} for at in range(number)}


async def _filled(app: Shown, pilot: Pilot[None], number: int) -> None:
    app.table.replace(rows(number))
    await pilot.pause()
    app.watch()


async def test_one_changed_cell_is_one_region() -> None:
    app = Shown()
    async with app.run_test(size=(40, 10)) as pilot:
        await _filled(app, pilot, 5)
        app.table.patch({"r2": {"name": "name-2", "n": 99, "rank": 2}})
        line = app.lines()[3]
        at = line.index("99")
        assert len(app.refreshed) == 1
        region = app.refreshed[0]
        assert (region.y, region.height, region.width) == (3, 1, 5)
        assert region.x <= at < region.right


async def test_the_same_row_again_paints_nothing() -> None:
    app = Shown()
    async with app.run_test(size=(40, 10)) as pilot:
        await _filled(app, pilot, 5)
        app.lines()
        app.table.patch({row_id: dict(row) for row_id, row in rows(5).items()})
        app.table.repaint()
        assert app.refreshed == []


async def test_a_row_that_is_out_of_sight_paints_nothing() -> None:
    app = Shown()
    async with app.run_test(size=(40, 10)) as pilot:
        await _filled(app, pilot, 100)
        app.table.patch({"r50": {"name": "other", "n": 0, "rank": 50}})
        assert app.refreshed == []


async def test_a_row_that_comes_or_goes_paints_the_table() -> None:
    app = Shown()
    async with app.run_test(size=(40, 10)) as pilot:
        await _filled(app, pilot, 5)
        for patched, gone in (({"r9": {"name": "new", "n": 1, "rank": 9}}, ()), ({}, ("r3",))):
            app.refreshed.clear()
            app.table.patch(patched, gone)
            assert Region(-1, -1, 0, 0) in app.refreshed
        assert list(app.table.shown) == ["r0", "r1", "r2", "r4", "r9"]


async def test_rows_that_change_places_paint_their_lines_and_do_so_not_too_often() -> None:
    app = Shown()
    async with app.run_test(size=(40, 10)) as pilot:
        await _filled(app, pilot, 5)
        app.lines()
        app.table.patch({"r1": {"name": "name-1", "n": 1, "rank": 9}})
        assert list(app.table.shown) == ["r0", "r2", "r3", "r4", "r1"]
        assert {region.y for region in app.refreshed} == {2, 3, 4, 5}
        app.table._monotonic_s = lambda: app.now_s  # no time passes any more
        app.table.patch({"r0": {"name": "name-0", "n": 0, "rank": 99}})
        assert next(iter(app.table.shown)) == "r0"


async def test_the_cursor_stays_on_its_row_and_near_one_that_went() -> None:
    app = Shown()
    async with app.run_test(size=(40, 10)) as pilot:
        await _filled(app, pilot, 5)
        await pilot.press("j", "j")
        assert app.table.current == "r2"
        app.table.patch({"r2": {"name": "name-2", "n": 2, "rank": 77}})
        assert app.table.current == "r2"
        app.table.patch({}, ["r2"])
        assert app.table.current == "r4"
        app.table.patch({}, ["r0", "r1", "r3", "r4"])
        assert app.table.current is None
        assert "Nothing here yet." in app.lines()[1]
        await pilot.press("enter", "j", "k", "end", "pageup", "f", "a", "s")


_ROW = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["ada", "bob", "漢字", ""]),
        "n": st.integers(0, 3),
        "rank": st.none() | st.integers(0, 3),
    }
)
_PATCHES = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from("abcdef"), _ROW, max_size=3),
        st.lists(st.sampled_from("abcdef"), max_size=2),
        st.booleans(),
    ),
    max_size=8,
)


@given(
    patches=_PATCHES,
    by=st.sampled_from(["", "rank", "n"]),
    descending=st.booleans(),
    wanted=st.sampled_from(["", "a", "b"]),
)
def test_patches_end_as_a_replacement_does(
    patches: list[tuple[dict[str, Row], list[str], bool]], by: str, *, descending: bool, wanted: str
) -> None:
    def ranking() -> Ranking:
        made = Ranking(sort_key, lambda row_id: words[row_id], sort_by=by, descending=descending)
        made.want(wanted)
        return made

    known: dict[str, Row] = {}
    words: dict[str, str] = {}
    patched = ranking()
    for changed, gone, settle in [*patches, ({}, [], True)]:
        for row_id in gone:
            known.pop(row_id, None)
        known.update(changed)
        words.update({row_id: str(row["name"]) for row_id, row in changed.items()})
        before = list(patched.order)
        told = patched.patch(changed, gone, settle=settle)
        assert told == (patched.order != before)
        assert set(patched.order) == {each for each in known if wanted in words[each]}
        assert [patched.at(row_id) for row_id in patched.order] == list(range(len(patched.order)))
    replaced = ranking()
    replaced.replace(known)
    assert patched.rows == replaced.rows
    assert patched.order == replaced.order
    assert patched.counts == f"{len(replaced.order)} of {len(known)}"


@given(_PATCHES)
def test_rows_that_have_not_settled_stay_where_they_are(
    patches: list[tuple[dict[str, Row], list[str], bool]],
) -> None:
    ranking = Ranking(sort_key, str, sort_by="rank")
    ranking.replace({each: {"name": each, "n": 0, "rank": 1} for each in "abcdef"})
    for changed, _gone, _settle in patches:
        before = list(ranking.order)
        assert not ranking.patch(changed, (), settle=False)
        assert ranking.order == before
