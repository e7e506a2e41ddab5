"""Who has what of the nodes: replicas, memory promised to them, memory that others hold.

Mutable, but without input or output: a plan makes one, and another to ask "what if".
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from appliance.domain.ids import DeploymentId, NodeId, ReplicaId
from appliance.fleet.estimate import GIB, Need
from appliance.fleet.node_facts import Unit
from appliance.registry.replicas import ReplicaRow

# The driver itself holds some hundred megabytes of a GPU that nobody uses; of a small one, less.
_DRIVER_BYTES_MAX: Final = GIB
_DRIVER_SHARE: Final = 16


@dataclass(frozen=True, slots=True)
class Holding:
    """What one replica was promised. `need` None: unknown, so its GPUs are all its own."""

    row: ReplicaRow
    need: Need | None


class Room:
    """What is promised counts from a replica's placement on; what others hold is measured."""

    __slots__ = ("_by_unit", "_gone", "_held", "_host", "_per_node")

    def __init__(self, holdings: Iterable[Holding], gone: Collection[ReplicaId] = ()) -> None:
        """`gone` are holdings that are thought away, and their processes with them."""
        self._gone = frozenset(gone)
        self._held: dict[ReplicaId, Holding] = {}
        self._by_unit: dict[str, set[ReplicaId]] = defaultdict(set)
        self._host: Counter[NodeId] = Counter()
        self._per_node: Counter[tuple[NodeId, DeploymentId | None]] = Counter()
        for holding in holdings:
            self.take(holding)

    def without(self, *gone: ReplicaId) -> "Room":
        """As it would be if those were gone."""
        return Room(self._held.values(), self._gone.union(gone))

    def take(self, holding: Holding) -> None:
        self._held[holding.row.id] = holding
        self._count(holding, 1)

    def give(self, replica_id: ReplicaId) -> None:
        """Its place is free; what its process still holds is measured like a stranger's."""
        holding = self._held.pop(replica_id, None)
        if holding is not None:
            self._count(holding, -1)

    def replicas(self, node_id: NodeId, deployment_id: DeploymentId | None = None) -> int:
        """How many are on the node; None: of all deployments."""
        return self._per_node[node_id, deployment_id]

    def host_bytes(self, node_id: NodeId) -> int:
        """Of the node's own memory, promised to replicas."""
        return self._host[node_id]

    def taken(self, unit: Unit) -> bool:
        """Whether anybody has any of it."""
        return bool(self._by_unit[unit.uuid] - self._gone) or self.foreign_bytes(unit) > 0

    def free_bytes(self, unit: Unit) -> int:
        """Neither promised nor held by others."""
        staying = self._by_unit[unit.uuid] - self._gone
        held = max(_promised(self._holdings(staying), unit), _measured(unit, staying) or 0)
        return max(0, (unit.total_bytes or 0) - held - self.foreign_bytes(unit))

    def foreign_bytes(self, unit: Unit) -> int:
        """Held by programs that are no replica of ours: strangers, and those that still end.

        Measured. Where the driver does not tell which process has how much, what replicas were
        promised is taken to be theirs.
        """
        ours = self._by_unit[unit.uuid]
        known = None if unit.profile else _measured(unit, ours)
        theirs = _promised(self._holdings(ours), unit) if known is None else known
        rest = (unit.used_bytes or 0) - theirs
        return (
            rest if rest > min(_DRIVER_BYTES_MAX, (unit.total_bytes or 0) // _DRIVER_SHARE) else 0
        )

    def _holdings(self, replica_ids: Collection[ReplicaId]) -> list[Holding]:
        return [self._held[replica_id] for replica_id in replica_ids]

    def _count(self, holding: Holding, sign: int) -> None:
        row = holding.row
        for seat in row.seats:
            for uuid in seat.gpu_uuids:
                if sign > 0:
                    self._by_unit[uuid].add(row.id)
                else:
                    self._by_unit[uuid].discard(row.id)
            if row.id in self._gone:
                continue
            self._per_node[seat.node_id, None] += sign
            self._per_node[seat.node_id, row.deployment_id] += sign
            if holding.need is not None:
                self._host[seat.node_id] += sign * holding.need.host_bytes


def _promised(holdings: Iterable[Holding], unit: Unit) -> int:
    total_bytes = unit.total_bytes or 0
    promised = 0
    for holding in holdings:
        if holding.need is None:
            promised += total_bytes
        elif holding.need.share is not None:
            promised += int(holding.need.share * total_bytes)
        else:
            promised += holding.need.per_gpu_bytes
    return promised


def _measured(unit: Unit, replica_ids: Collection[ReplicaId]) -> int | None:
    """What processes of those replicas hold of the GPU; None: the driver does not tell."""
    counts = [p.memory_bytes for p in unit.gpu.processes if p.replica_id in replica_ids]
    known = [count for count in counts if count is not None]
    return sum(known) if counts and len(known) == len(counts) else None
