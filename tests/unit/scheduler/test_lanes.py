"""Reservations under pressure, in simulated time: their share, what is lent, what is taken back."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.domain.ids import EnvironmentId, TenantId
from appliance.scheduler.lanes import BURST_S, Lane, LaneSpec, LaneView
from appliance.scheduler.scheduler import Scheduler
from appliance.scheduler.tickets import Effects, Outcome, Placed, Shed, ShedReason, Start, Ticket
from appliance.settings import Scheduling
from tests.fakes.replicas import DEPLOYMENT, target

ACME, HOG = TenantId("ten_acme"), TenantId("ten_hog")
PROD, TEST = EnvironmentId("env_prod"), EnvironmentId("env_test")
STEP_S = 0.1


def spec(
    rate: int,
    reservation_id: str = "rsv_1",
    *,
    tenant: TenantId = ACME,
    environment: EnvironmentId | None = None,
    priority: int = 0,
) -> LaneSpec:
    return LaneSpec(reservation_id, tenant, environment, rate, priority)


def asked(tenant: TenantId, tokens: int, environment: EnvironmentId | None = None) -> Ticket:
    return Ticket(DEPLOYMENT, tenant, tokens, environment)


def lane_of(scheduler: Scheduler, now_s: float) -> LaneView:
    seen = scheduler.view_of(DEPLOYMENT, now_s)
    assert seen is not None
    return seen.lanes[0]


@dataclass
class Site:
    """Engines that make `pace` tokens a second in each slot, and clients that ask and ask again."""

    slots: int
    pace: int
    rate: int
    seed: int
    promise_used: float = 1.0  # of its estimate, that each request really takes
    made: dict[TenantId, list[float]] = field(default_factory=dict)  # tokens, by step
    now_s: float = 0.0
    idle: int = 0  # slots that did nothing, over all steps

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(Scheduling(queue_length_max=10_000, queue_wait_s=1e9))
        self.scheduler.set_replicas(DEPLOYMENT, [target("a", slots=self.slots)], 0.0)
        self.scheduler.set_lanes(DEPLOYMENT, [spec(self.rate)], 0.0)
        self.chance = random.Random(self.seed)
        self.running: dict[Ticket, float] = {}  # tokens still to make

    def ask(self, tenant: TenantId) -> None:
        ticket = asked(tenant, self.chance.randint(self.pace, 4 * self.pace))
        if isinstance(self.scheduler.arrive(ticket, self.now_s), Placed):
            self.running[ticket] = ticket.tokens * self.promise_used

    def step(self) -> list[TenantId]:
        """Let a step pass. Whose requests ended in it."""
        self.now_s += STEP_S
        for tenant in (ACME, HOG):
            self.made.setdefault(tenant, []).append(0.0)
        ended = []
        for ticket, left in list(self.running.items()):
            made = min(self.pace * STEP_S, left)
            self.made[ticket.tenant_id][-1] += made
            self.running[ticket] = left - made
            if left - made < 1e-9:
                del self.running[ticket]
                ticket.used = round(ticket.tokens * self.promise_used)
                self._start(self.scheduler.finish(ticket, Outcome.OK, ticket.used, self.now_s))
                ended.append(ticket.tenant_id)
        self._start(self.scheduler.tick(self.now_s))
        seen = self.scheduler.view_of(DEPLOYMENT, self.now_s)
        if seen is not None and seen.queued:
            self.idle += self.slots - len(self.running)
        return ended

    def serve(self, seconds: float, clients: dict[TenantId, int]) -> None:
        """So many clients of each, each with one request at a time."""
        for tenant, count in clients.items():
            for _ in range(count):
                self.ask(tenant)
        for _ in range(round(seconds / STEP_S)):
            for tenant in self.step():
                if tenant in clients:
                    self.ask(tenant)

    def shares(self, tenant: TenantId, window_s: float) -> Iterator[float]:
        """Of all that the engines can make, in every window of that length."""
        steps, made = round(window_s / STEP_S), self.made[tenant]
        for end in range(steps, len(made) + 1):
            yield sum(made[end - steps : end]) / (self.slots * self.pace * window_s)

    def _start(self, effects: Effects) -> None:
        for effect in effects:
            assert isinstance(effect, Start)
            self.running[effect.ticket] = effect.ticket.tokens * self.promise_used


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("used", [1.0, 0.3])
def test_it_gets_what_was_promised_in_every_ten_seconds_of_a_flood(seed: int, used: float) -> None:
    site = Site(slots=16, pace=10, rate=64, seed=seed, promise_used=used)
    site.serve(300, {ACME: 32, HOG: 320})
    shares = list(site.shares(ACME, 10))[round(20 / STEP_S) :]
    assert min(shares) >= 0.95 * 0.4
    assert site.idle == 0, "no slot is kept free while somebody waits"


def test_beyond_its_rate_it_has_no_more_than_its_fair_share() -> None:
    site = Site(slots=16, pace=10, rate=16, seed=1)
    site.serve(600, {ACME: 64, HOG: 64})
    shares = list(site.shares(ACME, 300))
    # 10 % promised, and half of the other 90 %.
    assert 0.5 <= shares[-1] <= 0.62


def test_what_it_does_not_use_is_everybodys_and_is_taken_back_at_the_next_free_slot() -> None:
    site = Site(slots=8, pace=10, rate=40, seed=2)
    site.serve(60, {HOG: 80})
    assert min(site.shares(HOG, 10)) >= 0.97
    ticket = asked(ACME, 20)
    site.scheduler.arrive(ticket, site.now_s)
    ended: list[TenantId] = []
    while not ended:
        ended = site.step()
    assert ticket.place is not None
    assert ticket.reserved


def test_an_idle_lane_earns_no_more_than_its_burst() -> None:
    lane = Lane(spec(10), 0.0)
    assert lane.view(3_600.0).credit == 10 * BURST_S


def test_a_full_queue_turns_the_flood_away_and_not_the_promise() -> None:
    scheduler = Scheduler(Scheduling(queue_length_max=2))
    scheduler.set_replicas(DEPLOYMENT, [target("a", slots=1)], 0.0)
    scheduler.set_lanes(DEPLOYMENT, [spec(5)], 0.0)
    for _ in range(3):
        scheduler.arrive(asked(HOG, 10), 0.0)
    assert scheduler.arrive(asked(HOG, 10), 0.0) == Shed(ShedReason.OVERLOADED, 30)
    kept = [scheduler.arrive(asked(ACME, 10), 0.0) for _ in range(6)]
    # 50 tokens of credit: five requests of 10 are within it.
    assert [isinstance(each, Shed) for each in kept] == [False] * 5 + [True]
    assert lane_of(scheduler, 0.0).refused == 10
    assert lane_of(scheduler, 3.0).late_tokens == 50


def test_environments_have_their_own_and_then_their_tenants() -> None:
    scheduler = Scheduler(Scheduling())
    scheduler.set_replicas(DEPLOYMENT, [target("a", slots=4)], 0.0)
    of_prod = spec(1, "rsv_2", environment=PROD)
    scheduler.set_lanes(DEPLOYMENT, [spec(1), of_prod], 0.0)
    tickets = [asked(ACME, 10, each) for each in (PROD, PROD, TEST)]
    for each in tickets:
        scheduler.arrive(each, 0.0)
    lanes = [each.lane for each in tickets]
    assert [lane.spec.reservation_id for lane in lanes if lane] == ["rsv_2", "rsv_1", "rsv_1"]
    assert [each.reserved for each in tickets] == [True, True, False]
    assert not scheduler.promised(DEPLOYMENT, HOG, TEST, 0.0)


def test_the_higher_priority_goes_first() -> None:
    scheduler = Scheduler(Scheduling())
    scheduler.set_replicas(DEPLOYMENT, [target("a", slots=1)], 0.0)
    high = spec(5, "rsv_2", tenant=TenantId("ten_high"), priority=7)
    scheduler.set_lanes(DEPLOYMENT, [spec(50), high], 0.0)
    first = asked(HOG, 10)
    scheduler.arrive(first, 0.0)
    waiting = [asked(tenant, 10) for tenant in (ACME, TenantId("ten_high"))]
    for each in waiting:
        scheduler.arrive(each, 0.0)
    (started,) = scheduler.finish(first, Outcome.OK, 10, 1.0)
    assert isinstance(started, Start)
    assert started.ticket is waiting[1]


def test_a_reservation_that_ends_lets_who_waits_wait_as_everybody() -> None:
    scheduler = Scheduler(Scheduling())
    scheduler.set_replicas(DEPLOYMENT, [target("a", slots=1)], 0.0)
    scheduler.set_lanes(DEPLOYMENT, [spec(5)], 0.0)
    running, hogs, kept = asked(HOG, 10), asked(HOG, 10), asked(ACME, 10)
    for each in (running, hogs, kept):
        scheduler.arrive(each, 0.0)
    scheduler.set_lanes(DEPLOYMENT, [], 0.5)
    (started,) = scheduler.finish(running, Outcome.OK, 10, 1.0)
    assert started.ticket is hogs
    (started,) = scheduler.finish(hogs, Outcome.OK, 10, 2.0)
    assert started.ticket is kept
    scheduler.finish(kept, Outcome.OK, 10, 3.0)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ask", "hog", "end", "leave", "tick", "fail"]), st.integers(1, 40)
        ),
        max_size=80,
    )
)
def test_whatever_happens_the_books_of_a_lane_balance(events: list[tuple[str, int]]) -> None:
    scheduler = Scheduler(Scheduling(queue_length_max=20, queue_wait_s=5.0))
    scheduler.set_replicas(DEPLOYMENT, [target("a", slots=2), target("b", slots=1)], 0.0)
    scheduler.set_lanes(DEPLOYMENT, [spec(7)], 0.0)
    alive: list[Ticket] = []
    now_s, used = 0.0, 0
    for what, size in events:
        now_s += size / 10
        alive = [each for each in alive if each.state in (1, 2)]
        if what in ("ask", "hog"):
            ticket = asked(ACME if what == "ask" else HOG, size)
            alive.append(ticket)
            scheduler.arrive(ticket, now_s)
        elif what == "tick":
            scheduler.tick(now_s)
        elif alive:
            ticket = alive[size % len(alive)]
            if what == "leave" or ticket.place is None:
                scheduler.cancel(ticket, now_s)
            elif what == "fail":
                scheduler.retry(ticket, now_s)
            else:
                ticket.used = size
                used += size if ticket.tenant_id == ACME else 0
                scheduler.finish(ticket, Outcome.OK, size, now_s)
    for ticket in alive:
        scheduler.cancel(ticket, now_s)
    scheduler.tick(now_s + 10)
    lane = lane_of(scheduler, now_s + 1_000)
    assert (lane.waiting, lane.late_tokens, lane.delivered) == (0, 0.0, used)
    assert lane.credit == 7 * BURST_S
    assert lane.reserved <= lane.delivered


def test_who_uses_next_to_nothing_of_each_request_does_not_wait_without_end() -> None:
    lane = Lane(spec(5), 0.0)
    for _ in range(300):  # each may take much, and takes nothing worth a word
        ticket = asked(ACME, 1_000_000)
        lane.start(ticket, 0.0)
        lane.end(ticket, 1, 0.0)
    lane.end(asked(ACME, 1), 0, 60.0)
    taken = 0
    while lane.promises(600.0) and taken < 10_000:
        lane.wait(asked(ACME, 1))
        taken += 1
    assert 50 < taken <= 256


def test_nothing_is_of_the_reserved_class_after_the_reservation_ended() -> None:
    scheduler = Scheduler(Scheduling())
    scheduler.set_replicas(DEPLOYMENT, [target("a", slots=1)], 0.0)
    scheduler.set_lanes(DEPLOYMENT, [spec(5)], 0.0)
    running, late = asked(HOG, 10), asked(ACME, 10)
    scheduler.arrive(running, 0.0)
    scheduler.arrive(late, 0.0)
    scheduler.set_lanes(DEPLOYMENT, [], 0.5)
    (started,) = scheduler.finish(running, Outcome.OK, 10, 1.0)
    assert started.ticket is late
    assert not late.reserved


def test_who_leaves_since_its_turn_does_not_come_was_not_served() -> None:
    scheduler = Scheduler(Scheduling())
    scheduler.set_replicas(DEPLOYMENT, [target("a", slots=1)], 0.0)
    scheduler.set_lanes(DEPLOYMENT, [spec(5)], 0.0)
    soon, late = asked(ACME, 10), asked(ACME, 20)
    for each in (asked(HOG, 10), soon, late):
        scheduler.arrive(each, 0.0)
    scheduler.cancel(soon, 1.0)
    assert lane_of(scheduler, 1.0).refused == 0
    scheduler.cancel(late, 9.0)
    assert lane_of(scheduler, 9.0).refused == 20


def test_who_finds_no_engine_that_works_was_not_served() -> None:
    scheduler = Scheduler(Scheduling())
    scheduler.set_replicas(DEPLOYMENT, [target("a", slots=1)], 0.0)
    scheduler.set_lanes(DEPLOYMENT, [spec(5)], 0.0)
    ticket = asked(ACME, 20)
    scheduler.arrive(ticket, 0.0)
    answer, _ = scheduler.retry(ticket, 1.0)
    assert isinstance(answer, Shed)
    assert lane_of(scheduler, 1.0).refused == 20
