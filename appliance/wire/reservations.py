"""Reserved capacity in the admin API. One unit is one token a second, of whatever kind."""

from typing import Annotated, Literal

import msgspec

from appliance.wire.admin_message import Message

ReservationState = Literal["scheduled", "active", "ended"]
Rate = Annotated[int, msgspec.Meta(ge=1, le=10**9)]
Priority = Annotated[int, msgspec.Meta(ge=0, le=100)]


class ReservationCreate(Message, frozen=True):
    """`environment` null: the tenant's, in all of them. `starts_at` null: now."""

    tenant: str
    model: str  # the deployment's name, as clients write it
    tokens_per_s: Rate
    environment: str | None = None
    starts_at: str | None = None  # ISO 8601
    ends_at: str | None = None  # null: no end
    priority: Priority = 0


class ReservationUpdate(Message, frozen=True):
    """null leaves a figure as it is; `ends_at` "" takes the end away."""

    tokens_per_s: Rate | None = None
    priority: Priority | None = None
    ends_at: str | None = None


class AttainedMinute(Message, frozen=True):
    """Tokens. Offered is what was delivered, refused, or waited too long."""

    at: str
    promised: int
    offered: int
    delivered: int
    attained_percent: float | None  # of the lesser of promised and offered; null: nothing offered


class Reservation(Message, frozen=True):
    id: str
    tenant: str
    environment: str | None
    model: str
    tokens_per_s: int
    priority: int
    state: ReservationState
    starts_at: str
    ends_at: str | None
    created_at: str
    ended_at: str | None
    slipping: bool  # less than was owed was delivered in the last minutes
    waiting: int  # requests that wait by it now
    attained: AttainedMinute | None  # the last whole minute; null: none yet since the start
    minutes: tuple[AttainedMinute, ...] = ()  # the last hour, where one reservation is shown


class Capacity(Message, frozen=True):
    """What can be promised of a deployment."""

    model: str
    measured_tokens_per_s: int | None  # by its ready replicas; null: not measured
    headroom_percent: int
    promisable_tokens_per_s: int
    promised_tokens_per_s: int  # now
    free_tokens_per_s: int
