"""Versions of the live tables: whoever applies what it is told has what there is."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from appliance.admin.tables import Tables
from appliance.wire.stream import Change, Topic

TOPICS: tuple[Topic, ...] = ("nodes", "gpus")


class Thing(msgspec.Struct, frozen=True):
    name: str
    figure: int | None = None


rows = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]),
    st.builds(Thing, st.sampled_from(["x", "y"]), st.one_of(st.none(), st.integers(0, 2))),
)
steps = st.lists(st.tuples(st.sampled_from(TOPICS), rows), max_size=12)


def applied(known: dict[str, dict[str, Any]], changes: list[Change]) -> dict[str, dict[str, Any]]:
    """As a subscriber does it."""
    known = {topic: dict(table) for topic, table in known.items()}
    for change in changes:
        table = {} if change.whole else known.get(change.topic, {})
        for row_id, fields in change.rows.items():
            table[row_id] = {**table.get(row_id, {}), **fields}
        for row_id in change.gone:
            table.pop(row_id, None)
        known[change.topic] = table
    return known


def now(taken: dict[str, dict[str, Thing]]) -> dict[str, dict[str, Any]]:
    return {
        topic: {row_id: msgspec.to_builtins(row) for row_id, row in table.items()}
        for topic, table in taken.items()
    }


@given(steps, st.lists(st.booleans(), max_size=12))
def test_who_applies_each_difference_has_the_tables(
    history: list[tuple[Topic, dict[str, Thing]]], looks: list[bool]
) -> None:
    tables = Tables()
    taken: dict[str, dict[str, Thing]] = {}
    known: dict[str, dict[str, Any]] = {}
    since: int | None = None
    for at, (topic, new) in enumerate(history):
        tables.take(topic, new)
        taken[topic] = new
        if at < len(looks) and looks[at]:
            known = applied(known, tables.changes(TOPICS, since))
            since = tables.version
    known = applied(known, tables.changes(TOPICS, since))
    assert known == now(taken)


def test_only_fields_that_differ_are_told() -> None:
    tables = Tables()
    tables.take("nodes", {"a": Thing("x", 1), "b": Thing("y", 2)})
    version = tables.version
    tables.take("nodes", {"a": Thing("x", 5), "b": Thing("y", 2)})
    assert tables.changes(["nodes"], version) == [
        Change(topic="nodes", rows={"a": {"figure": 5}}, gone=[])
    ]


def test_nothing_new_raises_no_version_and_tells_nothing() -> None:
    tables = Tables()
    assert tables.take("nodes", {"a": Thing("x")})
    version = tables.version
    assert not tables.take("nodes", {"a": Thing("x")})
    assert tables.version == version
    assert tables.changes(["nodes"], version) == []


def test_a_row_that_ended_is_told_to_who_comes_back_and_whole_to_who_is_too_late() -> None:
    tables = Tables()
    tables.take("nodes", {"a": Thing("x"), "b": Thing("y")})
    version = tables.version
    tables.take("nodes", {"a": Thing("x")})
    assert tables.changes(["nodes"], version)[0].gone == ["b"]
    for number in range(5_000):
        tables.take("nodes", {f"n{number}": Thing("x")})
    (change,) = tables.changes(["nodes"], version)
    assert change.whole
    assert set(change.rows) == {"n4999"}


def test_a_topic_that_was_never_looked_at_comes_whole_to_an_old_version() -> None:
    tables = Tables()
    tables.take("nodes", {"a": Thing("x")})
    version = tables.version
    tables.take("gpus", {"g": Thing("y")})
    (change,) = tables.changes(TOPICS, version)
    assert (change.topic, change.whole) == ("gpus", True)
