"""All replicas of this node: their machines, and the shell that does what the machines say."""

import asyncio
import contextlib
import logging
import secrets
import signal
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import aiohttp
import msgspec

from agent import dumps, host
from agent.attendant import Attendant, GpuMemory
from agent.engines.kind import Address, Kind, Kinds, Room
from agent.engines.kinds import unknown
from agent.engines.readings import ready_caveat
from agent.errors import UnknownReplica
from agent.events import (
    Adopted,
    CauseChanged,
    Drain,
    Dump,
    Effect,
    Event,
    Exited,
    Find,
    Kill,
    Probe,
    Report,
    Sleep,
    Spawn,
    Spawned,
    Terminate,
    Tick,
    Wanted,
    Watch,
)
from agent.phases import Phase
from agent.processes import Process, Processes
from agent.seat import Seat, served
from agent.shortage import shortage
from agent.supervisor import Supervisor, Times
from appliance.domain.clock import Clock
from appliance.wire.agent import DesiredReplica, EngineCount, EngineKind, ReplicaReport
from appliance.wire.engine_arguments import LOOPBACK

log = logging.getLogger(__name__)

# By KILL or TERM of somebody else; None: an adopted one, of which nobody tells.
_KILLED: Final = frozenset({None, -signal.SIGKILL, -signal.SIGTERM})
_SWEEP_S: Final = 3_600.0  # between two looks at what gone replicas left
_LOOK_S: Final = 1.0  # between two looks at models' files and logs' lengths


def _no_gpus(_pids: Collection[int]) -> int | None:
    return None


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
        versions: Mapping[EngineKind, str] = MappingProxyType({}),
        gpu_memory: GpuMemory = _no_gpus,
    ) -> None:
        """`changed` is called when a report differs; `told` returns when the appliance knows.

        `versions` are those of the engines installed here, `gpu_memory` tells what processes hold.
        """
        self._processes = processes
        self._kinds = kinds
        self._versions = versions
        self._tasks = tasks
        self._cores = cores
        self._clock = clock
        self._times = times
        self._changed = changed
        self._attendant = Attendant(
            processes=processes,
            kinds=kinds,
            session=session,
            clock=clock,
            still_s=times.still_s,
            feed=self._feed,
            told=told,
            gpu_memory=gpu_memory,
        )
        self._oom_kills = (host.oom_kills(), host.oom_kills())  # at the last two looks
        self._seats: dict[str, Seat] = {}
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._wanted_count = 0

    def adopt(self) -> None:
        """Take over the engines that an earlier agent left running. Before the first `want`."""
        for process in self._processes.adopt():
            record = process.record
            seat = self._seat(record.replica)
            seat.process, seat.caveat = process, None
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

    def want(self, desired: Sequence[DesiredReplica], drain_s: float | None = None) -> None:
        """Run exactly these. `drain_s`: for requests of what ends; None: the usual time."""
        self._wanted_count = len(desired)
        by_id = {replica.replica_id: replica for replica in desired}
        for replica_id, seat in list(self._seats.items()):
            if replica_id not in by_id:
                self._feed(seat, Wanted(None, drain_s))
        for replica in desired:
            self._feed(self._seat(replica), Wanted(replica, drain_s))

    def reports(self) -> tuple[ReplicaReport, ...]:
        for replica_id, seat in self._seats.items():
            if seat.caveat is None and seat.machine.phase is Phase.READY:
                seat.caveat = ready_caveat(self._processes.ready_line(replica_id) or b"")
        return tuple(
            seat.report(self._versions.get(seat.machine.running.engine))
            if seat.machine.running is not None
            else seat.report(None)
            for seat in self._seats.values()
        )

    def counts(self) -> tuple[EngineCount, ...]:
        """What the engines counted when they were last asked, those that ended included."""
        return tuple(seat.count for seat in self._seats.values() if seat.count is not None)

    async def log_of(self, replica_id: str) -> bytes:
        """Answers a question of the kind engine_log. Raises UnknownReplica."""
        self._known(replica_id)
        lines = await asyncio.to_thread(self._processes.log_tail, replica_id)
        return msgspec.json.encode(dumps.harmless(lines))

    async def dump_of(self, replica_id: str) -> bytes:
        """Answers a question of the kind engine_dump: `null` where none was ever taken.

        Raises UnknownReplica.
        """
        self._known(replica_id)
        return msgspec.json.encode(await asyncio.to_thread(self._processes.last_dump, replica_id))

    def _known(self, replica_id: str) -> None:
        if replica_id not in self._seats:  # and no path is ever made of an unknown name
            raise UnknownReplica(f"No replica {replica_id!r} runs on this node.")

    async def run(self) -> None:
        """Let time pass for the machines, until cancelled."""
        looked_s, swept_s = 0.0, -_SWEEP_S
        while True:
            now_s = self._clock.monotonic_s()
            if now_s - swept_s >= _SWEEP_S:
                swept_s = now_s
                wall_s = self._clock.wall_ns() / 1e9
                await asyncio.to_thread(self._processes.sweep, set(self._seats), wall_s)
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
                self._begin(seat, self._attendant.find(seat, launch, replica))
            case Drain(launch):
                self._begin(seat, self._attendant.drain(seat, launch))
            case Probe() | Watch() | Sleep():
                self._begin(seat, self._attend(seat, effect))
            case Dump(_, reason):
                self._dump(seat, reason)
            case Terminate():
                self._end(seat, kill=False)
            case Kill():
                self._end(seat, kill=True)

    def _attend(self, seat: Seat, effect: Probe | Watch | Sleep) -> Coroutine[Any, Any, None]:
        launch, replica = effect.launch, effect.replica
        address = Address(effect.host, effect.port)
        engine = self._attendant.engine(replica, address, effect.api_key)
        match effect:
            case Probe():
                return self._attendant.probe(seat, launch, engine)
            case Watch():
                return self._attendant.watch(seat, launch, replica, engine)
            case Sleep():
                asleep = effect.asleep
                return self._attendant.sleep(seat, launch, replica, engine, asleep=asleep)

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
        seat.process, seat.caveat = process, None
        self._watch_exit(seat, process)
        self._feed(seat, Spawned(launch, process.pid, process.record.started_ns))
        self._begin(seat, self._attendant.find(seat, launch, replica))

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

    def _fingerprint(self, replica: DesiredReplica) -> object:
        kind = self._kinds.get(replica.engine)
        return None if kind is None else kind.fingerprint(replica)

    def _end(self, seat: Seat, *, kill: bool) -> None:
        if seat.process is not None:
            self._processes.note_shared(seat.process)
            seat.process.end(kill=kill)

    def _dump(self, seat: Seat, reason: str) -> None:
        """What is to be ended for `reason` is looked at while it is there."""
        process = seat.process
        if process is None:
            return
        replica_id = process.record.replica.replica_id
        tail = self._processes.log_tail(replica_id)
        at_ns = self._clock.wall_ns()
        dump = dumps.take(replica_id, process.pid, process.family(), reason, tail, at_ns)
        try:
            self._processes.keep_dump(dump)
        except OSError as error:
            log.warning("dump not kept", extra={"replica_id": replica_id, "why": error.strerror})
            return
        log.warning(
            "engine dumped",
            extra={"replica_id": replica_id, "pid": process.pid, "reason": reason},
        )

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
        tail: Sequence[str] = ()
        try:  # whatever the disk says: the engine is gone, and its machine must hear of it
            self._processes.forget(process)
            tail = self._processes.log_tail(replica.replica_id)
        except OSError as error:
            log.warning("ended engine not tidied up", extra={"why": str(error)})
        reason, lasting = self._kind(replica).end_reason(exit_code, tail)
        killed = exit_code != 0 and host.oom_kills() > self._oom_kills[0]
        want = shortage(tail, killed=killed)
        if want is not None:  # of memory, which may be free another time
            reason, lasting = want, False
        if lasting:
            seat.fingerprint = self._fingerprint(replica)
        outside = want is None and exit_code in _KILLED
        self._feed(seat, Exited(seat.machine.launch, reason, lasting=lasting, outside=outside))

    def _look(self) -> None:
        self._oom_kills = (self._oom_kills[1], host.oom_kills())
        for replica_id, seat in list(self._seats.items()):
            self._processes.bound_log(replica_id)
            replica = seat.machine.running
            if seat.machine.phase is not Phase.FAILED or replica is None:
                continue
            fingerprint = self._fingerprint(replica)
            if fingerprint != seat.fingerprint:
                seat.fingerprint = fingerprint
                self._feed(seat, CauseChanged())


async def _wait(event: asyncio.Event, longest_s: float) -> None:
    # Not `asyncio.wait_for`: before Python 3.12 it loses a cancellation that meets the event.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(longest_s):
            await event.wait()
