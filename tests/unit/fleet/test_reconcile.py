"""What each node shall run and what clients may use, from what is wanted and what is reported."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.domain.ids import DeploymentId, ModelId, NodeId, ReplicaId
from appliance.domain.usage import Operation
from appliance.fleet.external import Endpoint, Health
from appliance.fleet.node_facts import Door, NodeFacts
from appliance.fleet.reconcile import Plan, Wanted, plan
from appliance.fleet.statuses import DeploymentStatus, ExternalFacts
from appliance.registry.deployment_rows import DeploymentRow
from appliance.registry.engines import Engine
from appliance.registry.generations import Generation
from appliance.registry.nodes import NodeRow
from appliance.registry.replicas import ReplicaRow
from appliance.wire.agent import ReplicaReport
from appliance.wire.engine import EngineSettings
from appliance.wire.gpu import Gpu
from tests.fakes.deployments import deployment_row

D1 = DeploymentId("dep_1")
MOVED_AFTER_S = 60.0


def deployment(**changes: object) -> DeploymentRow:
    return deployment_row(**{"model_id": None, "context_tokens": 2048, **changes})


GENERATIONS = {
    (D1, number): Generation(
        D1, number, ModelId("mod_1"), "/m.gguf", "sha256:0", 1, 4, 2048, False, EngineSettings()
    )
    for number in (1, 2)
}


def replicas(count: int, on: str | None = None) -> list[ReplicaRow]:
    node = None if on is None else NodeId(on)
    return [ReplicaRow(ReplicaId(f"rep_{n}"), D1, n, node) for n in range(count)]


def report(replica: str, state: str = "ready", reason: str = "") -> ReplicaReport:
    return ReplicaReport(
        replica_id=replica,
        deployment_id=D1,
        generation=1,
        state=state,  # type: ignore[arg-type]  # a test's shorthand
        reason=reason,
        host="127.0.0.1",
        port=4000,
        slots=4,
    )


def node(
    name: str,
    *reports: ReplicaReport,
    silent_s: float = 0.0,
    suspended: bool = False,
    region: str = "local",
    engines: frozenset[str] = frozenset({"llamacpp"}),
) -> NodeFacts:
    lost = silent_s > 10
    return NodeFacts(
        row=NodeRow(NodeId(name), name, region, "maintenance" if suspended else "serving", 0),
        ready=not lost and not suspended,
        lost=lost,
        silent_s=silent_s,
        engines=engines,
        reports={r.replica_id: r for r in reports},
    )


def planned(
    rows: list[ReplicaRow],
    *nodes: NodeFacts,
    row: DeploymentRow | None = None,
    external: Mapping[DeploymentId, ExternalFacts] | None = None,
) -> tuple[Plan, DeploymentStatus]:
    made = plan(
        Wanted([row or deployment()], rows, GENERATIONS),
        {n.row.id: n for n in nodes},
        external or {},
        MOVED_AFTER_S,
    )
    return made, made.deployments[D1]


def placed(made: Plan) -> dict[str, str | None]:
    """The nodes of those that are to be placed anew."""
    return {
        replica_id: seats[0].node_id if seats else None
        for replica_id, seats in made.placements.items()
    }


def where(made: Plan) -> dict[str, list[str]]:
    return {name: [r.replica_id for r in desired] for name, desired in made.desired.items()}


def test_replicas_go_to_the_node_with_the_fewest() -> None:
    made, status = planned(replicas(4), node("a"), node("b"))
    assert where(made) == {"a": ["rep_0", "rep_2"], "b": ["rep_1", "rep_3"]}
    assert placed(made) == {"rep_0": "a", "rep_1": "b", "rep_2": "a", "rep_3": "b"}
    assert (status.state, status.starting) == ("starting", 4)


@pytest.mark.parametrize(
    ("nodes", "why"),
    [
        ([], "No node is ready"),
        ([node("a", suspended=True)], "cic node resume"),
        ([node("a", silent_s=11)], "No node is ready"),
        ([node("a", region="eu")], "region 'local'"),
        ([node("a", engines=frozenset())], "engine llamacpp"),
    ],
)
def test_where_no_node_fits_the_reason_is_said(nodes: list[NodeFacts], why: str) -> None:
    made, status = planned(replicas(1), *nodes)
    assert not made.placements
    assert (status.state, status.starting) == ("pending", 0)
    assert why in status.reason


def test_a_placed_replica_stays_where_it_is() -> None:
    made, _ = planned(replicas(3, on="a"), node("a", report("rep_0")), node("b"))
    assert not made.placements
    assert where(made)["b"] == []


def test_a_lost_node_serves_nobody_but_its_engines_stay_wanted() -> None:
    made, status = planned(replicas(1, on="a"), node("a", report("rep_0"), silent_s=11))
    assert where(made) == {"a": ["rep_0"]}
    assert status.targets == ()
    assert status.state == "failed"
    assert "not heard for 11 s. Start it on this host: `cic agent`" in status.reason


def test_a_lost_connection_is_no_dead_agent() -> None:
    """Of another host only the connection is known to be lost: nobody is told to start an agent."""
    door = Door(NodeId("a"), "192.0.2.7", 4443)
    lost = replace(node("a", report("rep_0"), silent_s=11), door=door)
    _made, status = planned(replicas(1, on="a"), lost)
    assert "not heard for 11 s. The connection to it is lost, or the machine." in status.reason
    assert "cic agent" not in status.reason
    assert "cic node show a" in status.reason


def test_a_node_lost_for_long_gives_its_replicas_to_another_if_there_is_one() -> None:
    lost = node("a", report("rep_0"), silent_s=MOVED_AFTER_S + 1)
    made, _ = planned(replicas(1, on="a"), lost, node("b"))
    assert placed(made) == {"rep_0": "b"}
    assert where(made) == {"a": [], "b": ["rep_0"]}
    alone, _ = planned(replicas(1, on="a"), lost)
    assert not alone.placements
    assert where(alone) == {"a": ["rep_0"]}


def test_a_suspended_node_gives_its_replicas_away() -> None:
    resting = node("a", report("rep_0"), suspended=True)
    made, _ = planned(replicas(1, on="a"), resting, node("b"))
    assert placed(made) == {"rep_0": "b"}
    alone, status = planned(replicas(1, on="a"), resting)
    assert placed(alone) == {"rep_0": None}
    assert where(alone) == {"a": []}
    assert status.state == "pending"


@pytest.mark.parametrize(
    ("states", "state", "targets", "starting"),
    [
        (["ready", "ready"], "ready", 2, 0),
        (["ready", "starting"], "degraded", 1, 1),
        (["ready", "failed"], "degraded", 1, 0),
        (["starting", "failed"], "starting", 0, 1),
        (["backoff", "backoff"], "failed", 0, 2),
        (["failed", "failed"], "failed", 0, 0),
        (["draining", "draining"], "starting", 0, 2),
        (["pending", "pending"], "starting", 0, 2),
    ],
)
def test_the_state_of_a_deployment(
    states: list[str], state: str, targets: int, starting: int
) -> None:
    whys = [
        "" if s == "ready" else f"why {s}" for s in states
    ]  # one that serves has no more to say
    reports = [report(f"rep_{n}", s, whys[n]) for n, s in enumerate(states)]
    _, status = planned(replicas(2, on="a"), node("a", *reports))
    assert (status.state, len(status.targets), status.starting) == (state, targets, starting)
    assert bool(status.reason) == (state != "ready")


def test_a_suspended_deployment_runs_and_serves_nothing() -> None:
    made, status = planned(
        replicas(1, on="a"), node("a", report("rep_0")), row=deployment(suspended=True)
    )
    assert where(made) == {"a": []}
    assert not made.placements
    assert (status.state, status.targets, status.starting) == ("suspended", (), 0)


def test_a_target_has_what_the_gateway_needs() -> None:
    _, status = planned(
        replicas(1, on="a"),
        node("a", replace_report(report("rep_0"))),
        row=deployment(upstream_model="other", generation=2),  # the older one serves on
    )
    (target,) = status.targets
    assert (target.host, target.port, target.api_key) == ("127.0.0.1", 4000, "k")
    assert (target.upstream_model, target.slots, target.tls) == ("other", 4, False)
    assert target.operations == {Operation.CHAT}


def replace_report(before: ReplicaReport) -> ReplicaReport:
    return ReplicaReport(
        replica_id=before.replica_id,
        deployment_id=before.deployment_id,
        generation=before.generation,
        state="ready",
        host=before.host,
        port=before.port,
        api_key="k",
        slots=before.slots,
    )


@pytest.mark.parametrize(
    ("health", "state", "targets"),
    [
        (Health(), "starting", 0),
        (Health(asked=True, ready=True), "ready", 1),
        (Health(asked=True, reason="refused"), "failed", 0),
    ],
)
def test_an_external_engine_is_one_replica(health: Health, state: str, targets: int) -> None:
    facts = ExternalFacts(Endpoint("gpu1", 443, True, "/x"), "sk", health)
    row = deployment(engine=Engine.EXTERNAL, url="https://gpu1/x", replicas=3)
    _, status = planned(replicas(3), row=row, external={D1: facts})
    assert (status.state, len(status.targets), len(status.replicas)) == (state, targets, 1)
    assert status.reason == ("" if state == "ready" else status.replicas[0].reason)
    for target in status.targets:
        assert (target.host, target.tls, target.base_path) == ("gpu1", True, "/x")


@given(
    counts=st.lists(st.sampled_from([None, "a", "b", "gone"]), max_size=12),
    silent=st.lists(st.sampled_from([0.0, 11.0, 100.0]), min_size=2, max_size=2),
    suspended=st.lists(st.booleans(), min_size=2, max_size=2),
)
def test_every_replica_is_wanted_on_one_node_at_the_most_and_planning_again_changes_nothing(
    counts: list[str | None], silent: list[float], suspended: list[bool]
) -> None:
    rows = [
        ReplicaRow(ReplicaId(f"rep_{n}"), D1, n, None if on is None else NodeId(on))
        for n, on in enumerate(counts)
    ]
    nodes = [
        node(name, silent_s=s, suspended=p)
        for name, s, p in zip("ab", silent, suspended, strict=True)
    ]
    made, status = planned(rows, *nodes)
    wanted = [replica for desired in where(made).values() for replica in desired]
    assert len(wanted) == len(set(wanted))
    assert len(status.replicas) == len(rows)
    settled = [replace(row, node_id=placed(made).get(row.id, row.node_id)) for row in rows]
    again, _ = planned(settled, *nodes)
    assert not again.placements
    assert where(again) == where(made)


def test_what_a_serving_engine_must_have_said_is_said_of_its_deployment() -> None:
    told = report("rep_0", reason="It has GPUs and runs on the processor.")
    _, status = planned(replicas(1, on="a"), node("a", told))
    assert (status.state, status.reason) == ("ready", "It has GPUs and runs on the processor.")


def test_a_replica_whose_gpu_is_gone_says_so_though_it_says_it_serves() -> None:
    gpu = Gpu(index=0, uuid="GPU-1", name="H100", bus_id="0", state="gone")
    rows = [replace(row, gpu_uuids=("GPU-1",)) for row in replicas(1, on="a")]
    _, status = planned(rows, replace(node("a", report("rep_0")), gpus=(gpu,)))
    assert "GPU-1 is gone" in status.reason
    assert "cic node show a" in status.reason
