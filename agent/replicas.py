"""All replicas of this node: their machines, and the shell that does what the machines say."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any, Final

import aiohttp

from agent import host
from agent.engines.kind import Address, Kind, Kinds, Room
from agent.engines.kinds import unknown
from agent.engines.probe import Engine
from agent.engines.readings import ready_address
from agent.engines.variables import api_key_of, port_of
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
    Spawn,
    Spawned,
    Terminate,
    Tick,
    Useless,
    Wanted,
    Watch,
)
from agent.phases import Phase
from agent.processes import Fitness, Process, Processes
from agent.progress import Progress
from agent.seat import Seat, served
from agent.supervisor import Supervisor, Times
from appliance.domain.clock import Clock
from appliance.wire.agent import DesiredReplica, EngineCount, ReplicaReport
from appliance.wire.engine_arguments import LOOPBACK

log = logging.getLogger(__name__)

_LOOK_S: Final = 1.0  # between two looks at models' files and logs' lengths
_FIND_S: Final = 0.05
_FIND_S_MAX: Final = 0.5
_WATCH_S: Final = 2.0
_DRAIN_POLL_S: Final = 0.15
_TOLD_S: Final = 1.0


class Replicas:
    """Runs what it is told to run. Its tasks live in the caller's TaskGroup."""

    def __init__(
        self,
        *,
        processes: Processes,
        kinds: Kinds,
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
        self._kinds = kinds
        self._session = session
        self._tasks = tasks
        self._cores = cores
        self._clock = clock
        self._times = times
        self._changed = changed
        self._told = told
        self._seats: dict[str, Seat] = {}
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
            was = served(process)
            self._feed(
                seat,
                Adopted(record.replica, record.pid, record.started_ns, record.restarts, was),
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

    def _seat(self, replica: DesiredReplica) -> Seat:
        seat = self._seats.get(replica.replica_id)
        if seat is None:
            machine = Supervisor(replica.replica_id, replica.deployment_id, self._times)
            seat = self._seats[replica.replica_id] = Seat(machine)
        return seat

    def _feed(self, seat: Seat, event: Event) -> None:
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

    def _apply(self, seat: Seat, effect: Effect) -> None:
        match effect:
            case Report():
                self._changed()
            case Spawn(launch, replica):
                self._spawn(seat, launch, replica)
            case Find(launch, replica):
                self._begin(seat, self._find(seat, launch, replica))
            case Probe(launch, replica, at, port, api_key):
                engine = self._engine(replica, Address(at, port), api_key)
                self._begin(seat, self._probe(seat, launch, engine))
            case Watch(launch, replica, at, port, api_key):
                engine = self._engine(replica, Address(at, port), api_key)
                self._begin(seat, self._watch(seat, launch, engine))
            case Drain(launch):
                self._begin(seat, self._drain(seat, launch))
            case Terminate():
                self._end(seat, kill=False)
            case Kill():
                self._end(seat, kill=True)

    def _spawn(self, seat: Seat, launch: int, replica: DesiredReplica) -> None:
        kind = self._kinds.get(replica.engine)
        problem = unknown(replica.engine) if kind is None else kind.hopeless(replica)
        if kind is None or problem is not None:
            seat.fingerprint = self._fingerprint(replica)
            self._feed(seat, Exited(launch, problem or "", lasting=True))
            return
        try:
            command = kind.command(replica, self._room(replica))
            process = self._processes.spawn(replica, command, seat.machine.restarts)
        except OSError as error:
            reason = f"The engine cannot be started: {error.strerror}."
            self._feed(seat, Exited(launch, reason))
            return
        seat.process = process
        self._watch_exit(seat, process)
        self._feed(seat, Spawned(launch, process.pid, process.record.started_ns))
        self._begin(seat, self._find(seat, launch, replica))

    def _room(self, replica: DesiredReplica) -> Room:
        """What a launch may use. Raises OSError."""
        folder, cache = self._processes.room(replica.replica_id)
        return Room(
            cores=self._cores,
            replicas=self._wanted_count,
            port=host.free_port(LOOPBACK),
            api_key=secrets.token_urlsafe(24),
            folder=folder,
            cache=cache,
        )

    def _kind(self, replica: DesiredReplica) -> Kind:
        """Of a replica whose process runs: only known kinds are ever started."""
        return self._kinds[replica.engine]

    def _engine(self, replica: DesiredReplica, address: Address, api_key: str | None) -> Engine:
        return Engine(self._session, self._kind(replica), replica, address, api_key)

    def _fingerprint(self, replica: DesiredReplica) -> object:
        kind = self._kinds.get(replica.engine)
        return None if kind is None else kind.fingerprint(replica)

    def _end(self, seat: Seat, *, kill: bool) -> None:
        if seat.process is not None:
            seat.process.end(kill=kill)

    def _begin(self, seat: Seat, work: Coroutine[Any, Any, None]) -> None:
        task = self._tasks.create_task(work)
        seat.tasks.add(task)
        task.add_done_callback(seat.tasks.discard)

    def _cancel(self, seat: Seat) -> None:
        for task in seat.tasks:
            task.cancel()

    def _watch_exit(self, seat: Seat, process: Process) -> None:
        asyncio.get_running_loop().add_reader(process.pidfd, self._on_exit, seat, process)

    def _on_exit(self, seat: Seat, process: Process) -> None:
        asyncio.get_running_loop().remove_reader(process.pidfd)
        self._cancel(seat)
        seat.process = None
        replica = process.record.replica
        exit_code = process.exit_code()
        self._processes.forget(process)
        reason, lasting = self._kind(replica).end_reason(
            exit_code, self._processes.log_tail(replica.replica_id)
        )
        if lasting:
            seat.fingerprint = self._fingerprint(replica)
        self._feed(seat, Exited(seat.machine.launch, reason, lasting=lasting))

    def _look(self) -> None:
        for replica_id, seat in list(self._seats.items()):
            self._processes.bound_log(replica_id)
            replica = seat.machine.running
            if seat.machine.phase is not Phase.FAILED or replica is None:
                continue
            fingerprint = self._fingerprint(replica)
            if fingerprint != seat.fingerprint:
                seat.fingerprint = fingerprint
                self._feed(seat, CauseChanged())

    # What takes time. Each ends by feeding one event; the end of the process cancels them.

    async def _find(self, seat: Seat, launch: int, replica: DesiredReplica) -> None:
        """Wait until the engine takes requests; how long it may take is the machine's affair."""
        if seat.process is None:
            return
        environ = host.process_environ(seat.process.pid)
        api_key, port = api_key_of(environ), port_of(environ)
        if port is not None:
            address = Address(LOOPBACK, port)
        else:
            told = ready_address(await self._ready_line(replica.replica_id))
            if told is None:
                self._feed(seat, Useless(launch, "The engine does not tell where it listens."))
                return
            address = told
        await self._healthy(self._engine(replica, address, api_key))
        self._feed(seat, Listening(launch, address.host, address.port, api_key))

    async def _ready_line(self, replica_id: str) -> bytes:
        for delay_s in _delays():
            line = self._processes.ready_line(replica_id)
            if line is not None:
                return line
            await asyncio.sleep(delay_s)
        raise AssertionError  # the delays never end

    async def _healthy(self, engine: Engine) -> None:
        for delay_s in _delays():
            if await engine.healthy():
                return
            await asyncio.sleep(delay_s)

    async def _probe(self, seat: Seat, launch: int, engine: Engine) -> None:
        try:
            measured = await engine.measure()
        except EngineUnfit as error:
            self._feed(seat, Useless(launch, error.message))
            return
        self._note(seat, measured)
        self._feed(seat, GaveToken(launch, measured))

    def _note(self, seat: Seat, measured: Measured) -> None:
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

    async def _watch(self, seat: Seat, launch: int, engine: Engine) -> None:
        process = seat.process
        progress = Progress(self._clock.monotonic_s(), self._times.still_s)
        while process is not None and seat.machine.phase is Phase.READY:
            await asyncio.sleep(_WATCH_S)
            try:
                load = await engine.load()
                seat.note(load)
            except EngineUnfit:
                load = None
            problem = progress.look(load, process.cpu_ticks(), self._clock.monotonic_s())
            if problem is not None:
                self._feed(seat, Useless(launch, problem))
                return

    async def _drain(self, seat: Seat, launch: int) -> None:
        """Wait until the appliance knows, then until nothing runs: twice, for what was underway."""
        try:
            async with asyncio.timeout(_TOLD_S):
                await self._told()
        except TimeoutError:
            log.info("draining without the appliance", extra={"launch": launch})
        report, replica = seat.machine.report(), seat.machine.running
        if report.host is None or report.port is None or replica is None:
            return
        engine = self._engine(replica, Address(report.host, report.port), report.api_key)
        quiet = 0
        while quiet < 2:
            await asyncio.sleep(_DRAIN_POLL_S)
            try:
                load = await engine.load()
                seat.note(load)
            except EngineUnfit:
                break  # nothing can be served by it any more
            quiet = quiet + 1 if load.requests == 0 else 0
        self._feed(seat, Idle(launch))


def _delays() -> Iterator[float]:
    """Between two looks at an engine that starts: short at first, most are up soon or late."""
    delay_s = _FIND_S
    while True:
        yield delay_s
        delay_s = min(delay_s * 1.2, _FIND_S_MAX)


async def _wait(event: asyncio.Event, longest_s: float) -> None:
    # Not `asyncio.wait_for`: before Python 3.12 it loses a cancellation that meets the event.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(longest_s):
            await event.wait()
