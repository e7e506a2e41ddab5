"""Any order of events: every ticket ends once, nothing leaks, and no free slot is left unused."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from appliance.scheduler.placement import choose
from appliance.scheduler.replicas import ReplicaTarget
from appliance.scheduler.scheduler import Scheduler
from appliance.scheduler.tickets import (
    Admission,
    Effects,
    Outcome,
    Placed,
    Queued,
    Shed,
    ShedLate,
    ShedReason,
    Start,
    Ticket,
    TicketState,
)
from appliance.settings import Scheduling
from tests.fakes.replicas import DEPLOYMENT, target, ticket

SETTINGS = Scheduling(
    queue_length_max=6, queue_wait_s=20.0, tries=3, eject_after_failures=2, eject_s=4.0
)
NAMES = ("a", "b", "c")


class SchedulerMachine(RuleBasedStateMachine):
    """The scheduler beside what a gateway believes from its answers alone."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler(SETTINGS)
        self.now_s = 100.0
        self.targets: list[ReplicaTarget] = []
        self.running: dict[Ticket, ReplicaTarget] = {}
        self.waiting: dict[Ticket, float] = {}
        self.ended: set[Ticket] = set()
        self.arrived: list[Ticket] = []

    @initialize()
    def begin(self) -> None:
        self.replicas({"a": 1, "b": 2})

    # What the gateway does with the answers.

    def start(self, one: Ticket, where: ReplicaTarget) -> None:
        assert one not in self.ended
        assert one not in self.running
        assert one.tried.count(where.replica_id) == 1, "a replica was tried twice"
        assert len(one.tried) <= SETTINGS.tries
        assert where in self.targets, "placed on a replica that is not ready"
        self.running[one] = where

    def end(self, one: Ticket) -> None:
        assert one not in self.ended, "ended twice"
        assert one.state is TicketState.DONE
        self.ended.add(one)

    def admit(self, one: Ticket, answer: Admission) -> None:
        match answer:
            case Placed(where):
                self.start(one, where)
            case Queued(position):
                assert position >= 1
                self.waiting[one] = self.now_s
            case Shed(_, retry_after_s):
                assert 1 <= retry_after_s <= 60
                self.end(one)

    def apply(self, effects: Effects) -> None:
        for effect in effects:
            del self.waiting[effect.ticket]
            match effect:
                case Start(one, where):
                    self.start(one, where)
                case ShedLate(one, _, retry_after_s):
                    assert 1 <= retry_after_s <= 60
                    self.end(one)

    # Events.

    @rule(tenant=st.sampled_from(("ten_1", "ten_2", "ten_3")), tokens=st.integers(0, 500))
    def arrive(self, tenant: str, tokens: int) -> None:
        one = ticket(tenant, tokens)
        self.arrived.append(one)
        queued = len(self.waiting)
        answer = self.scheduler.arrive(one, self.now_s)
        if isinstance(answer, Shed) and answer.reason is ShedReason.OVERLOADED:
            assert queued >= SETTINGS.queue_length_max
        self.admit(one, answer)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def first_byte(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(list(self.running)))
        self.apply(self.scheduler.first_byte(one, self.now_s))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), outcome=st.sampled_from(Outcome), output_tokens=st.integers(0, 300))
    def finish(self, data: st.DataObject, outcome: Outcome, output_tokens: int) -> None:
        one = data.draw(st.sampled_from(list(self.running)))
        del self.running[one]
        effects = self.scheduler.finish(one, outcome, output_tokens, self.now_s)
        self.end(one)
        self.apply(effects)
        assert self.scheduler.finish(one, Outcome.ENGINE_FAILED, 0, self.now_s) == ()

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(list(self.running)))
        del self.running[one]
        answer, effects = self.scheduler.retry(one, self.now_s)
        self.admit(one, answer)
        self.apply(effects)

    @precondition(lambda self: self.running or self.waiting)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from([*self.running, *self.waiting]))
        self.running.pop(one, None)
        self.waiting.pop(one, None)
        effects = self.scheduler.cancel(one, self.now_s)
        self.end(one)
        self.apply(effects)

    @rule(
        slots=st.dictionaries(st.sampled_from(NAMES), st.sampled_from((1, 2, None)), max_size=3),
        starting=st.integers(0, 1),
    )
    def change_replicas(self, slots: dict[str, int | None], starting: int) -> None:
        self.replicas(slots, starting)

    def replicas(self, slots: dict[str, int | None], starting: int = 0) -> None:
        self.targets = [target(name, slots=count) for name, count in slots.items()]
        self.apply(self.scheduler.set_replicas(DEPLOYMENT, self.targets, self.now_s, starting))

    @rule(passed_s=st.floats(0.01, 6))
    def wait(self, passed_s: float) -> None:
        self.now_s += passed_s
        self.apply(self.scheduler.tick(self.now_s))

    # What always holds.

    @invariant()
    def every_ticket_is_in_one_place(self) -> None:
        for one in self.arrived:
            places = (one in self.running, one in self.waiting, one in self.ended)
            assert sum(places) == 1
            state = (TicketState.RUNNING, TicketState.WAITING, TicketState.DONE)
            assert one.state is state[places.index(True)]

    @invariant()
    def counts_are_those_of_the_running_tickets(self) -> None:
        for deployment in self.scheduler.view(self.now_s):
            assert deployment.queued == len(self.waiting)
            for replica in deployment.replicas:
                name = replica.target.replica_id
                here = [t for t, where in self.running.items() if where.replica_id == name]
                assert replica.running == len(here)
                assert replica.outstanding_tokens == sum(t.tokens for t in here)

    @invariant()
    def nobody_waits_for_longer_than_allowed(self) -> None:
        for since_s in self.waiting.values():
            assert self.now_s - since_s < SETTINGS.queue_wait_s

    @invariant()
    def no_slot_is_free_for_one_that_waits(self) -> None:
        deployment = self.scheduler._deployments.get(DEPLOYMENT)
        for one in self.waiting:
            assert deployment is not None
            assert choose(deployment.ready, one.tokens, one.tried, self.now_s) is None

    def teardown(self) -> None:
        """When all have ended, nothing runs, nothing is outstanding, nothing waits."""
        for one in [*self.waiting, *self.running]:
            self.waiting.pop(one, None)
            self.running.pop(one, None)
            effects = self.scheduler.finish(one, Outcome.OK, 1, self.now_s)
            self.end(one)
            self.apply(effects)
        while self.running:
            one = next(iter(self.running))
            del self.running[one]
            self.apply(self.scheduler.finish(one, Outcome.OK, 1, self.now_s))
            self.end(one)
        assert self.ended == set(self.arrived)
        self.counts_are_those_of_the_running_tickets()
        self.scheduler.set_replicas(DEPLOYMENT, [], self.now_s)
        assert self.scheduler.view(self.now_s) == ()


TestSchedulerMachine = SchedulerMachine.TestCase
TestSchedulerMachine.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
