"""Changes and moves of replicas, planned turn by turn against nodes that do as they are told."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.domain.ids import DeploymentId, ModelId, NodeId, ReplicaId
from appliance.fleet.estimate import Need
from appliance.fleet.node_facts import NodeFacts
from appliance.fleet.reconcile import Plan, Wanted, plan
from appliance.fleet.statuses import DeploymentStatus
from appliance.registry.deployment_rows import DeploymentRow
from appliance.registry.engine_settings import DEFAULTS
from appliance.registry.generations import Generation
from appliance.registry.replicas import ReplicaRow
from appliance.wire.agent import ReplicaReport
from appliance.wire.engine import EngineSettings
from appliance.wire.gpu import GpuProcess
from tests.fakes.deployments import deployment_row
from tests.fakes.node_types import GIB, gpus, node, replace_gpu

D1 = DeploymentId("dep_1")
ON_GPU = EngineSettings(gpus=1)


@dataclass
class World:
    """A registry and agents that start one step after they are told, and serve one later."""

    deployment: DeploymentRow
    nodes: dict[NodeId, NodeFacts]
    need: Need | None = None
    settings: EngineSettings = DEFAULTS
    broken: set[int] = field(default_factory=set)  # generations that never serve
    rows: list[ReplicaRow] = field(default_factory=list)
    made_rows: int = 0
    unloaded: frozenset[DeploymentId] = frozenset()
    made: Plan | None = None

    def __post_init__(self) -> None:
        for ordinal in range(self.deployment.replicas):
            self.add(ordinal)

    def add(self, ordinal: int) -> None:
        number, self.made_rows = self.made_rows, self.made_rows + 1
        self.rows.append(
            ReplicaRow(ReplicaId(f"rep_{number}"), D1, ordinal, None, self.deployment.generation)
        )

    def change(self, **changes: object) -> None:
        generation = self.deployment.generation + 1
        self.deployment = replace(self.deployment, generation=generation, **changes)  # type: ignore[arg-type]  # a test's shorthand

    def wish(self, name: str, wish: str) -> None:
        facts = self.nodes[NodeId(name)]
        row = replace(facts.row, wish=wish)  # type: ignore[arg-type]  # a test's shorthand
        self.nodes[NodeId(name)] = replace(facts, row=row, ready=wish == "serving")

    @property
    def wanted(self) -> Wanted:
        generations = {
            (D1, n): Generation(
                D1, n, ModelId("m"), "/m.gguf", "sha256:0", 1, 4, 512, False, self.settings
            )
            for n in range(1, self.deployment.generation + 1)
        }
        needs = dict.fromkeys(generations, self.need) if self.need else {}
        return Wanted([self.deployment], list(self.rows), generations, needs, self.unloaded)

    def turn(self) -> DeploymentStatus:
        """One plan, carried out, and one step of every agent."""
        made = plan(self.wanted, self.nodes, {}, 60.0)
        self.made = made
        seated = {
            r.id: replace(
                r,
                node_id=seats[0].node_id if seats else None,
                gpu_uuids=seats[0].gpu_uuids if seats else (),
            )
            for r in self.rows
            if (seats := made.placements.get(r.id)) is not None
        }
        self.rows = [seated.get(r.id, r) for r in self.rows if r.id not in made.removals]
        for _, ordinal in made.successions:
            self.add(ordinal)
        for node_id, facts in self.nodes.items():
            self.nodes[node_id] = self._step(facts, made)
        return made.deployments[D1]

    def _step(self, facts: NodeFacts, made: Plan) -> NodeFacts:
        reports = {}
        for desired in made.desired[facts.row.id]:
            before = facts.reports.get(desired.replica_id)
            state = "starting" if before is None else "ready"
            if desired.generation in self.broken:
                state = "failed"
            reports[desired.replica_id] = ReplicaReport(
                replica_id=desired.replica_id,
                deployment_id=D1,
                generation=desired.generation,
                state=state,  # type: ignore[arg-type]  # a test's shorthand
                reason="it cannot" if state == "failed" else "",
                host="127.0.0.1",
                port=4000,
            )
        # What is not wanted any more ends one step later, and holds what it has until then.
        for replica_id, report in facts.reports.items():
            if replica_id not in reports and report.state != "draining":
                reports[replica_id] = replace_report(report, state="draining")
        held = {u: r.replica_id for r in made.desired[facts.row.id] for u in r.gpu_uuids}
        for gpu in facts.gpus:
            for process in gpu.processes:
                if process.replica_id in reports:
                    held.setdefault(gpu.uuid, process.replica_id)
        size = 0 if self.need is None else self.need.per_gpu_bytes
        present = tuple(
            replace_gpu(
                gpu,
                memory_used_bytes=size if gpu.uuid in held else 0,
                processes=(GpuProcess(pid=1, memory_bytes=size, replica_id=held[gpu.uuid]),)
                if gpu.uuid in held
                else (),
            )
            for gpu in facts.gpus
        )
        return replace(facts, reports=reports, gpus=present)

    def settle(self, turns: int = 40) -> DeploymentStatus:
        """Until nothing changes any more."""
        status = self.turn()
        for _ in range(turns):
            known = (self.rows, [f.reports for f in self.nodes.values()])
            status = self.turn()
            if known == (self.rows, [f.reports for f in self.nodes.values()]):
                break
        return status

    def serving(self) -> int:
        """Replicas that serve now, by what the last plan may use and the agents still run."""
        ready = {
            r.replica_id
            for f in self.nodes.values()
            for r in f.reports.values()
            if r.state == "ready"
        }
        living = {row.id for row in self.rows}
        return len(ready & living)

    def generations(self) -> set[int]:
        return {row.generation for row in self.rows}

    def where(self) -> list[str | None]:
        return sorted(str(row.node_id) for row in self.rows)


def replace_report(report: ReplicaReport, **changes: object) -> ReplicaReport:
    fields = {name: getattr(report, name) for name in report.__struct_fields__}
    return ReplicaReport(**(fields | changes))


def world(replicas: int, *facts: NodeFacts, strategy: str = "auto", **more: object) -> World:
    nodes = {f.row.id: f for f in facts or (node("a"), node("b"))}
    made = World(deployment_row(replicas=replicas, strategy=strategy), nodes, **more)  # type: ignore[arg-type]  # a test's shorthand
    made.settle()
    assert made.serving() == replicas
    return made


def on_gpus(replicas: int, count: int, strategy: str = "auto") -> World:
    """Each replica fills a GPU."""
    facts = node("a", gpus("a", "NVIDIA L4", count, 24))
    need = Need(0, 0, 1, 20 * GIB, 0)
    return world(replicas, facts, strategy=strategy, need=need, settings=ON_GPU)


@pytest.mark.parametrize("strategy", ["auto", "surge"])
@pytest.mark.parametrize("replicas", [1, 2, 5, 9])
def test_a_change_is_rolled_out_with_no_replica_less(strategy: str, replicas: int) -> None:
    site = world(replicas, strategy=strategy)
    site.change(parallel=8)
    most = 0
    for _ in range(100):
        site.turn()
        assert site.serving() >= replicas, "never one less than before"
        most = max(most, len(site.rows))
        if site.generations() == {2} and len(site.rows) == replicas:
            break
    status = site.settle()
    assert (status.state, status.reason, len(site.rows)) == ("ready", "", replicas)
    assert site.generations() == {2}
    assert most <= replicas + max(1, replicas // 4), "few at a time"


def test_recreate_goes_one_after_the_other() -> None:
    site = world(3, strategy="recreate")
    site.change()
    least = 3
    for _ in range(60):
        site.turn()
        least = min(least, site.serving())
        assert len(site.rows) <= 3
    assert least == 2
    assert site.generations() == {2}


def test_without_room_for_both_auto_lets_the_one_of_before_go_first() -> None:
    site = on_gpus(2, 2)
    site.change()
    least = 2
    for _ in range(60):
        site.turn()
        least = min(least, site.serving())
    assert (least, site.generations(), site.serving()) == (1, {2}, 2)


def test_with_a_spare_gpu_auto_leaves_no_gap() -> None:
    site = on_gpus(2, 3)
    site.change()
    for _ in range(60):
        site.turn()
        assert site.serving() >= 2
    assert site.generations() == {2}


def test_surge_without_room_waits_and_says_so() -> None:
    site = on_gpus(2, 2, strategy="surge")
    site.change()
    status = site.settle()
    assert (status.state, site.generations(), site.serving()) == ("ready", {1}, 2)
    assert "no room beside what serves" in status.reason
    assert "1 GPU short by" in status.reason


def test_a_change_that_fits_nowhere_stops_nothing() -> None:
    site = on_gpus(2, 2)
    site.need = Need(0, 0, 1, 30 * GIB, 0)
    site.change()
    status = site.settle()
    assert (site.generations(), site.serving()) == ({1}, 2)
    assert "too small by 6.0 GiB" in status.reason


@pytest.mark.parametrize("strategy", ["auto", "surge"])
def test_a_change_that_does_not_start_leaves_the_rest_serving(strategy: str) -> None:
    site = world(4, strategy=strategy, broken={2})
    site.change()
    status = site.settle()
    assert site.serving() == 4
    assert "Generation 2: 0 of 4 replicas serve. it cannot" in status.reason
    site.change()  # what is wrong was set right
    for _ in range(60):
        site.turn()
        assert site.serving() >= 4
    assert site.generations() == {3}


def test_recreate_that_does_not_start_stops_at_one() -> None:
    site = world(3, strategy="recreate", broken={2})
    site.change()
    site.settle()
    assert site.serving() == 2


def test_a_node_is_drained_with_no_replica_less() -> None:
    site = world(4, node("a"), node("b"), node("c"))
    site.wish("a", "draining")
    for _ in range(60):
        site.turn()
        assert site.serving() >= 4
    assert "a" not in site.where()
    assert site.serving() == len(site.rows) == 4


def test_what_has_no_other_place_serves_on_a_node_that_drains() -> None:
    site = world(1, node("a"))
    site.wish("a", "draining")
    status = site.settle()
    assert (site.serving(), site.where()) == (1, ["a"])
    assert status.state == "ready"
    assert site.made is not None
    assert "m stays: There is no room" in site.made.held[NodeId("a")]
    site.wish("a", "serving")
    assert site.settle().reason == ""


def test_maintenance_stops_what_has_no_other_place() -> None:
    site = world(1, node("a"))
    site.wish("a", "maintenance")
    status = site.settle()
    assert (site.serving(), site.where(), status.state) == (0, ["None"], "pending")
    site.wish("a", "serving")
    site.settle()
    assert site.serving() == 1


def test_a_move_is_taken_back_when_its_node_serves_again() -> None:
    site = world(2, node("a"), node("b"))
    before = site.where()
    site.wish("a", "draining")
    site.turn()
    site.wish("a", "serving")
    site.settle()
    assert site.serving() == len(site.rows) == 2
    assert site.where() == before


def test_a_gpu_that_is_gone_gives_its_replica_to_another() -> None:
    site = on_gpus(1, 2)
    (uuid,) = site.rows[0].gpu_uuids
    facts = site.nodes[NodeId("a")]
    lost = tuple(replace_gpu(g, state="gone") if g.uuid == uuid else g for g in facts.gpus)
    site.nodes[NodeId("a")] = replace(facts, gpus=lost, reports={})
    site.settle()
    assert site.serving() == 1
    assert site.rows[0].gpu_uuids != (uuid,)


def test_what_is_unloaded_gives_its_gpu_away_and_gets_one_again() -> None:
    site = on_gpus(1, 1)
    site.unloaded = frozenset({D1})
    status = site.settle()
    assert (status.state, status.starting, site.rows[0].seats) == ("unloaded", 1, ())
    assert site.serving() == 0
    site.unloaded = frozenset()
    site.settle()
    assert site.serving() == 1


def test_an_engine_that_sleeps_keeps_its_gpu() -> None:
    site = on_gpus(1, 1)
    site.settings = EngineSettings(gpus=1, sleep=True)
    site.unloaded = frozenset({D1})
    status = site.settle()
    assert (status.state, status.targets) == ("unloaded", ())
    assert site.made is not None
    (desired,) = site.made.desired[NodeId("a")]
    assert desired.asleep
    assert desired.gpu_uuids == site.rows[0].gpu_uuids


@given(
    st.integers(1, 5),
    st.lists(
        st.sampled_from(["change", "drain a", "drain b", "serve a", "serve b", "turn", "turn"]),
        max_size=25,
    ),
)
def test_whatever_is_changed_nothing_is_lost_and_all_of_it_ends(
    replicas: int, events: list[str]
) -> None:
    site = world(replicas, node("a"), node("b"), node("c"))
    for event in events:
        verb, _, name = event.partition(" ")
        if verb == "change":
            site.change()
        elif verb == "turn":
            site.turn()
        else:
            site.wish(name, "draining" if verb == "drain" else "serving")
        assert site.serving() >= replicas
    status = site.settle(100)
    assert site.generations() == {site.deployment.generation}
    assert len(site.rows) == replicas == site.serving()
    assert (status.state, status.reason) == ("ready", "")
