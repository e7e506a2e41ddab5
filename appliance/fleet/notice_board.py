"""Every notice that stands: those of the clouds, told by agents, and those that people gave."""

import logging
from collections.abc import Mapping
from typing import Final

from appliance.domain.errors import CrossLogicError
from appliance.domain.ids import NodeId
from appliance.fleet.notices import Phase, by_our_clock, phase, sooner
from appliance.registry.notices import NodeNotices
from appliance.wire.agent import PreemptionNotice

log = logging.getLogger(__name__)

ACTOR: Final = "appliance:fleet"


class NoticeBoard:
    """What agents tell is heard at once and written into the audit by `record`."""

    __slots__ = ("_given", "_heard", "_recorded", "_registry", "_told")

    def __init__(self, registry: NodeNotices) -> None:
        self._registry = registry
        self._given: Mapping[NodeId, PreemptionNotice] = {}
        self._told: dict[NodeId, PreemptionNotice] = {}  # as it came, in the node's time
        self._heard: dict[NodeId, PreemptionNotice] = {}
        self._recorded: dict[NodeId, PreemptionNotice] = {}

    async def read(self) -> None:
        """Read those that people gave."""
        self._given = await self._registry.list()

    def hear(
        self,
        node_id: NodeId,
        notice: PreemptionNotice | None,
        sent_ns: int | None,
        now_ns: int,
    ) -> bool:
        """What the agent of a node tells; True when that is news.

        It is put into our time once, when it is news: clocks that run apart are no news.
        """
        if self._told.get(node_id) == notice:
            return False
        if notice is None:
            del self._told[node_id], self._heard[node_id]
        else:
            self._told[node_id] = notice
            self._heard[node_id] = by_our_clock(notice, sent_ns, now_ns)
        return True

    def forget(self, node_id: NodeId) -> None:
        self._told.pop(node_id, None)
        self._heard.pop(node_id, None)
        self._recorded.pop(node_id, None)

    def standing(self, node_id: NodeId) -> PreemptionNotice | None:
        """The notice that counts for a node: the one that ends sooner."""
        return sooner(self._given.get(node_id), self._heard.get(node_id))

    def phase(self, node_id: NodeId, now_ns: int) -> Phase:
        return phase(self.standing(node_id), now_ns)

    async def record(self) -> None:
        """Write what agents told since the last call into the audit. Raises StorageError."""
        for node_id in self._heard.keys() | self._recorded.keys():
            before, after = self._recorded.get(node_id), self._heard.get(node_id)
            if before == after:
                continue
            if after is None:
                del self._recorded[node_id]
            else:
                self._recorded[node_id] = after
            try:
                await self._registry.record(ACTOR, node_id, before, after)
            except CrossLogicError as error:  # the node was removed meanwhile
                log.info("notice not recorded", extra={"node_id": node_id, "why": str(error)})
