"""A site in simulated time: fairness, starvation, throughput, a failing replica."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable
from random import Random

import pytest

from appliance.scheduler.replicas import ReplicaTarget
from appliance.scheduler.scheduler import Scheduler
from appliance.scheduler.tickets import (
    Admission,
    Effects,
    Outcome,
    Placed,
    Shed,
    Start,
    Ticket,
    TicketState,
)
from appliance.settings import Scheduling
from tests.fakes.replicas import DEPLOYMENT, target, ticket


class Site:
    """Engines with a speed of their own behind a scheduler. Time jumps from event to event."""

    def __init__(
        self, speeds: dict[str, float], slots: int, settings: Scheduling | None = None
    ) -> None:
        self.scheduler = Scheduler(settings or Scheduling())
        self.speeds = speeds  # tokens/s of one request; 0: fails every request at once
        self.now_s = 0.0
        self.tokens: Counter[str] = Counter()  # served, by tenant
        self.placed: Counter[str] = Counter()  # requests, by replica
        self.waits_s: dict[str, list[float]] = defaultdict(list)  # until started, by tenant
        self.failed = self.shed = 0
        self.retry_after_s = 0  # of the last that was shed
        self._born: dict[Ticket, float] = {}
        self._then: dict[Ticket, Callable[[], None]] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._seq = 0
        targets = [target(name, slots=slots) for name in speeds]
        self._apply(self.scheduler.set_replicas(DEPLOYMENT, targets, 0.0))
        self._tick()

    def at(self, time_s: float, event: Callable[[], None]) -> None:
        self._seq += 1
        heapq.heappush(self._events, (time_s, self._seq, event))

    def run(self, until_s: float) -> None:
        while self._events[0][0] <= until_s:
            self.now_s, _, event = heapq.heappop(self._events)
            event()

    def send(self, tenant: str, tokens: int, then: Callable[[], None] = lambda: None) -> None:
        """One request; `then` is called when it has ended, in whatever way."""
        one = ticket(tenant, tokens)
        self._born[one] = self.now_s
        self._then[one] = then
        self._admit(one, self.scheduler.arrive(one, self.now_s))

    def keep_sending(self, tenant: str, tokens: Callable[[], int], clients: int) -> None:
        """Clients that send the next request as soon as the last one has ended."""

        def again() -> None:
            self.at(self.now_s + 0.01, lambda: self.send(tenant, tokens(), again))

        for _ in range(clients):
            again()

    def _tick(self) -> None:
        self._apply(self.scheduler.tick(self.now_s))
        self.at(self.now_s + 0.1, self._tick)

    def _admit(self, one: Ticket, answer: Admission) -> None:
        if isinstance(answer, Placed):
            self._work(one, answer.target)
        elif isinstance(answer, Shed):
            self.retry_after_s = answer.retry_after_s
            self._end(one)

    def _apply(self, effects: Effects) -> None:
        for effect in effects:
            if isinstance(effect, Start):
                self._work(effect.ticket, effect.target)
            else:
                self._end(effect.ticket)

    def _work(self, one: Ticket, where: ReplicaTarget) -> None:
        self.waits_s[one.tenant_id].append(self.now_s - self._born[one])
        self.placed[where.replica_id] += 1
        speed = self.speeds[where.replica_id]
        if speed:
            self.at(self.now_s + one.tokens / speed, lambda: self._served(one))
        else:
            self.at(self.now_s + 0.001, lambda: self._refused(one))

    def _served(self, one: Ticket) -> None:
        self.tokens[one.tenant_id] += one.tokens
        effects = self.scheduler.finish(one, Outcome.OK, one.tokens, self.now_s)
        self._end(one)
        self._apply(effects)

    def _refused(self, one: Ticket) -> None:
        answer, effects = self.scheduler.retry(one, self.now_s)
        if isinstance(answer, Shed):
            self.failed += 1
        self._admit(one, answer)
        self._apply(effects)

    def _end(self, one: Ticket) -> None:
        assert one.state is TicketState.DONE
        self.shed += not one.tried
        del self._born[one]
        self._then.pop(one)()


def test_a_hog_does_not_take_the_share_of_others() -> None:
    site = Site({"a": 100.0}, slots=4, settings=Scheduling(queue_wait_s=100.0))
    site.keep_sending("hog", lambda: 100, clients=64)
    site.keep_sending("small", lambda: 100, clients=4)
    site.run(300)
    # All four slots are always busy: 400 tokens/s, half of them for each.
    assert sum(site.tokens.values()) == pytest.approx(400 * 300, rel=0.02)
    assert site.tokens["small"] == pytest.approx(site.tokens["hog"], rel=0.05)
    assert site.shed == 0


def test_shares_are_of_tokens_and_not_of_requests() -> None:
    site = Site({"a": 100.0}, slots=4)
    site.keep_sending("long", lambda: 1_000, clients=16)
    site.keep_sending("short", lambda: 100, clients=16)
    site.run(600)
    assert site.tokens["short"] == pytest.approx(site.tokens["long"], rel=0.1)


def test_nobody_starves() -> None:
    rng = Random(7)
    site = Site({"a": 50.0, "b": 50.0}, slots=2, settings=Scheduling(queue_wait_s=1_000.0))
    site.keep_sending("hog", lambda: rng.randrange(100, 2_000), clients=100)
    for n in range(20):
        site.at(30.0 + n * 10, lambda: site.send("rare", 50))
    site.run(400)
    # The longest request takes 40 s, and one of four slots is free every 5 s on average.
    assert len(site.waits_s["rare"]) == 20
    assert max(site.waits_s["rare"]) < 40


def test_a_tenant_that_was_away_has_saved_nothing_up() -> None:
    site = Site({"a": 100.0}, slots=1)
    site.keep_sending("steady", lambda: 100, clients=8)
    site.run(100)
    site.keep_sending("late", lambda: 100, clients=8)
    before = site.tokens["steady"]
    site.run(200)
    assert site.tokens["late"] == pytest.approx(site.tokens["steady"] - before, rel=0.1)


def test_work_goes_where_it_is_done_sooner() -> None:
    site = Site({"fast": 100.0, "slow": 20.0}, slots=64)
    site.keep_sending("one", lambda: 100, clients=24)
    site.run(300)
    # Equal waits put five times as many on the fast one, 20 of 24, and each is done five times as
    # soon: 25 to 1.
    assert 20 < site.placed["fast"] / site.placed["slow"] < 30


def test_a_dead_replica_costs_nobody_an_answer() -> None:
    site = Site({"dead": 0.0, "well": 100.0}, slots=8)
    site.keep_sending("one", lambda: 100, clients=6)
    site.run(120)
    assert (site.failed, site.shed) == (0, 0)
    assert site.tokens["one"] == pytest.approx(6 * 100 * 120, rel=0.02)
    # Three failures, then one try at each return: after 5, 10, 20, 40 and 80 seconds.
    assert site.placed["dead"] <= 8


def test_a_replica_that_recovers_is_used_again() -> None:
    site = Site({"a": 0.0, "b": 100.0}, slots=8)
    site.keep_sending("one", lambda: 100, clients=12)
    site.run(3)
    site.speeds["a"] = 100.0
    site.run(10)
    before = dict(site.placed)
    site.run(40)
    share = (site.placed["a"] - before["a"]) / (site.placed["b"] - before["b"])
    assert share == pytest.approx(1, rel=0.2)


def test_retry_after_is_when_the_queue_has_drained() -> None:
    """Whoever comes back after the time told finds the queue empty, and not long before."""
    site = Site({"a": 100.0}, slots=2, settings=Scheduling(queue_length_max=20))
    for n in range(150):
        site.at(n * 0.4, lambda: site.send("one", 100))
    site.run(59.0)
    for _ in range(20):
        site.send("one", 100)
    told_s, asked_s = site.retry_after_s, site.now_s
    while site.scheduler.view(site.now_s)[0].queued:
        site.run(site.now_s + 0.1)
    assert site.now_s - asked_s == pytest.approx(told_s, abs=2)
    assert told_s > 5
