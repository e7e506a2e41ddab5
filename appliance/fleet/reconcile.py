"""From what is wanted and what is reported to what each node shall run and what clients may use.

Pure: rows of the registry, sessions and probes in; placements, desired replicas, targets and
states out. Rules:
- A replica stays on its node and its GPUs. The row is placed anew only when its node was removed,
  is in maintenance, was silent for `moved_after_s`, or when its GPU failed under it; then where
  `placing` finds the best place. What had a place keeps it while there is no better.
- What must go while it serves is succeeded first, by a row of its own: `rollout`.
- A suspended deployment keeps its places; one that was unloaded gives them away.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from msgspec import structs

from appliance.domain.ids import DeploymentId, NodeId, ReplicaId
from appliance.fleet.estimate import Need
from appliance.fleet.node_facts import NodeFacts, units
from appliance.fleet.placing import Ask, choose
from appliance.fleet.rollout import Steps, steps
from appliance.fleet.room import Holding, Room
from appliance.fleet.statuses import (
    DeploymentStatus,
    ExternalFacts,
    ReplicaStatus,
    deployment_status,
    external_status,
    replica_status,
)
from appliance.registry.deployment_rows import CONTEXT_TOKENS_DEFAULT, DeploymentRow
from appliance.registry.engines import Engine
from appliance.registry.generations import Generation
from appliance.registry.replicas import ReplicaRow, Seat
from appliance.wire.agent import DesiredReplica, Pipeline

# Where the processes of one replica meet. Engines listen there on their node's own network, so
# neighbouring replicas need different ones.
_MASTER_PORT: Final = 29_501
_MASTER_PORTS: Final = 400

GenerationKey = tuple[DeploymentId, int]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the registry says. `needs` are estimates by generation; absent: nobody knows."""

    deployments: Sequence[DeploymentRow]
    replicas: Sequence[ReplicaRow]
    generations: Mapping[GenerationKey, Generation]
    needs: Mapping[GenerationKey, Need] = field(default_factory=dict)
    unloaded: frozenset[DeploymentId] = frozenset()  # nobody asked for them for their `idle_s`


@dataclass(frozen=True, slots=True)
class Plan:
    placements: Mapping[ReplicaId, tuple[Seat, ...]]  # that differ from the registry's
    desired: Mapping[NodeId, tuple[DesiredReplica, ...]]
    deployments: Mapping[DeploymentId, DeploymentStatus]
    successions: Sequence[tuple[DeploymentId, int]] = ()  # ordinals that get one more replica
    removals: Sequence[ReplicaId] = ()
    held: Mapping[NodeId, str] = field(default_factory=dict)  # why nodes cannot be emptied

    @property
    def changes(self) -> bool:
        """Whether the registry is to be changed."""
        return bool(self.placements or self.successions or self.removals)


def plan(
    wanted: Wanted,
    nodes: Mapping[NodeId, NodeFacts],
    external: Mapping[DeploymentId, ExternalFacts],
    moved_after_s: float,
) -> Plan:
    """Compare what is wanted with what is, for the whole fleet."""
    planner = _Planner(wanted, nodes, moved_after_s)
    for deployment in wanted.deployments:
        if deployment.engine is Engine.EXTERNAL:
            rows = planner.rows(deployment)
            facts = external.get(deployment.id)
            planner.statuses[deployment.id] = external_status(deployment, rows, facts)
        else:
            planner.add(deployment)
    return planner.plan()


def room_of(wanted: Wanted) -> Room:
    """What all replicas were promised."""
    return Room(
        Holding(row, wanted.needs.get((row.deployment_id, row.generation)))
        for row in wanted.replicas
        if row.node_id is not None
    )


def ask_of(deployment: DeploymentRow, generation: Generation, need: Need | None) -> Ask:
    """What a replica of that generation is to be given a place for."""
    return Ask(
        deployment_id=deployment.id,
        engine=deployment.engine,
        region=deployment.region,
        settings=generation.settings,
        need=need,
        pins=deployment.pins,
        model_digest=generation.model_digest,
        minimum_driver=generation.facts.minimum_driver,
    )


class _Planner:
    """One plan under way."""

    def __init__(
        self, wanted: Wanted, nodes: Mapping[NodeId, NodeFacts], moved_after_s: float
    ) -> None:
        self._wanted = wanted
        self._nodes = nodes
        self._moved_after_s = moved_after_s
        self._room = room_of(wanted)
        self._draining = {n for n, facts in nodes.items() if facts.row.wish == "draining"}
        self._rows: dict[DeploymentId, list[ReplicaRow]] = {}
        for row in wanted.replicas:
            self._rows.setdefault(row.deployment_id, []).append(row)
        living = {str(row.id) for row in wanted.replicas}
        self._ending = any(
            report.replica_id not in living and report.state not in {"failed", "stopped"}
            for facts in nodes.values()
            if not facts.lost
            for report in facts.reports.values()
        )
        self._placements: dict[ReplicaId, tuple[Seat, ...]] = {}
        self._desired: dict[NodeId, list[DesiredReplica]] = {node_id: [] for node_id in nodes}
        self._steps: dict[DeploymentId, Steps] = {}
        self._held: dict[NodeId, str] = {}
        self.statuses: dict[DeploymentId, DeploymentStatus] = {}

    def rows(self, deployment: DeploymentRow) -> Sequence[ReplicaRow]:
        return self._rows.get(deployment.id, ())

    def add(self, deployment: DeploymentRow) -> None:
        unloaded = deployment.id in self._wanted.unloaded
        seen: list[ReplicaStatus] = []
        for row in self.rows(deployment):
            seats, why = self._place(deployment, row, unloaded=unloaded)
            placed = row
            if seats != row.seats:
                self._placements[row.id] = seats
                placed = _seated(row, seats)
            if not deployment.suspended:
                self._desire(deployment, placed, asleep=unloaded)
            seen.append(replica_status(placed, self._nodes, why))
        why_no_room = self._why_no_room(deployment)
        done = steps(deployment, seen, self._draining, why_no_room, ending=self._ending)
        self._steps[deployment.id] = done
        for node_id in done.held:
            self._held.setdefault(node_id, f"{deployment.name} stays: {done.blocked}")
        progress = _progress(deployment, seen, done)
        self.statuses[deployment.id] = deployment_status(
            deployment, seen, unloaded=unloaded, progress=progress
        )

    def plan(self) -> Plan:
        return Plan(
            self._placements,
            {node: tuple(rows) for node, rows in self._desired.items()},
            self.statuses,
            [(d, ordinal) for d, done in self._steps.items() for ordinal in done.successions],
            [replica_id for done in self._steps.values() for replica_id in done.removals],
            self._held,
        )

    def _place(
        self, deployment: DeploymentRow, row: ReplicaRow, *, unloaded: bool
    ) -> tuple[tuple[Seat, ...], str]:
        """Where the replica belongs; () with the reason when that is nowhere."""
        known = row.seats if all(seat.node_id in self._nodes for seat in row.seats) else ()
        if unloaded and not self._generation(row).settings.sleep:
            self._room.give(row.id)
            return (), "It is unloaded."
        if known and not self._must_move(row):
            return known, ""
        # Nothing of it runs: no reason to move it now. And what is to be replaced anyway stays.
        if deployment.suspended or unloaded or row.generation < deployment.generation:
            return known, ""
        need = self._wanted.needs.get((deployment.id, row.generation))
        ask = ask_of(deployment, self._generation(row), need)
        choice = choose(ask, self._nodes, self._room.without(row.id))
        if choice.seats:
            self._room.give(row.id)
            self._room.take(Holding(_seated(row, choice.seats), need))
            return choice.seats, ""
        if known and not self._in_maintenance(known):
            return known, ""  # nowhere better: it may come back
        self._room.give(row.id)
        return (), choice.reason

    def _must_move(self, row: ReplicaRow) -> bool:
        return self._in_maintenance(row.seats) or any(
            self._nodes[seat.node_id].silent_s >= self._moved_after_s
            or self._broken(row, seat, self._nodes[seat.node_id])
            for seat in row.seats
        )

    def _in_maintenance(self, seats: Iterable[Seat]) -> bool:
        return any(self._nodes[seat.node_id].row.wish == "maintenance" for seat in seats)

    def _broken(self, row: ReplicaRow, seat: Seat, node: NodeFacts) -> bool:
        """Whether its node or its GPUs failed under it, and it with them."""
        report = node.reports.get(row.id)
        if node.lost or (report is not None and report.state in {"ready", "draining"}):
            return False
        if node.failed:
            return True
        sound = {unit.uuid for unit in units(node) if unit.state in {"ok", "degraded"}}
        return bool(node.gpus) and not sound.issuperset(seat.gpu_uuids)

    def _generation(self, row: ReplicaRow) -> Generation:
        return self._wanted.generations[row.deployment_id, row.generation]

    def _why_no_room(self, deployment: DeploymentRow) -> Callable[[Sequence[ReplicaId]], str]:
        def why(gone: Collection[ReplicaId]) -> str:
            key = deployment.id, deployment.generation
            need = self._wanted.needs.get(key)
            ask = ask_of(deployment, self._wanted.generations[key], need)
            return choose(ask, self._nodes, self._room.without(*gone)).reason

        return why

    def _desire(self, deployment: DeploymentRow, row: ReplicaRow, *, asleep: bool) -> None:
        """One process on each of its nodes."""
        generation = self._generation(row)
        master = self._nodes[row.seats[0].node_id].door if row.seats else None
        for rank, seat in enumerate(row.seats):
            pipeline = None
            if len(row.seats) > 1:
                if master is None:
                    return  # no other node knows where its first one is
                pipeline = Pipeline(
                    rank=rank,
                    nodes=len(row.seats),
                    master_host=master.host,
                    master_port=_MASTER_PORT + int(row.id[-8:], 16) % _MASTER_PORTS,
                )
            wanted = desired_replica(deployment, generation, row.id)
            self._desired[seat.node_id].append(
                structs.replace(wanted, gpu_uuids=seat.gpu_uuids, pipeline=pipeline, asleep=asleep)
            )


def _seated(row: ReplicaRow, seats: Sequence[Seat]) -> ReplicaRow:
    if not seats:
        return replace(row, node_id=None, gpu_uuids=(), followers=())
    first = seats[0]
    return replace(
        row, node_id=first.node_id, gpu_uuids=first.gpu_uuids, followers=tuple(seats[1:])
    )


def _progress(deployment: DeploymentRow, seen: Sequence[ReplicaStatus], done: Steps) -> str:
    """How far a change has come, and why no further; "" when nothing changes."""
    newest = deployment.generation
    old = [s for s in seen if s.row.generation < newest]
    if not old:
        return done.blocked
    new = [s for s in seen if s.row.generation == newest]
    ready = sum(s.state == "ready" for s in new)
    stuck = next((s.reason for s in new if s.state in {"failed", "backoff"} and s.reason), "")
    stuck = stuck or next((s.reason for s in new if not s.node_name), "")
    text = f"Generation {newest}: {ready} of {deployment.replicas} replicas serve."
    return f"{text} {stuck or done.blocked}".strip()


def desired_replica(
    deployment: DeploymentRow, generation: Generation, replica_id: str
) -> DesiredReplica:
    """A process of that generation, wherever it will run."""
    return DesiredReplica(
        replica_id=replica_id,
        deployment_id=deployment.id,
        generation=generation.number,
        engine=deployment.engine.value,
        model_name=deployment.name,
        model_path=generation.model_path,
        parallel=generation.parallel,
        context_tokens=generation.context_tokens or CONTEXT_TOKENS_DEFAULT,
        embedding=generation.embedding,
        settings=generation.settings,
    )
