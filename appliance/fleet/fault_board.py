"""Every fault that agents tell, on its way into the audit."""

import logging
from collections.abc import Sequence
from typing import Final

import msgspec

from appliance.domain.clock import Clock
from appliance.domain.ids import NodeId
from appliance.registry.errors import NotFound
from appliance.registry.faults import FaultKey, NodeFaults, key_of
from appliance.wire.gpu import GpuFault, NodeHealth

log = logging.getLogger(__name__)

ACTOR: Final = "appliance:fleet"
# An agent that has lost its wits must not fill the disk: the audit keeps everything.
_PAUSE_S: Final = 2.0
_FAULTS_MAX: Final = 256
_WORD_CHARS_MAX: Final = 64
_TEXT_CHARS_MAX: Final = 500


class FaultBoard:
    """Heard at once, written by `record`: at most once in `_PAUSE_S` for each node."""

    __slots__ = ("_clock", "_heard", "_not_before_s", "_recorded", "_registry")

    def __init__(self, registry: NodeFaults, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._heard: dict[NodeId, tuple[GpuFault, ...]] = {}
        self._recorded: dict[NodeId, frozenset[FaultKey]] = {}
        self._not_before_s: dict[NodeId, float] = {}

    async def read(self) -> None:
        """Read what was open when the appliance ended. Raises StorageError."""
        self._recorded = await self._registry.list()

    def hear(self, node_id: NodeId, health: NodeHealth | None) -> bool:
        """What the agent of a node tells; True when something is to be recorded.

        None: the agent has only begun to look, and what was open stays so.
        """
        if health is None:
            return False
        self._heard[node_id] = tuple(_bounded(fault) for fault in health.faults[:_FAULTS_MAX])
        return self._due(node_id)

    def forget(self, node_id: NodeId) -> None:
        for known in (self._heard, self._recorded, self._not_before_s):
            known.pop(node_id, None)

    async def record(self) -> None:
        """Write what came and what went into the audit. Raises StorageError."""
        now_s = self._clock.monotonic_s()
        for node_id in [n for n in self._heard if self._due(n)]:
            if now_s < self._not_before_s.get(node_id, now_s):
                continue
            self._not_before_s[node_id] = now_s + _PAUSE_S
            faults = self._heard[node_id]
            try:
                await self._registry.settle(ACTOR, node_id, faults)
            except NotFound as error:  # the node was removed meanwhile
                log.info("faults not recorded", extra={"node_id": node_id, "why": str(error)})
            self._recorded[node_id] = _keys(faults)

    def _due(self, node_id: NodeId) -> bool:
        recorded = self._recorded.get(node_id, frozenset())
        return _keys(self._heard[node_id]) != recorded


def _bounded(fault: GpuFault) -> GpuFault:
    """What a node may write into the audit of the site."""
    return msgspec.structs.replace(
        fault,
        code=fault.code[:_WORD_CHARS_MAX],
        message=fault.message[:_TEXT_CHARS_MAX],
        next_step=fault.next_step[:_TEXT_CHARS_MAX],
        gpu_uuid=fault.gpu_uuid and fault.gpu_uuid[:_WORD_CHARS_MAX],
    )


def _keys(faults: Sequence[GpuFault]) -> frozenset[FaultKey]:
    return frozenset(key_of(fault) for fault in faults)
