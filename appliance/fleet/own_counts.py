"""Which node may tell what an engine counted and does: the one its replica was placed on.

What engines count enters signed totals. A node that tells of replicas that were never its own, or
that nobody knows, is not heard.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from msgspec import structs

from appliance.domain.ids import NodeId, ReplicaId
from appliance.manifests.engine_counts import EngineReading
from appliance.registry.replicas import ReplicaRow
from appliance.wire.agent import EngineCount

# Replicas that were removed still drain, and count: the newest ones are remembered.
KEPT_MAX: Final = 10_000


class OwnCounts:
    __slots__ = ("_loads", "_places")

    def __init__(self) -> None:
        self._places: OrderedDict[ReplicaId, NodeId | None] = OrderedDict()
        self._loads: dict[str, EngineCount] = {}  # of replicas that are placed now

    @property
    def loads(self) -> Mapping[str, EngineCount]:
        """By replica, what was told last; what it does now may be from before a silence."""
        return self._loads

    def placed(self, rows: Iterable[ReplicaRow]) -> None:
        """Where replicas are now; those that are gone stay where they were."""
        rows = list(rows)
        placed = {row.id for row in rows}
        self._loads = {known: load for known, load in self._loads.items() if known in placed}
        for row in rows:
            self._places[row.id] = row.node_id
            self._places.move_to_end(row.id)
        while len(self._places) > KEPT_MAX:
            self._places.popitem(last=False)

    def may_tell(self, node_id: NodeId, replica_id: str) -> bool:
        """A replica that is between two nodes is told of by either."""
        if replica_id not in self._places:
            return False
        return self._places[ReplicaId(replica_id)] in {None, node_id}

    def hear(self, node_id: NodeId, counts: Iterable[EngineCount]) -> Iterator[EngineReading]:
        """What a node tells of its own replicas; the rest is not heard."""
        for count in counts:
            if self.may_tell(node_id, count.replica_id):
                self._loads[count.replica_id] = count if _can_be(count) else _untold(count)
                yield EngineReading(
                    count.replica_id,
                    count.incarnation,
                    count.prompt_tokens,
                    count.generated_tokens,
                )


def _can_be(count: EngineCount) -> bool:
    figures = (count.running, count.waiting, count.cache_used, count.tokens_per_s)
    if any(figure is not None and figure < 0 for figure in figures):
        return False
    return count.cache_used is None or count.cache_used <= 1


def _untold(count: EngineCount) -> EngineCount:
    return structs.replace(count, running=None, waiting=None, cache_used=None, tokens_per_s=None)
