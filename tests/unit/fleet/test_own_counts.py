"""Which node is heard about what an engine counted."""

from typing import Any

import pytest

from appliance.domain.ids import DeploymentId, NodeId, ReplicaId
from appliance.fleet.own_counts import OwnCounts
from appliance.registry.replicas import ReplicaRow
from appliance.wire.agent import EngineCount


def replica_row(replica_id: str, node_id: str | None) -> ReplicaRow:
    node = None if node_id is None else NodeId(node_id)
    return ReplicaRow(ReplicaId(replica_id), DeploymentId("dep_1"), 0, node)


def test_a_node_tells_of_its_own_replicas_also_of_those_that_were_removed() -> None:
    counts = OwnCounts()
    counts.placed([replica_row("rep_1", "nod_1")])
    counts.placed([replica_row("rep_2", "nod_2")])
    assert counts.may_tell(NodeId("nod_1"), "rep_1")
    assert not counts.may_tell(NodeId("nod_2"), "rep_1")
    assert not counts.may_tell(NodeId("nod_1"), "rep_unheard_of")
    assert not counts.may_tell(NodeId(""), "rep_unheard_of")


def test_one_between_two_nodes_is_told_of_by_either() -> None:
    counts = OwnCounts()
    counts.placed([replica_row("rep_1", None)])
    assert counts.may_tell(NodeId("nod_1"), "rep_1")
    counts.placed([replica_row("rep_1", "nod_2")])
    assert not counts.may_tell(NodeId("nod_1"), "rep_1")


def told(replica_id: str, **load: Any) -> EngineCount:
    return EngineCount(
        replica_id=replica_id, incarnation="1-1", prompt_tokens=9, generated_tokens=5, **load
    )


def test_what_an_engine_does_is_kept_while_its_replica_is_placed() -> None:
    counts = OwnCounts()
    counts.placed([replica_row("rep_1", "nod_1"), replica_row("rep_2", "nod_2")])
    busy = [told("rep_1", running=3, waiting=1, cache_used=0.5, tokens_per_s=80.0), told("rep_2")]
    (reading,) = counts.hear(NodeId("nod_1"), busy)
    assert (reading.replica_id, reading.prompt_tokens, reading.generated_tokens) == ("rep_1", 9, 5)
    assert set(counts.loads) == {"rep_1"}
    assert counts.loads["rep_1"].waiting == 1
    counts.placed([replica_row("rep_2", "nod_2")])
    assert counts.loads == {}
    # It drains: what it counts is heard still, what it does is nobody's affair any more.
    assert [each.replica_id for each in counts.hear(NodeId("nod_1"), [told("rep_1")])] == ["rep_1"]


@pytest.mark.parametrize(
    "lie", [{"running": -1}, {"waiting": -5}, {"cache_used": 1.5}, {"tokens_per_s": -1.0}]
)
def test_figures_that_cannot_be_are_not_believed(lie: dict[str, Any]) -> None:
    counts = OwnCounts()
    counts.placed([replica_row("rep_1", "nod_1")])
    told_of = told("rep_1", **{"running": 3, "waiting": 1, **lie})
    assert [each.generated_tokens for each in counts.hear(NodeId("nod_1"), [told_of])] == [5]
    load = counts.loads["rep_1"]
    assert (load.running, load.waiting, load.cache_used, load.tokens_per_s) == (None,) * 4
