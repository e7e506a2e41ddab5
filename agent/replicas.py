"""All replicas of this node: their machines, and the shell that does what the machines say."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final

import aiohttp

from agent import host
from agent.engines import llamacpp
from agent.engines.probe import Engine, Load
from agent.errors import EngineUnfit
from agent.events import (
    Adopted,
    CauseChanged,
    Drain,
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
    Report,
    Served,
    Spawn,
    Spawned,
    Terminate,
    Tick,
    Useless,
    Wanted,
    Watch,
)
from agent.processes import Fitness, Process, Processes
from agent.progress import Progress
from agent.supervisor import Phase, Supervisor, Times
from appliance.domain.clock import Clock
from appliance.wire.agent import DesiredReplica, EngineCount, ReplicaReport

log = logging.getLogger(__name__)

_LOOK_S: Final = 1.0  # between two looks at models' files and logs' lengths
_FIND_S: Final = 0.05
_FIND_S_MAX: Final = 0.5
_WATCH_S: Final = 2.0
_DRAIN_POLL_S: Final = 0.15
_TOLD_S: Final = 1.0


class _Seat:
    """One replica's machine, its process and what is being done for it."""

    __slots__ = ("count", "fingerprint", "logged", "machine", "process", "tasks")

    def __init__(self, machine: Supervisor) -> None:
        self.machine = machine
        self.process: Process | None = None
        self.tasks: set[asyncio.Task[None]] = set()
        self.logged = Phase.PENDING  # the phase the log has
        self.count: EngineCount | None = None  # as the engine told it last
        self.fingerprint: object = None  # of the model's file, when a start was hopeless


class Replicas:
    """Runs what it is told to run. Its tasks live in the caller's TaskGroup."""

    def __init__(
        self,
        *,
        processes: Processes,
        session: aiohttp.ClientSession,
        tasks: asyncio.TaskGroup,
        cores: int,
        clock: Clock,
        times: Times,
        changed: Callable[[], None],
        told: Callable[[], Awaitable[None]],
    ) -> None:
        """`changed` is called when a report differs; `told` returns when the appliance knows."""
        self._processes = processes
        self._session = session
        self._tasks = tasks
        self._cores = cores
        self._clock = clock
        self._times = times
        self._changed = changed
        self._told = told
        self._seats: dict[str, _Seat] = {}
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._wanted_count = 0

    def adopt(self) -> None:
        """Take over the engines that an earlier agent left running. Before the first `want`."""
        for process in self._processes.adopt():
            record = process.record
            seat = self._seat(record.replica)
            seat.process = process
            self._watch_exit(seat, process)
            log.info(
                "engine adopted",
                extra={"replica_id": record.replica.replica_id, "pid": record.pid},
            )
            served = _served(process)
            self._feed(
                seat,
                Adopted(record.replica, record.pid, record.started_ns, record.restarts, served),
            )

    def want(self, desired: Sequence[DesiredReplica]) -> None:
        """Run exactly these."""
        self._wanted_count = len(desired)
        by_id = {replica.replica_id: replica for replica in desired}
        for replica_id, seat in list(self._seats.items()):
            if replica_id not in by_id:
                self._feed(seat, Wanted(None))
        for replica in desired:
            self._feed(self._seat(replica), Wanted(replica))

    def reports(self) -> tuple[ReplicaReport, ...]:
        return tuple(seat.machine.report() for seat in self._seats.values())

    def counts(self) -> tuple[EngineCount, ...]:
        """What the engines counted when they were last asked, those that ended included."""
        return tuple(seat.count for seat in self._seats.values() if seat.count is not None)

    async def run(self) -> None:
        """Let time pass for the machines, until cancelled."""
        looked_s = 0.0
        while True:
            now_s = self._clock.monotonic_s()
            for seat in list(self._seats.values()):
                due_s = seat.machine.due_s
                if due_s is not None and due_s <= now_s:
                    self._feed(seat, Tick())
            if now_s - looked_s >= _LOOK_S:
                looked_s = now_s
                self._look()
            due = [s.machine.due_s for s in self._seats.values() if s.machine.due_s is not None]
            next_s = min([*due, now_s + _LOOK_S]) - self._clock.monotonic_s()
            self._wake.clear()
            await _wait(self._wake, max(0.01, next_s))

    async def stop(self) -> None:
        """End every engine, its requests first. Returns when all are gone."""
        self.want(())
        if self._seats:
            self._empty.clear()
            await self._empty.wait()  # the machines kill what does not end

    def release(self) -> None:
        """Let go of the engines without touching them: the next agent adopts them."""
        for seat in self._seats.values():
            self._cancel(seat)
            if seat.process is not None:
                asyncio.get_running_loop().remove_reader(seat.process.pidfd)

    # Machines and effects.

    def _seat(self, replica: DesiredReplica) -> _Seat:
        seat = self._seats.get(replica.replica_id)
        if seat is None:
            machine = Supervisor(replica.replica_id, replica.deployment_id, self._times)
            seat = self._seats[replica.replica_id] = _Seat(machine)
        return seat

    def _feed(self, seat: _Seat, event: Event) -> None:
        machine = seat.machine
        for effect in machine.handle(event, self._clock.monotonic_s()):
            self._apply(seat, effect)
        if machine.phase is not seat.logged:
            seat.logged = machine.phase
            report = machine.report()
            log.info(
                "replica %s",
                report.state,
                extra={
                    "replica_id": report.replica_id,
                    "deployment_id": report.deployment_id,
                    "pid": report.pid,
                    "reason": report.reason,
                },
            )
        if machine.gone:
            self._cancel(seat)
            self._seats.pop(machine.report().replica_id, None)
            if not self._seats:
                self._empty.set()
        self._wake.set()

    def _apply(self, seat: _Seat, effect: Effect) -> None:
        match effect:
            case Report():
                self._changed()
            case Spawn(launch, replica):
                self._spawn(seat, launch, replica)
            case Find(launch, replica):
                self._begin(seat, self._find(seat, launch, replica))
            case Probe(launch, replica, address, port, api_key):
                engine = Engine(self._session, replica, address, port, api_key)
                self._begin(seat, self._probe(seat, launch, engine))
            case Watch(launch, replica, address, port, api_key):
                engine = Engine(self._session, replica, address, port, api_key)
                self._begin(seat, self._watch(seat, launch, engine))
            case Drain(launch):
                self._begin(seat, self._drain(seat, launch))
            case Terminate():
                self._end(seat, kill=False)
            case Kill():
                self._end(seat, kill=True)

    def _spawn(self, seat: _Seat, launch: int, replica: DesiredReplica) -> None:
        problem = llamacpp.hopeless(replica)
        if problem is not None:
            seat.fingerprint = llamacpp.fingerprint(replica)
            self._feed(seat, Exited(launch, problem, lasting=True))
            return
        threads = llamacpp.threads(replica, self._cores, self._wanted_count)
        command = llamacpp.command(replica, threads, secrets.token_urlsafe(24))
        try:
            process = self._processes.spawn(replica, command, seat.machine.restarts)
        except OSError as error:
            reason = f"The engine cannot be started: {error.strerror}."
            self._feed(seat, Exited(launch, reason))
            return
        seat.process = process
        self._watch_exit(seat, process)
        self._feed(seat, Spawned(launch, process.pid, process.record.started_ns))
        self._begin(seat, self._find(seat, launch, replica))

    def _end(self, seat: _Seat, *, kill: bool) -> None:
        if seat.process is not None:
            seat.process.end(kill=kill)

    def _begin(self, seat: _Seat, work: Coroutine[Any, Any, None]) -> None:
        task = self._tasks.create_task(work)
        seat.tasks.add(task)
        task.add_done_callback(seat.tasks.discard)

    def _cancel(self, seat: _Seat) -> None:
        for task in seat.tasks:
            task.cancel()

    def _watch_exit(self, seat: _Seat, process: Process) -> None:
        asyncio.get_running_loop().add_reader(process.pidfd, self._on_exit, seat, process)

    def _on_exit(self, seat: _Seat, process: Process) -> None:
        asyncio.get_running_loop().remove_reader(process.pidfd)
        self._cancel(seat)
        seat.process = None
        replica = process.record.replica
        exit_code = process.exit_code()
        self._processes.forget(process)
        reason, lasting = llamacpp.end_reason(
            exit_code, self._processes.log_tail(replica.replica_id)
        )
        if lasting:
            seat.fingerprint = llamacpp.fingerprint(replica)
        self._feed(seat, Exited(seat.machine.launch, reason, lasting=lasting))

    def _look(self) -> None:
        for replica_id, seat in list(self._seats.items()):
            self._processes.bound_log(replica_id)
            replica = seat.machine.running
            if seat.machine.phase is not Phase.FAILED or replica is None:
                continue
            fingerprint = llamacpp.fingerprint(replica)
            if fingerprint != seat.fingerprint:
                seat.fingerprint = fingerprint
                self._feed(seat, CauseChanged())

    # What takes time. Each ends by feeding one event; the end of the process cancels them.

    async def _find(self, seat: _Seat, launch: int, replica: DesiredReplica) -> None:
        delay_s = _FIND_S
        while (line := self._processes.ready_line(replica.replica_id)) is None:
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 1.2, _FIND_S_MAX)
        address = llamacpp.address(line)
        if address is None or seat.process is None:
            self._feed(seat, Useless(launch, "The engine does not tell where it listens."))
            return
        api_key = llamacpp.api_key_of(host.process_environ(seat.process.pid))
        self._feed(seat, Listening(launch, address.host, address.port, api_key))

    async def _probe(self, seat: _Seat, launch: int, engine: Engine) -> None:
        try:
            measured = await engine.measure()
        except EngineUnfit as error:
            self._feed(seat, Useless(launch, error.message))
            return
        self._note(seat, measured)
        self._feed(seat, GaveToken(launch, measured))

    def _note(self, seat: _Seat, measured: Measured) -> None:
        report = seat.machine.report()
        if seat.process is None or report.host is None or report.port is None:
            return
        fitness = Fitness(
            host=report.host,
            port=report.port,
            slots=measured.slots,
            context_tokens=measured.context_tokens,
            tokens_per_s=measured.tokens_per_s,
            prompt_tokens_per_byte=measured.prompt_tokens_per_byte,
        )
        self._processes.note(seat.process, fitness)

    async def _watch(self, seat: _Seat, launch: int, engine: Engine) -> None:
        process = seat.process
        progress = Progress(self._clock.monotonic_s(), self._times.still_s)
        while process is not None and seat.machine.phase is Phase.READY:
            await asyncio.sleep(_WATCH_S)
            try:
                load = await engine.load()
                _count(seat, load)
            except EngineUnfit:
                load = None
            problem = progress.look(load, process.cpu_ticks(), self._clock.monotonic_s())
            if problem is not None:
                self._feed(seat, Useless(launch, problem))
                return

    async def _drain(self, seat: _Seat, launch: int) -> None:
        """Wait until the appliance knows, then until nothing runs: twice, for what was underway."""
        try:
            async with asyncio.timeout(_TOLD_S):
                await self._told()
        except TimeoutError:
            log.info("draining without the appliance", extra={"launch": launch})
        report, replica = seat.machine.report(), seat.machine.running
        if report.host is None or report.port is None or replica is None:
            return
        engine = Engine(self._session, replica, report.host, report.port, report.api_key)
        quiet = 0
        while quiet < 2:
            await asyncio.sleep(_DRAIN_POLL_S)
            try:
                load = await engine.load()
                _count(seat, load)
            except EngineUnfit:
                break  # nothing can be served by it any more
            quiet = quiet + 1 if load.requests == 0 else 0
        self._feed(seat, Idle(launch))


async def _wait(event: asyncio.Event, longest_s: float) -> None:
    # Not `asyncio.wait_for`: before Python 3.12 it loses a cancellation that meets the event.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(longest_s):
            await event.wait()


def _count(seat: _Seat, load: Load) -> None:
    """Remember what the engine of this seat says it counted."""
    report = seat.machine.report()
    if report.pid is not None and report.started_ns is not None:
        seat.count = EngineCount(
            replica_id=report.replica_id,
            incarnation=f"{report.started_ns}-{report.pid}",
            prompt_tokens=load.prompt_tokens,
            generated_tokens=load.generated_tokens,
        )


def _served(process: Process) -> Served | None:
    fitness = process.record.fitness
    if fitness is None:
        return None
    return Served(
        fitness.host,
        fitness.port,
        llamacpp.api_key_of(host.process_environ(process.pid)),
        Measured(
            fitness.slots,
            fitness.context_tokens,
            fitness.tokens_per_s,
            fitness.prompt_tokens_per_byte,
        ),
    )
