"""Which node may tell what an engine counted: the one its replica was placed on.

What engines count enters signed totals. A node that tells of replicas that were never its own, or
that nobody knows, is not heard.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from appliance.domain.ids import NodeId, ReplicaId
from appliance.registry.replicas import ReplicaRow

# Replicas that were removed still drain, and count: the newest ones are remembered.
KEPT_MAX: Final = 10_000


class OwnCounts:
    __slots__ = ("_places",)

    def __init__(self) -> None:
        self._places: OrderedDict[ReplicaId, NodeId | None] = OrderedDict()

    def placed(self, rows: Iterable[ReplicaRow]) -> None:
        """Where replicas are now; those that are gone stay where they were."""
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
