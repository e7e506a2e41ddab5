"""Lanes: the way of capacity reservations through the queue of a deployment.

A lane earns its promised tokens/s, up to BURST_S of them. While it has credit, its requests start
before all others; what they are expected to cost is taken when they start, and set right when they
have ended. Without credit they stand in the fair queue like everybody's. What a lane does not use
is everybody's: no slot is kept free for it, the next one that becomes free is its own.

So over any time T a lane that always has work waiting gets at least rate × T less one request for
each slot, as long as the replicas are as fast as was promised.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from appliance.domain.ids import EnvironmentId, TenantId

if TYPE_CHECKING:
    from appliance.scheduler.tickets import Ticket

BURST_S: Final = 10.0
# A wait that is longer than this is demand that was not served in time.
LATE_S: Final = 2.0
# Who uses next to nothing of what each request may take could else wait without end.
_WAITING_MAX: Final = 256
_NEWEST_WEIGHT: Final = 0.1  # of the newest request in the share of its estimate that it used


@dataclass(frozen=True, slots=True)
class LaneSpec:
    """A reservation as it is in force. `environment_id` None: the tenant's, in any of them."""

    reservation_id: str
    tenant_id: TenantId
    environment_id: EnvironmentId | None
    tokens_per_s: int
    priority: int  # the higher goes first


@dataclass(frozen=True, slots=True)
class LaneView:
    """A lane at one moment. Counters are tokens since the lane was made."""

    spec: LaneSpec
    credit: float
    waiting: int
    late_tokens: float  # expected of those that have waited longer than LATE_S
    delivered: int  # whatever way they went
    reserved: int  # of them, by the lane itself
    refused: float  # expected of those that were turned away


class Lane:
    """The credit and the waiting tickets of one reservation."""

    __slots__ = (
        "_at_s",
        "_closed",
        "credit",
        "delivered",
        "refused",
        "reserved",
        "share",
        "spec",
        "waiting",
        "waiting_tokens",
    )

    def __init__(self, spec: LaneSpec, now_s: float) -> None:
        self.spec = spec
        self.credit = spec.tokens_per_s * BURST_S
        self.waiting: OrderedDict[Ticket, None] = OrderedDict()
        self.waiting_tokens = 0
        self.share = 1.0  # of their estimate that requests really use, a moving average
        self.delivered = 0
        self.reserved = 0
        self.refused = 0.0
        self._at_s = now_s
        self._closed = False

    def close(self) -> None:
        """The promise is over: who still waits here starts by everybody's way."""
        self._closed = True

    def aim(self, spec: LaneSpec, now_s: float) -> None:
        """Take other figures; what was earned at the old rate stays."""
        self._earn(now_s)
        self.spec = spec

    def has_credit(self, now_s: float) -> bool:
        """Whether a request may start by it now. One larger than the credit may, and is owed."""
        self._earn(now_s)
        return self.credit > 0 and not self._closed

    def promises(self, now_s: float) -> bool:
        """Whether one more request is within the promise, behind those that wait by it."""
        self._earn(now_s)
        few = len(self.waiting) < _WAITING_MAX
        return few and self.credit > self.waiting_tokens * self.share

    def wait(self, ticket: "Ticket") -> None:
        self.waiting[ticket] = None
        self.waiting_tokens += ticket.tokens

    def unwait(self, ticket: "Ticket") -> None:
        """It starts, or leaves. One that does not wait here stays as it is."""
        if ticket in self.waiting:
            del self.waiting[ticket]
            self.waiting_tokens -= ticket.tokens

    def start(self, ticket: "Ticket", now_s: float) -> None:
        """It runs from now on: by the lane if there is credit, else by everybody's way."""
        ticket.reserved = self.has_credit(now_s)
        if ticket.reserved:
            ticket.charged = ticket.tokens * self.share
            self.credit -= ticket.charged

    def end(self, ticket: "Ticket", used: int, now_s: float) -> None:
        """It ran, and used so many tokens."""
        self.delivered += used
        if used:
            self.share += (min(used / max(ticket.tokens, 1), 1.0) - self.share) * _NEWEST_WEIGHT
        if ticket.reserved:
            self.reserved += used
            self._earn(now_s)
            self.credit = min(self.credit + ticket.charged - used, self._most)
            ticket.charged = 0.0

    def refuse(self, ticket: "Ticket") -> None:
        """It is turned away without having run."""
        self.refused += ticket.tokens * self.share

    def view(self, now_s: float) -> LaneView:
        self._earn(now_s)
        late = sum(t.tokens for t in self.waiting if t.queued_at_s <= now_s - LATE_S)
        return LaneView(
            spec=self.spec,
            credit=self.credit,
            waiting=len(self.waiting),
            late_tokens=late * self.share,
            delivered=self.delivered,
            reserved=self.reserved,
            refused=self.refused,
        )

    @property
    def _most(self) -> float:
        return self.spec.tokens_per_s * BURST_S

    def _earn(self, now_s: float) -> None:
        passed_s = now_s - self._at_s
        if passed_s > 0:
            self._at_s = now_s
            self.credit = min(self.credit + passed_s * self.spec.tokens_per_s, self._most)


class Lanes:
    """The lanes of one deployment. Empty and false where nothing is reserved."""

    __slots__ = ("_lanes",)

    def __init__(self) -> None:
        self._lanes: dict[tuple[TenantId, EnvironmentId | None], Lane] = {}

    def __bool__(self) -> bool:
        return bool(self._lanes)

    def set(self, specs: Iterable[LaneSpec], now_s: float) -> None:
        """Make these the lanes. One that stays keeps its credit, its counters and who waits."""
        known = {lane.spec.reservation_id: lane for lane in self._lanes.values()}
        self._lanes = {}
        for spec in specs:
            lane = known.get(spec.reservation_id)
            if lane is None:
                lane = Lane(spec, now_s)
            elif lane.spec != spec:
                lane.aim(spec, now_s)
            self._lanes[spec.tenant_id, spec.environment_id] = lane
        for gone in known.keys() - {lane.spec.reservation_id for lane in self._lanes.values()}:
            known[gone].close()

    def of(
        self, tenant_id: TenantId, environment_id: EnvironmentId | None, now_s: float
    ) -> Lane | None:
        """The lane of a request: the environment's own, unless only the tenant's keeps it."""
        own = self._lanes.get((tenant_id, environment_id))
        tenants = self._lanes.get((tenant_id, None))
        if own is None or tenants is None or own.promises(now_s):
            return tenants if own is None else own
        return tenants if tenants.promises(now_s) else own

    def due(self, now_s: float) -> Lane | None:
        """The lane whose turn it is; None: no lane has both credit and somebody who waits.

        The highest priority goes first, among equals the one that has waited for most of its rate.
        """
        best: Lane | None = None
        best_rank = (0, 0.0)
        for lane in self._lanes.values():
            if lane.waiting and lane.has_credit(now_s):
                rank = (lane.spec.priority, lane.credit / lane.spec.tokens_per_s)
                if best is None or rank > best_rank:
                    best, best_rank = lane, rank
        return best

    def views(self, now_s: float) -> tuple[LaneView, ...]:
        return tuple(lane.view(now_s) for lane in self._lanes.values())
