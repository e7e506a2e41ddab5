"""The machine of one replica: each way through it, and what holds on every way."""

from collections.abc import Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import structs

from agent.events import (
    Adopted,
    CauseChanged,
    Drain,
    Dump,
    Effect,
    Event,
    Exited,
    Find,
    GaveToken,
    Idle,
    Kill,
    Listening,
    Measured,
    Probe,
    Refreshed,
    Report,
    Served,
    Sleep,
    Slept,
    Spawn,
    Spawned,
    Terminate,
    Tick,
    Useless,
    Wanted,
    Watch,
)
from agent.supervisor import Supervisor, Times
from appliance.wire.agent import DesiredReplica

TIMES = Times(
    backoff_s=1.0, backoff_s_max=8.0, stable_s=60.0, start_s=100.0, drain_s=10.0, end_s=5.0
)
MEASURED = Measured(slots=4, context_tokens=2048, tokens_per_s=30.0, prompt_tokens_per_byte=0.25)


def replica(generation: int = 1) -> DesiredReplica:
    return DesiredReplica(
        replica_id="rep_1",
        deployment_id="dep_1",
        generation=generation,
        engine="llamacpp",
        model_name="m",
        model_path="/m.gguf",
    )


class Run:
    """A machine under a clock of its own, with the effects of the last event."""

    def __init__(self) -> None:
        self.machine = Supervisor("rep_1", "dep_1", TIMES)
        self.now_s = 0.0
        self.effects: Sequence[Effect] = ()

    def feed(self, *events: Event, after_s: float = 0.0) -> "Run":
        self.now_s += after_s
        for event in events:
            self.effects = self.machine.handle(event, self.now_s)
        return self

    def starting(self) -> "Run":
        return self.feed(Wanted(replica()), Spawned(1, 77, 123))

    def ready(self) -> "Run":
        return self.starting().feed(Listening(1, "127.0.0.1", 4000, "k"), GaveToken(1, MEASURED))

    @property
    def state(self) -> str:
        return self.machine.report().state

    def kinds(self) -> list[type]:
        return [type(effect) for effect in self.effects if not isinstance(effect, Report)]


def test_from_wanted_to_ready() -> None:
    run = Run().feed(Wanted(replica()))
    assert (run.state, run.kinds()) == ("starting", [Spawn])
    run.feed(Spawned(1, 77, 123))
    assert (run.machine.report().pid, run.state) == (77, "starting")
    run.feed(Listening(1, "127.0.0.1", 4000, "k"))
    assert (run.state, run.kinds()) == ("starting", [Probe])  # it listens: that is not enough
    run.feed(GaveToken(1, MEASURED))
    assert (run.state, run.kinds()) == ("ready", [Watch])
    report = run.machine.report()
    assert (report.host, report.port, report.api_key) == ("127.0.0.1", 4000, "k")
    assert (report.slots, report.tokens_per_s) == (4, 30.0)
    assert report.prompt_tokens_per_byte == 0.25
    assert report.reason == ""


def test_a_crash_is_followed_by_a_wait_and_a_start_with_the_reason_shown() -> None:
    run = Run().ready().feed(Exited(1, "It was killed."))
    assert run.state == "backoff"
    assert run.machine.report().reason == "It was killed. Next start after 1 s."
    assert run.machine.report().port is None
    assert run.feed(Tick(), after_s=0.9).kinds() == []
    assert run.feed(Tick(), after_s=0.2).kinds() == [Spawn]
    assert run.state == "starting"
    assert run.machine.report().reason == "Starting again. It was killed."
    assert run.machine.report().restarts == 1


def test_waits_double_up_to_a_bound_and_are_forgotten_after_good_service() -> None:
    run = Run().starting()
    waits = []
    for launch in range(1, 7):
        run.feed(Exited(launch, "It broke."))
        due_s = run.machine.due_s
        assert due_s is not None
        waits.append(due_s - run.now_s)
        run.feed(Tick(), after_s=waits[-1])
    assert waits == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    run.feed(Listening(7, "127.0.0.1", 1, None), GaveToken(7, MEASURED))
    run.feed(Exited(7, "It broke."), after_s=TIMES.stable_s)
    assert run.machine.due_s == run.now_s + 1.0


def test_what_cannot_work_is_failed_until_something_changes() -> None:
    run = Run().feed(Wanted(replica()), Exited(1, "No such file.", lasting=True))
    assert (run.state, run.machine.report().reason) == ("failed", "No such file.")
    assert run.machine.due_s is None
    assert run.feed(Wanted(replica()), Tick(), after_s=1000).state == "failed"
    assert run.feed(CauseChanged()).kinds() == [Spawn]
    run.feed(Exited(2, "No such file.", lasting=True))
    assert run.feed(Wanted(replica(2))).kinds() == [Spawn]
    run.feed(Exited(3, "No such file.", lasting=True))
    assert run.feed(Wanted(None)).state == "stopped"
    assert run.machine.gone


@pytest.mark.parametrize("wish", [None, replica(2)], ids=["not wanted", "new generation"])
def test_a_ready_one_is_drained_ended_and_killed_in_turn(wish: DesiredReplica | None) -> None:
    run = Run().ready().feed(Wanted(wish))
    assert (run.state, run.kinds()) == ("draining", [Drain])
    assert run.machine.report().port == 4000  # its requests go on
    assert run.feed(Tick(), after_s=9.9).kinds() == []
    assert run.feed(Tick(), after_s=0.2).kinds() == [Terminate]
    assert run.feed(Tick(), after_s=5.0).kinds() == [Kill]
    assert run.feed(Tick(), after_s=5.0).kinds() == [Kill]  # until it is gone
    run.feed(Exited(1, "killed"))
    if wish is None:
        assert (run.state, run.machine.gone) == ("stopped", True)
    else:
        assert (run.state, run.kinds()) == ("starting", [Spawn])
        assert run.machine.report().generation == 2
        assert run.machine.report().restarts == 0  # that was no failure


def test_a_drained_one_is_ended_at_once() -> None:
    run = Run().ready().feed(Wanted(None), Idle(1))
    assert run.kinds() == [Terminate]


def test_a_change_taken_back_while_draining_starts_it_again() -> None:
    run = Run().ready().feed(Wanted(None), Wanted(replica()), Idle(1), Exited(1, "ended"))
    assert (run.state, run.kinds()) == ("starting", [Spawn])


def test_a_starting_one_that_is_not_wanted_is_not_waited_for() -> None:
    run = Run().starting().feed(Wanted(None))
    assert run.kinds() == [Terminate]
    assert run.feed(Exited(1, "ended")).machine.gone


def test_no_token_in_time_ends_the_process() -> None:
    run = Run().starting().feed(Tick(), after_s=TIMES.start_s)
    assert run.kinds() == [Dump, Terminate]
    run.feed(Exited(1, "signal 15"))
    assert run.state == "backoff"
    assert run.machine.report().reason.startswith("No token within 100 s")


def test_an_engine_that_hangs_is_killed_and_started_again() -> None:
    run = Run().ready().feed(Useless(1, "It hangs."))
    assert run.kinds() == [Dump, Kill]  # looked at first
    assert run.state != "ready"
    run.feed(Exited(1, "signal 9"))
    assert run.machine.report().reason == "It hangs. Next start after 1 s."


def test_one_that_served_before_the_agent_restarted_serves_at_once() -> None:
    served = Served("127.0.0.1", 4000, "k", MEASURED)
    run = Run().feed(Adopted(replica(), 77, 123, 2, served))
    assert (run.state, run.kinds()) == ("ready", [Watch])
    report = run.machine.report()
    assert (report.pid, report.port, report.restarts, report.slots) == (77, 4000, 2, 4)
    assert run.feed(Wanted(replica())).kinds() == []  # and is left alone


def test_one_that_was_loading_when_the_agent_restarted_is_found_and_probed() -> None:
    run = Run().feed(Adopted(replica(), 77, 123, 0, None))
    assert run.kinds() == [Find]
    run.feed(Wanted(replica()), Listening(1, "127.0.0.1", 4000, None))
    assert run.kinds() == [Probe]
    assert run.feed(GaveToken(1, MEASURED)).state == "ready"


@pytest.mark.parametrize("wish", [None, replica(2)])
@pytest.mark.parametrize("served", [None, Served("127.0.0.1", 4000, None, MEASURED)])
def test_an_adopted_one_that_is_not_wanted_so_is_ended(
    wish: DesiredReplica | None, served: Served | None
) -> None:
    run = Run().feed(Adopted(replica(), 77, 123, 0, served), Wanted(wish))
    assert run.kinds() == [Terminate if served is None else Drain]


def test_events_of_an_older_launch_change_nothing() -> None:
    run = Run().ready().feed(Exited(1, "It broke."), Tick(), after_s=0).feed(Tick(), after_s=1.0)
    assert run.machine.launch == 2
    for event in (
        Exited(1, "late"),
        GaveToken(1, MEASURED),
        Useless(1, "late"),
        Idle(1),
        Listening(1, "127.0.0.1", 1, None),
    ):
        assert run.feed(event).effects == ()
    assert run.state == "starting"


def test_one_that_served_until_somebody_killed_it_is_started_at_once_however_often() -> None:
    run = Run().ready()
    for launch in range(1, 20):
        run.feed(Exited(launch, "It was killed.", outside=True))
        assert run.machine.due_s == run.now_s + TIMES.backoff_s
        run.feed(Tick(), after_s=TIMES.backoff_s)
        run.feed(Listening(launch + 1, "127.0.0.1", 1, None), GaveToken(launch + 1, MEASURED))
    assert run.machine.report().restarts == 19


def test_one_that_is_killed_before_it_ever_serves_waits_longer_each_time() -> None:
    run = Run().starting()
    for launch, wait_s in enumerate([1.0, 2.0, 4.0], 1):
        run.feed(Exited(launch, "It was killed.", outside=True))
        assert run.machine.due_s == run.now_s + wait_s
        run.feed(Tick(), after_s=wait_s)


def test_our_own_kill_of_one_that_hangs_is_a_failure_of_its_own() -> None:
    run = Run().ready()
    for launch, wait_s in enumerate([1.0, 2.0, 4.0], 1):
        run.feed(Useless(launch, "It hangs."), Exited(launch, "signal 9", outside=True))
        assert run.machine.due_s == run.now_s + wait_s
        run.feed(Tick(), after_s=wait_s)
        run.feed(Listening(launch + 1, "127.0.0.1", 1, None), GaveToken(launch + 1, MEASURED))


def asleep(*, asleep: bool) -> DesiredReplica:
    return structs.replace(replica(), asleep=asleep)


def test_sleep_and_waking_need_no_other_process() -> None:
    run = Run().ready().feed(Wanted(asleep(asleep=True)))
    assert (run.state, run.kinds()) == ("ready", [Sleep])
    assert not run.machine.report().asleep  # not yet
    run.feed(Slept(1, asleep=True))
    assert run.machine.report().asleep
    assert run.feed(Slept(1, asleep=True)).effects == ()
    run.feed(Wanted(asleep(asleep=False)))
    assert run.kinds() == [Sleep]
    assert run.machine.report().asleep  # until it has woken
    assert not run.feed(Slept(1, asleep=False)).machine.report().asleep
    assert run.machine.launch == 1


def test_one_that_shall_sleep_is_loaded_first() -> None:
    run = Run().feed(Wanted(asleep(asleep=True)), Spawned(1, 77, 1))
    run.feed(Listening(1, "127.0.0.1", 1, None), GaveToken(1, MEASURED))
    assert run.kinds() == [Watch, Sleep]


def test_one_that_starts_is_not_ended_because_it_shall_sleep() -> None:
    run = Run().starting().feed(Wanted(asleep(asleep=True)))
    assert (run.state, run.kinds()) == ("starting", [])
    run.feed(Listening(1, "127.0.0.1", 1, None), GaveToken(1, MEASURED))
    assert run.kinds() == [Watch, Sleep]


def test_an_adopted_loading_one_that_shall_sleep_now_serves_first() -> None:
    run = Run().feed(Adopted(replica(), 77, 1, 0, None), Wanted(asleep(asleep=True)))
    run.feed(Listening(1, "127.0.0.1", 1, None), GaveToken(1, MEASURED))
    assert run.state == "ready"
    assert run.kinds() == [Watch, Sleep]


def test_what_is_seen_while_it_serves_is_told() -> None:
    run = Run().ready().feed(Refreshed(1, 55.0, 900.0))
    report = run.machine.report()
    assert (report.tokens_per_s, report.prefill_tokens_per_s, report.slots) == (55.0, 900.0, 4)
    assert run.effects == (Report(),)
    run.feed(Refreshed(1, 55.0, 900.0, gpu_memory_bytes=7)).feed(Refreshed(1, 56.0, 900.0))
    assert run.machine.report().gpu_memory_bytes == 7


class World(RuleBasedStateMachine):
    """A machine in a world whose processes start, listen, hang and die as they like."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = Supervisor("rep_1", "dep_1", TIMES)
        self.now_s = 0.0
        self.living: set[int] = set()  # launches whose process runs
        self.told_to_end: set[int] = set()
        self.killed: set[int] = set()
        self.wanted: DesiredReplica | None = None

    def feed(self, event: Event) -> None:
        was = self.machine.phase
        for effect in self.machine.handle(event, self.now_s):
            match effect:
                case Spawn(launch, desired):
                    assert not self.living, "a second process for one replica"
                    assert desired == self.wanted
                    self.living.add(launch)
                case Terminate(launch):
                    self.told_to_end.add(launch)
                case Kill(launch):
                    self.killed.add(launch)
        due_s = self.machine.due_s
        if self.machine.report().state == "backoff" and due_s is not None:
            assert due_s - self.now_s <= TIMES.backoff_s_max, was

    @initialize(adopted=st.booleans(), served=st.booleans())
    def begin(self, *, adopted: bool, served: bool) -> None:
        if adopted:
            self.living.add(1)
            how = Served("127.0.0.1", 1, None, MEASURED) if served else None
            self.feed(Adopted(replica(), 77, 0, 0, how))
            self.want(None)

    @rule(generation=st.sampled_from([None, 1, 2]), asleep=st.booleans())
    def want(self, generation: int | None, *, asleep: bool = False) -> None:
        wanted = None if generation is None else structs.replace(replica(generation), asleep=asleep)
        self.wanted = wanted
        self.feed(Wanted(self.wanted))

    @rule(seconds=st.sampled_from([0.1, 1.0, 6.0, 120.0]))
    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        self.feed(Tick())

    @rule(
        event=st.sampled_from(
            [GaveToken, Useless, Idle, Listening, Spawned, CauseChanged, Slept, Refreshed]
        ),
        late=st.booleans(),
    )
    def happen(self, event: type, *, late: bool) -> None:
        launch = self.machine.launch - int(late)
        if launch not in self.living and not late:
            return
        if event is GaveToken and not late and self.machine.report().port is None:
            return  # only what listens can be asked
        arguments = {
            GaveToken: (launch, MEASURED),
            Useless: (launch, "useless"),
            Idle: (launch,),
            Listening: (launch, "127.0.0.1", 1, None),
            Spawned: (launch, 5, 0),
            CauseChanged: (),
            Slept: (launch, True),
            Refreshed: (launch, 1.0, None),
        }
        self.feed(event(*arguments[event]))

    @precondition(lambda self: self.living)
    @rule(lasting=st.booleans(), outside=st.booleans())
    def die(self, *, lasting: bool, outside: bool) -> None:
        launch = self.living.pop()
        self.feed(Exited(launch, "died", lasting=lasting, outside=outside))

    @invariant()
    def one_process_at_most(self) -> None:
        assert len(self.living) <= 1
        assert self.machine.phase.alive == bool(self.living)

    @invariant()
    def only_what_runs_is_ready(self) -> None:
        if self.machine.report().state == "ready":
            assert self.living
            assert self.machine.report().port is not None

    def teardown(self) -> None:
        """However it stands: not wanted any more, it ends stopped, also if it heeds only KILL."""
        self.want(None)
        for _ in range(10):
            if self.machine.launch in self.killed and self.living:
                self.living.clear()
                self.feed(Exited(self.machine.launch, "killed"))
            self.pass_time(120.0)
        assert self.machine.gone
        assert not self.living


World.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestWorld = World.TestCase


def test_what_ends_has_the_time_that_was_said_and_less_when_it_is_said_again() -> None:
    run = Run().ready().feed(Wanted(None, 50.0))
    assert run.feed(Tick(), after_s=49).state == "draining"
    assert Terminate not in run.kinds()
    hurried = Run().ready().feed(Wanted(None, 50.0), Wanted(None, 2.0))
    assert hurried.feed(Tick(), after_s=3).kinds() == [Terminate]
