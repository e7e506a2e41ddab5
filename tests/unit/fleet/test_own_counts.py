"""Which node is heard about what an engine counted."""

from appliance.domain.ids import DeploymentId, NodeId, ReplicaId
from appliance.fleet.own_counts import OwnCounts
from appliance.registry.replicas import ReplicaRow


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
