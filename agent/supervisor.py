"""One replica as a state machine: events in, effects out. No clock, no process, no network here.

    pending ──► starting ──► ready ──► draining ──► stopped
                 │  ▲          │          │
                 │  │          │          └──► starting (its successor)
                 ▼  │          ▼
               backoff ◄───────┘        failed: only a change can help

- At most one process at a time: a launch is spawned only when the one before has exited.
- Ready means that the engine gave a real token; a process that merely runs is starting.
- A replica that is not wanted any more always ends stopped, whatever its process does: it is
  drained, then asked to end, then killed, and killed again until it is gone.
- A process that dies by itself is started again after a wait that doubles each time; one that
  served for `stable_s`, or served until somebody else killed it, starts with the shortest wait.
- One that hangs, or never gave a token, is looked at before it is ended: see `dumps.py`.
- What cannot work (no model file, no engine) is failed until what is wanted, or the file, changes.
"""

from dataclasses import dataclass, field, replace
from typing import Final

from msgspec import structs

from agent.events import (
    Adopted,
    CauseChanged,
    Drain,
    Dump,
    Effects,
    Event,
    Exited,
    Find,
    GaveToken,
    Idle,
    Kill,
    Listening,
    Measured,
    OfProcess,
    Probe,
    Refreshed,
    Report,
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
from agent.phases import STATES, Phase
from appliance.wire.agent import DesiredReplica, ReplicaReport


@dataclass(frozen=True, slots=True)
class Times:
    """How long things may take, in seconds."""

    backoff_s: float = 0.5  # before the first restart; doubles
    backoff_s_max: float = 60.0
    stable_s: float = 30.0  # of service, after which failures are forgotten
    start_s: float = 600.0  # from the spawn to the first token
    drain_s: float = 30.0  # for the requests that run; as long as the appliance gives them
    end_s: float = 5.0  # from TERM to KILL, and between two KILLs
    still_s: float = 15.0  # without any progress, until an engine counts as hung


_NOTHING: Final[Effects] = ()


@dataclass(slots=True)
class _Process:
    """What is known of the process of the present launch."""

    pid: int | None = None
    started_ns: int | None = None
    host: str | None = None
    port: int | None = None
    api_key: str | None = field(default=None, repr=False)
    measured: Measured | None = None
    asleep: bool = False
    verdict: str | None = None  # why we end it ourselves; None: it was not our doing


class Supervisor:
    """The machine of one replica. `handle` takes an event and the time, monotonic."""

    __slots__ = (
        "_cause",
        "_deployment_id",
        "_drain_s",
        "_due_s",
        "_failures",
        "_process",
        "_ready_since_s",
        "_replica_id",
        "_restarts",
        "_running",
        "_times",
        "_wanted",
        "launch",
        "phase",
        "reason",
    )

    def __init__(self, replica_id: str, deployment_id: str, times: Times) -> None:
        self._replica_id = replica_id
        self._deployment_id = deployment_id
        self._times = times
        self._wanted: DesiredReplica | None = None
        self._drain_s = times.drain_s  # as it was said with what is wanted
        self._running: DesiredReplica | None = None  # what the present or last launch was for
        self._process = _Process()
        self._failures = 0
        self._restarts = 0
        self._cause = ""  # of the last end that was not our doing
        self._ready_since_s: float | None = None  # None: this launch never served
        self._due_s: float | None = None
        self.launch = 0
        self.phase = Phase.PENDING
        self.reason = ""

    @property
    def due_s(self) -> float | None:
        """When a Tick is needed; None: no need."""
        return self._due_s

    @property
    def gone(self) -> bool:
        """Nothing runs and nothing is wanted: the machine may be forgotten."""
        return self.phase is Phase.STOPPED and self._wanted is None

    @property
    def restarts(self) -> int:
        return self._restarts

    @property
    def running(self) -> DesiredReplica | None:
        """What the present or last launch was for."""
        return self._running

    def report(self) -> ReplicaReport:
        """The replica as the appliance is told of it."""
        process, measured = self._process, self._process.measured
        known = self._running or self._wanted
        alive = self.phase.alive
        return ReplicaReport(
            replica_id=self._replica_id,
            deployment_id=self._deployment_id,
            generation=0 if known is None else known.generation,
            state=STATES[self.phase],
            reason=self.reason,
            host=process.host if alive else None,
            port=process.port if alive else None,
            api_key=process.api_key if alive else None,
            pid=process.pid if alive else None,
            started_ns=process.started_ns if alive else None,
            restarts=self._restarts,
            slots=measured.slots if measured and alive else None,
            context_tokens=measured.context_tokens if measured and alive else None,
            tokens_per_s=measured.tokens_per_s if measured else None,
            prompt_tokens_per_byte=measured.prompt_tokens_per_byte if measured else None,
            prefill_tokens_per_s=measured.prefill_tokens_per_s if measured else None,
            gpu_memory_bytes=measured.gpu_memory_bytes if measured else None,
            loaded_s=measured.loaded_s if measured else None,
            asleep=process.asleep and alive,
        )

    def handle(self, event: Event, now_s: float) -> Effects:
        """Take one event in; what has to be done, in order."""
        match event:
            case Wanted(replica, drain_s):
                self._drain_s = self._times.drain_s if drain_s is None else drain_s
                return self._want(replica, now_s)
            case Tick():
                return self._tick(now_s)
            case CauseChanged():
                return self._start(now_s) if self.phase is Phase.FAILED else _NOTHING
            case Adopted():
                return self._adopt(event, now_s)
            case _ if event.launch == self.launch and self.phase.alive:
                return self._of_process(event, now_s)
        return _NOTHING

    def _of_process(self, event: OfProcess, now_s: float) -> Effects:
        """What happens to the process of the present launch."""
        match event:
            case Spawned(_, pid, started_ns):
                self._process.pid, self._process.started_ns = pid, started_ns
                return (Report(),)
            case Listening(launch, host, port, api_key):
                return self._listening(launch, host, port, api_key)
            case GaveToken(_, measured):
                return self._gave_token(measured, now_s)
            case Useless(_, reason):
                return self._useless(reason, now_s)
            case Refreshed():
                return self._refreshed(event)
            case Slept(_, asleep):
                if asleep == self._process.asleep:
                    return _NOTHING
                self._process.asleep = asleep
                return (Report(),)
            case Idle():
                return self._end(now_s) if self.phase is Phase.DRAINING else _NOTHING
            case Exited():
                return self._exited(event, now_s)

    def _want(self, replica: DesiredReplica | None, now_s: float) -> Effects:
        self._wanted = replica
        if not self.phase.alive:
            if replica is None:
                return _NOTHING if self.phase is Phase.STOPPED else self._rest(Phase.STOPPED, "")
            if self.phase in {Phase.BACKOFF, Phase.FAILED} and replica == self._running:
                return _NOTHING
            self._failures = 0
            return self._start(now_s)
        if replica == self._running:
            return _NOTHING
        if replica is not None and self._differ_in_sleep(replica):
            self._running = replica
            return (self._sleep(),) if self.phase is Phase.READY else _NOTHING
        why = "Not wanted any more." if replica is None else "Makes room for its new settings."
        if self.phase is Phase.READY:
            return self._drain(why, now_s)
        if self.phase is Phase.STARTING:
            self._process.verdict = why
            return self._end(now_s)
        if self.phase is Phase.DRAINING and self._due_s is not None:  # perhaps in a hurry now
            self._due_s = min(self._due_s, now_s + self._drain_s)
        return _NOTHING

    def _differ_in_sleep(self, replica: DesiredReplica) -> bool:
        """Whether what runs needs no other process for it: it is told to sleep, or woken."""
        running = self._running
        return running is not None and structs.replace(running, asleep=replica.asleep) == replica

    def _sleep(self) -> Sleep:
        process = self._process
        assert self._running is not None  # it is ready: it was launched,
        assert process.host is not None  # and it listens
        assert process.port is not None
        at = (process.host, process.port, process.api_key)
        return Sleep(self.launch, self._running, self._running.asleep, *at)

    def _refreshed(self, seen: Refreshed) -> Effects:
        measured = self._process.measured
        if measured is None:
            return _NOTHING
        self._process.measured = replace(
            measured,
            tokens_per_s=seen.tokens_per_s,
            prefill_tokens_per_s=seen.prefill_tokens_per_s,
            gpu_memory_bytes=seen.gpu_memory_bytes or measured.gpu_memory_bytes,
        )
        return (Report(),)

    def _adopt(self, found: Adopted, now_s: float) -> Effects:
        self.launch += 1
        self._running = found.replica
        self._restarts = found.restarts
        self._process = _Process(pid=found.pid, started_ns=found.started_ns)
        self.phase = Phase.STARTING
        served = found.served
        if served is None:
            self.reason = "Found loading its model."
            self._due_s = now_s + self._times.start_s
            return (Find(self.launch, found.replica), Report())
        process = self._process
        process.host, process.port, process.api_key = served.host, served.port, served.api_key
        return self._serve(served.measured, now_s)

    def _start(self, now_s: float) -> Effects:
        assert self._wanted is not None  # only what is wanted is started
        self.launch += 1
        self._running = self._wanted
        self._process = _Process()
        self._ready_since_s = None
        self.phase = Phase.STARTING
        self.reason = f"Starting again. {self._cause}" if self._failures else "Loading the model."
        self._due_s = now_s + self._times.start_s
        return (Spawn(self.launch, self._wanted), Report())

    def _listening(self, launch: int, host: str, port: int, api_key: str | None) -> Effects:
        process = self._process
        process.host, process.port, process.api_key = host, port, api_key
        if self.phase is not Phase.STARTING:
            return _NOTHING
        assert self._running is not None  # something was launched
        return (Probe(launch, self._running, host, port, api_key), Report())

    def _gave_token(self, measured: Measured, now_s: float) -> Effects:
        if self.phase is not Phase.STARTING:
            return _NOTHING
        if self._wanted != self._running:  # it was adopted, and what is wanted changed meanwhile
            effects = self._want(self._wanted, now_s)
            if self._wanted != self._running:
                return effects
        return self._serve(measured, now_s)

    def _serve(self, measured: Measured, now_s: float) -> Effects:
        process = self._process
        assert self._running is not None  # it was launched,
        assert process.host is not None  # and it listens
        assert process.port is not None
        process.measured = measured
        self.phase = Phase.READY
        self.reason = ""
        self._ready_since_s = now_s
        self._due_s = None
        watch = Watch(self.launch, self._running, process.host, process.port, process.api_key)
        return (Report(), watch, self._sleep()) if self._running.asleep else (Report(), watch)

    def _useless(self, reason: str, now_s: float) -> Effects:
        if self.phase not in {Phase.STARTING, Phase.READY}:
            return _NOTHING
        self._process.verdict = None
        self.reason = reason
        if self.phase is Phase.READY:  # it hangs: requests would wait for nothing
            return (Dump(self.launch, reason), *self._kill(now_s), Report())
        return (Dump(self.launch, reason), *self._end(now_s))

    def _drain(self, why: str, now_s: float) -> Effects:
        self._process.verdict = why
        self.phase = Phase.DRAINING
        self.reason = why
        self._due_s = now_s + self._drain_s
        return (Report(), Drain(self.launch))

    def _end(self, now_s: float) -> Effects:
        self.phase = Phase.ENDING
        self.reason = self._process.verdict or self.reason
        self._due_s = now_s + self._times.end_s
        return (Report(), Terminate(self.launch))

    def _kill(self, now_s: float) -> Effects:
        self.phase = Phase.KILLING
        self._due_s = now_s + self._times.end_s
        return (Kill(self.launch),)

    def _tick(self, now_s: float) -> Effects:
        if self._due_s is None or now_s < self._due_s:
            return _NOTHING
        if self.phase is Phase.BACKOFF:
            return self._start(now_s)
        if self.phase is Phase.STARTING:
            self.reason = f"No token within {self._times.start_s:g} s of its start."
            return (Dump(self.launch, self.reason), *self._end(now_s))
        if self.phase is Phase.DRAINING:
            return self._end(now_s)
        return self._kill(now_s)  # it was told to end

    def _exited(self, end: Exited, now_s: float) -> Effects:
        if self._wanted is None:
            return self._rest(Phase.STOPPED, "")
        if self._wanted != self._running:
            self._failures = 0
            return self._start(now_s)
        if self._process.verdict is not None:  # stopped for a change that was taken back
            return self._start(now_s)
        # What was wrong before we ended it says more than how it ended.
        self._cause = self.reason if self.phase in {Phase.ENDING, Phase.KILLING} else end.reason
        if end.lasting:
            return self._rest(Phase.FAILED, self._cause)
        ready_since_s = self._ready_since_s
        if ready_since_s is not None:
            ended_by_us = self.phase in {Phase.ENDING, Phase.KILLING}
            if now_s - ready_since_s >= self._times.stable_s or (end.outside and not ended_by_us):
                self._failures = 0
        wait_s = min(self._times.backoff_s * 2**self._failures, self._times.backoff_s_max)
        # No further than needed: the exponent of a replica that never works must not overflow.
        self._failures = min(self._failures + 1, 32)
        self._restarts += 1
        effects = self._rest(Phase.BACKOFF, f"{self._cause} Next start after {wait_s:g} s.")
        self._due_s = now_s + wait_s
        return effects

    def _rest(self, phase: Phase, reason: str) -> Effects:
        self.phase = phase
        self.reason = reason
        self._due_s = None
        return (Report(),)
