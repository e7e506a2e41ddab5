"""All replicas of this node: their machines, and the shell that does what the machines say."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import aiohttp
import msgspec

from agent import dumps, host
from agent.attendant import Attendant, GpuMemory
from agent.engines.kind import Address, Kind, Kinds
from agent.errands import Errands
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
from agent.workshop import Hopeless, Workshop
from appliance.domain.clock import Clock
from appliance.wire.agent import DesiredReplica, EngineCount, EngineKind, ReplicaReport

log = logging.getLogger(__name__)

# By KILL or TERM of somebody else; None: an adopted one, of which nobody tells.
_KILLED: Final = frozenset({None, -signal.SIGKILL, -signal.SIGTERM})
_SWEEP_S: Final = 3_600.0  # between two looks at what gone replicas left
_KILL_S: Final = 2.0  # an engine that is to end is looked at for no longer
_TIDY_S: Final = 5.0  # after an engine's end, until its machine hears of it whatever the disk does
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
        self._workshop = Workshop(processes, kinds, cores)
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
        self._errands = Errands("sweep")
        self._released = False
        self._wanted_count = 0

    def adopt(self) -> None:
        """Take over the engines that an earlier agent left running. Before the first `want`."""
        for process in self._processes.adopt():
            record = process.record
            seat = self._seat(record.replica)
            seat.process, seat.caveat = process, ""
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
        return tuple(
            seat.report(self._versions.get(seat.machine.running.engine))
            if seat.machine.running is not None
            else seat.report(None)
            for seat in self._seats.values()
        )

    def counts(self) -> tuple[EngineCount, ...]:
        """What the engines counted when they were last asked, those that ended included."""
        told = (seat.told() for seat in self._seats.values())
        return tuple(count for count in told if count is not None)

    async def log_of(self, replica_id: str) -> bytes:
        """Answers a question of the kind engine_log. Raises UnknownReplica."""
        errands = self._known(replica_id).errands
        lines = await errands.begin(partial(self._processes.log_tail, replica_id))
        return msgspec.json.encode(dumps.harmless(lines))

    async def dump_of(self, replica_id: str) -> bytes:
        """Answers a question of the kind engine_dump: `null` where none was ever taken.

        Raises UnknownReplica.
        """
        errands = self._known(replica_id).errands
        dump = await errands.begin(partial(self._processes.last_dump, replica_id))
        return msgspec.json.encode(dump)

    def _known(self, replica_id: str) -> Seat:
        seat = self._seats.get(replica_id)
        if seat is None:  # and no path is ever made of an unknown name
            raise UnknownReplica(f"No replica {replica_id!r} runs on this node.")
        return seat

    async def run(self) -> None:
        """Let time pass for the machines, until cancelled."""
        looked_s, swept_s = 0.0, -_SWEEP_S
        while True:
            now_s = self._clock.monotonic_s()
            if now_s - swept_s >= _SWEEP_S:
                swept_s = now_s
                wall_s = self._clock.wall_ns() / 1e9
                self._errands.begin(partial(self._processes.sweep, set(self._seats), wall_s))
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

    async def release(self) -> None:
        """Let go of the engines without touching them: the next agent adopts them."""
        self._released = True
        seats = list(self._seats.values())
        for seat in seats:
            self._cancel(seat)
            if seat.process is not None:
                asyncio.get_running_loop().remove_reader(seat.process.pidfd)
        await asyncio.gather(*(seat.errands.settled() for seat in seats))

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
            seat.errands.close()
            if not self._seats:
                self._empty.set()
        self._wake.set()

    def _apply(self, seat: Seat, effect: Effect) -> None:
        match effect:
            case Report():
                self._changed()
            case Spawn(launch, replica):
                # Not of the seat's tasks: what it starts must be known, whatever happens meanwhile.
                self._tasks.create_task(self._spawn(seat, launch, replica))
            case Find(launch, replica):
                self._begin(seat, self._attendant.find(seat, launch, replica))
            case Drain(launch):
                self._begin(seat, self._attendant.drain(seat, launch))
            case Probe() | Watch() | Sleep():
                self._begin(seat, self._attend(seat, effect))
            case Dump(_, reason):
                self._dump(seat, reason)
            case Terminate():
                self._begin(seat, self._end(seat, kill=False))
            case Kill():
                self._begin(seat, self._end(seat, kill=True))

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

    async def _spawn(self, seat: Seat, launch: int, replica: DesiredReplica) -> None:
        sharing = self._wanted_count
        start = partial(self._workshop.start, replica, seat.machine.restarts, sharing)
        try:
            started = await seat.errands.begin(start)
        except OSError as error:
            reason = f"The engine cannot be started: {error.strerror}."
            self._feed(seat, Exited(launch, reason))
            return
        if isinstance(started, Hopeless):
            seat.fingerprint = started.fingerprint
            self._feed(seat, Exited(launch, started.problem, lasting=True))
            return
        if self._released:  # the next agent finds it
            return
        seat.process, seat.caveat = started, ""
        self._watch_exit(seat, started)
        self._feed(seat, Spawned(launch, started.pid, started.record.started_ns))
        if seat.machine.phase in {Phase.ENDING, Phase.KILLING}:  # it was told so meanwhile
            started.end(kill=seat.machine.phase is Phase.KILLING)
        else:
            self._begin(seat, self._attendant.find(seat, launch, replica))

    def _kind(self, replica: DesiredReplica) -> Kind:
        """Of a replica whose process runs: only known kinds are ever started."""
        return self._kinds[replica.engine]

    async def _end(self, seat: Seat, *, kill: bool) -> None:
        process = seat.process
        if process is None:
            return
        # While it is there; dumps that were asked for come before it.
        looked = seat.errands.begin(partial(self._processes.note_shared, process))
        await asyncio.wait([looked], timeout=_KILL_S)
        process.end(kill=kill)

    def _dump(self, seat: Seat, reason: str) -> None:
        """What is to be ended for `reason` is looked at while it is there."""
        if seat.process is not None:
            at_ns = self._clock.wall_ns()
            seat.errands.begin(partial(self._workshop.dump, seat.process, reason, at_ns))

    def _begin(self, seat: Seat, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._tasks.create_task(work)
        seat.tasks.add(task)
        task.add_done_callback(seat.tasks.discard)
        return task

    def _cancel(self, seat: Seat) -> None:
        for task in seat.tasks:
            task.cancel()

    def _watch_exit(self, seat: Seat, process: Process) -> None:
        asyncio.get_running_loop().add_reader(process.pidfd, self._on_exit, seat, process)

    def _on_exit(self, seat: Seat, process: Process) -> None:
        asyncio.get_running_loop().remove_reader(process.pidfd)
        self._cancel(seat)
        seat.process = None
        killed = host.oom_kills() > self._oom_kills[0]
        self._tasks.create_task(self._bury(seat, seat.machine.launch, process, killed=killed))

    async def _bury(self, seat: Seat, launch: int, process: Process, *, killed: bool) -> None:
        """`killed`: the kernel ended processes for want of memory just now."""
        replica = process.record.replica
        exit_code = process.exit_code()
        tidied = seat.errands.begin(partial(self._workshop.tidy_up, process))
        await asyncio.wait([tidied], timeout=_TIDY_S)
        # Whatever the disk says: the engine is gone, and its machine must hear of it.
        tail, fingerprint = tidied.result() if tidied.done() else ((), None)
        reason, lasting = self._kind(replica).end_reason(exit_code, tail)
        want = shortage(tail, killed=exit_code != 0 and killed)
        if want is not None:  # of memory, which may be free another time
            reason, lasting = want, False
        if lasting:
            seat.fingerprint = fingerprint
        outside = want is None and exit_code in _KILLED
        self._feed(seat, Exited(launch, reason, lasting=lasting, outside=outside))

    def _look(self) -> None:
        self._oom_kills = (self._oom_kills[1], host.oom_kills())
        for replica_id, seat in list(self._seats.items()):
            if seat.look is None or seat.look.done():
                seat.look = self._begin(seat, self._look_at(replica_id, seat))

    async def _look_at(self, replica_id: str, seat: Seat) -> None:
        replica = seat.machine.running
        failed = seat.machine.phase is Phase.FAILED
        fingerprint = await seat.errands.begin(
            partial(self._workshop.examine, replica_id, replica if failed else None)
        )
        if replica is None or not failed or seat.machine.phase is not Phase.FAILED:
            return
        if fingerprint != seat.fingerprint:
            seat.fingerprint = fingerprint
            self._feed(seat, CauseChanged())


async def _wait(event: asyncio.Event, longest_s: float) -> None:
    # Not `asyncio.wait_for`: before Python 3.12 it loses a cancellation that meets the event.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(longest_s):
            await event.wait()
