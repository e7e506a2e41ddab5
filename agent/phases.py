"""The phases of a replica at its node, and the states the appliance is told."""

from enum import Enum, auto
from typing import Final

from appliance.wire.agent import ReplicaState


class Phase(Enum):
    PENDING = auto()
    STARTING = auto()
    READY = auto()
    DRAINING = auto()
    ENDING = auto()  # TERM was sent
    KILLING = auto()
    BACKOFF = auto()
    FAILED = auto()
    STOPPED = auto()

    @property
    def alive(self) -> bool:
        """Whether there is a process (or is about to be)."""
        return self in _ALIVE


_ALIVE: Final = frozenset(
    {Phase.STARTING, Phase.READY, Phase.DRAINING, Phase.ENDING, Phase.KILLING}
)
STATES: Final[dict[Phase, ReplicaState]] = {
    Phase.PENDING: "pending",
    Phase.STARTING: "starting",
    Phase.READY: "ready",
    Phase.DRAINING: "draining",
    Phase.ENDING: "draining",
    Phase.KILLING: "draining",
    Phase.BACKOFF: "backoff",
    Phase.FAILED: "failed",
    Phase.STOPPED: "stopped",
}
