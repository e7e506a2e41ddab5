"""The tables of the live stream: whatever comes, they are what the appliance has."""

from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from appliance.wire.stream import Change, Tick
from console.store import Changes, Store

_IDS = st.sampled_from("abcd")
# "id" and "uuid" are what a node and a GPU say of themselves: a new row has them.
_FIELDS = st.dictionaries(
    st.sampled_from(("x", "y", "id", "uuid")), st.integers(0, 3) | st.none(), max_size=4
)
_CHANGES = st.builds(
    Change,
    topic=st.sampled_from(["nodes", "gpus"]),
    whole=st.booleans(),
    rows=st.dictionaries(_IDS, _FIELDS, max_size=4),
    gone=st.lists(_IDS, max_size=2, unique=True),
)
_TICKS = st.lists(st.builds(Tick, at=st.just("2026-11-23T19:22:00Z"), changes=st.lists(_CHANGES)))


def _expected(tables: dict[str, dict[str, dict[str, Any]]], change: Change) -> None:
    if change.whole:
        tables[change.topic] = {row_id: dict(row) for row_id, row in change.rows.items()}
        return
    table = tables.setdefault(change.topic, {})
    for row_id, fields in change.rows.items():
        if row_id in table or {"nodes": "id", "gpus": "uuid"}[change.topic] in fields:
            table.setdefault(row_id, {}).update(fields)
    for row_id in change.gone:
        table.pop(row_id, None)


@given(_TICKS)
def test_the_tables_are_what_the_ticks_add_up_to(ticks: list[Tick]) -> None:
    store, tables = Store(), dict[str, dict[str, dict[str, Any]]]()
    for tick in ticks:
        store.apply(tick, 0)
        for change in tick.changes:
            _expected(tables, change)
    for topic in ("nodes", "gpus"):
        assert dict(store.table(topic)) == tables.get(topic, {})  # type: ignore[arg-type]
        assert store.knows(topic) == (topic in tables)  # type: ignore[arg-type]


@given(_TICKS)
def test_what_differs_is_told_and_is_a_new_row(ticks: list[Tick]) -> None:
    store = Store()
    for tick in ticks:
        topics = {change.topic for change in tick.changes}
        single = len(topics) == len(tick.changes)
        before = {topic: dict(store.table(topic)) for topic in topics}
        kept = {topic: _copy(rows) for topic, rows in before.items()}
        changes = store.apply(tick, 0)
        assert before == kept, "a row was changed where it stood"
        for topic in topics if single else ():
            if topic in changes.whole:
                continue
            after = store.table(topic)
            different = {each for each in after if before[topic].get(each) != after[each]}
            assert different <= changes.changed(topic)
            assert set(before[topic]) - set(after) <= changes.ended(topic)


def _copy(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row_id: dict(row) for row_id, row in rows.items()}


def test_age_and_freshness() -> None:
    store = Store()
    assert store.age_s(5) is None
    store.subscribed(frozenset({"nodes"}))
    assert not store.fresh("nodes")
    store.apply(Tick(at="", changes=[Change(topic="nodes", whole=True, rows={})]), 10**9)
    assert store.fresh("nodes")
    assert store.age_s(3 * 10**9) == 2.0
    assert store.age_s(0) == 0.0
    store.subscribed(frozenset({"gpus"}))
    assert not store.fresh("nodes")
    assert store.knows("nodes")


def test_a_tick_without_changes_is_heard_and_shows_nothing_new() -> None:
    store = Store()
    assert not store.apply(Tick(at="", changes=[]), 7)
    assert store.age_s(7) == 0.0
    assert Changes.everything(["nodes"]).touches("nodes")
    assert not Changes.everything(["nodes"]).touches("gpus")
    assert store.site is None
