"""What goes into the scheduler and what comes out: tickets, answers, effects."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final

from appliance.domain.ids import DeploymentId, EnvironmentId, ReplicaId, TenantId
from appliance.scheduler.lanes import Lane, LaneView
from appliance.scheduler.replicas import ReplicaTarget
from appliance.scheduler.standing import Standing


class Outcome(StrEnum):
    """How the work of a ticket ended, as far as the replica is concerned."""

    OK = "ok"
    CLIENT_LEFT = "client_left"  # says nothing about the replica
    ENGINE_FAILED = "engine_failed"  # before or after the first byte: counts towards ejection
    REFUSED_BY_ENGINE = "refused_by_engine"  # a 4xx: the replica is well, the request was not


class ShedReason(StrEnum):
    """Why a ticket is turned away."""

    OVERLOADED = "overloaded"  # the queue is full, or its turn did not come in time
    MODEL_LOADING = "model_loading"  # no replica is ready yet, some are starting
    UNAVAILABLE = "unavailable"  # no replica is ready and none is starting
    TRIES_EXHAUSTED = "tries_exhausted"  # only from `retry`: answer with the failure that led here


class TicketState(IntEnum):
    NEW = 0
    WAITING = 1  # in the queue of its deployment
    RUNNING = 2  # on a replica
    DONE = 3  # finished, cancelled or shed: nothing is held for it any more


class Ticket:
    """One request on its way to a replica. Identity is its key; the caller may subclass it.

    `tokens` is the work expected of it: prompt estimate plus the output reserved; it stays as it
    is until the ticket is done. `used` are the tokens it really took, to be set before `finish`.
    The fields below belong to the scheduler; others only read them.
    """

    __slots__ = (
        "charged",
        "deployment_id",
        "environment_id",
        "lane",
        "place",
        "queued_at_s",
        "reserved",
        "started_at_s",
        "state",
        "tenant_id",
        "tokens",
        "tried",
        "used",
    )

    def __init__(
        self,
        deployment_id: DeploymentId,
        tenant_id: TenantId,
        tokens: int,
        environment_id: EnvironmentId | None = None,
    ) -> None:
        self.deployment_id = deployment_id
        self.tenant_id = tenant_id
        self.environment_id = environment_id
        self.tokens = tokens
        self.used = 0
        self.lane: Lane | None = None  # of its tenant's reservation
        self.reserved = False  # it ran by that lane's credit, not by everybody's way
        self.charged = 0.0  # tokens of that credit, until it ends
        self.state = TicketState.NEW
        self.place: Standing | None = None  # where it runs
        self.tried: tuple[ReplicaId, ...] = ()  # every replica it was placed on, in order
        self.queued_at_s = 0.0
        self.started_at_s = 0.0

    @property
    def target(self) -> ReplicaTarget | None:
        """The replica it runs on."""
        return None if self.place is None else self.place.target


@dataclass(slots=True)  # one for each request: a frozen one takes three times as long to make
class Placed:
    """Send it to this replica now."""

    target: ReplicaTarget


@dataclass(frozen=True, slots=True)
class Queued:
    """Wait for Start or ShedLate. `position` counts the tickets waiting, this one included."""

    position: int


@dataclass(frozen=True, slots=True)
class Loading:
    """How long the first replica still takes, as far as that is known.

    `takes_s`: from the moment somebody asks, where nothing is loaded before. `ready_at_s`: when
    one that loads already was expected to be ready; None: none loads yet.
    """

    takes_s: float | None = None
    ready_at_s: float | None = None

    def left_s(self, now_s: float) -> float | None:
        """None: unknown, or it takes longer than was thought."""
        if self.ready_at_s is None:
            return self.takes_s
        return self.ready_at_s - now_s if self.ready_at_s > now_s else None


UNKNOWN_LOADING: Final = Loading()


@dataclass(frozen=True, slots=True)
class Shed:
    """Turned away; the ticket is done. `retry_after_s` is in whole seconds, between 1 and 60.

    While a model loads it is as long as that takes, up to an hour.
    """

    reason: ShedReason
    retry_after_s: int


@dataclass(frozen=True, slots=True)
class Start:
    """The turn of a queued ticket has come: send it to this replica now."""

    ticket: Ticket
    target: ReplicaTarget


@dataclass(frozen=True, slots=True)
class ShedLate:
    """A queued ticket is turned away; it is done."""

    ticket: Ticket
    reason: ShedReason
    retry_after_s: int


Admission = Placed | Queued | Shed
Effect = Start | ShedLate
Effects = Sequence[Effect]


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """A replica as `cic status` and the metrics show it."""

    target: ReplicaTarget
    running: int
    slots: int
    outstanding_tokens: int
    tokens_per_s: float
    failures: int  # in a row
    ejected_s: float  # still to go; 0: not ejected
    trusted: bool  # False: ejected, or back and not yet proven


@dataclass(frozen=True, slots=True)
class DeploymentView:
    deployment_id: DeploymentId
    queued: int
    replicas: tuple[ReplicaView, ...]
    asked_at_s: float | None = None  # when the last request came, by the scheduler's clock
    lanes: tuple[LaneView, ...] = ()
