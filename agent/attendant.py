"""What takes time for an engine: finding it, asking it, watching it, emptying it, letting it sleep.

Each ends by telling the replica's machine one event; the end of the process cancels them.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import asdict, replace
from functools import partial
from typing import Final

import aiohttp

from agent import host
from agent.capacity import Capacity, Speed
from agent.engines.kind import Address, Kinds, Load
from agent.engines.probe import Engine
from agent.engines.readings import ready_address, ready_caveat
from agent.engines.variables import api_key_of, port_of
from agent.errors import EngineUnfit
from agent.events import (
    Event,
    GaveToken,
    Idle,
    Listening,
    Measured,
    Refreshed,
    Slept,
    Useless,
)
from agent.members import Members
from agent.phases import Phase
from agent.processes import LAUNCH_VARIABLE, Fitness, Process, Processes
from agent.progress import Progress, patience_s
from agent.seat import Seat
from appliance.domain.clock import Clock
from appliance.wire.agent import DesiredReplica
from appliance.wire.engine_arguments import LOOPBACK

log = logging.getLogger(__name__)

Feed = Callable[[Seat, Event], None]
# Bytes on GPUs of these processes; None: not known.
GpuMemory = Callable[[Collection[int]], int | None]

_NS: Final = 1e9
_FIND_S: Final = 0.05
_FIND_S_MAX: Final = 0.5
_WATCH_S: Final = 2.0
_DRAIN_POLL_S: Final = 0.15
_UNHEARD_MAX: Final = 5  # looks in a row without an answer, until nothing is served by it any more
_NAP_S: Final = 120.0  # for the requests of what is to sleep; what never is empty stays awake
_TOLD_S: Final = 1.0
_DISK_S: Final = 2.0  # that serving waits for what is written of it, or read


class Attendant:
    """Works for all seats. Its coroutines are run, and cancelled, by who calls them."""

    def __init__(
        self,
        *,
        processes: Processes,
        kinds: Kinds,
        session: aiohttp.ClientSession,
        clock: Clock,
        still_s: float,
        feed: Feed,
        told: Callable[[], Awaitable[None]],
        gpu_memory: GpuMemory,
    ) -> None:
        """`still_s`: see Times. `told` returns when the appliance knows what was reported."""
        self._processes = processes
        self._kinds = kinds
        self._session = session
        self._clock = clock
        self._still_s = still_s
        self._feed = feed
        self._told = told
        self._gpu_memory = gpu_memory

    def engine(self, replica: DesiredReplica, address: Address, api_key: str | None) -> Engine:
        """Of a replica whose process runs: only known kinds are ever started."""
        return Engine(self._session, self._kinds[replica.engine], replica, address, api_key)

    async def find(self, seat: Seat, launch: int, replica: DesiredReplica) -> None:
        """Wait until the engine takes requests; how long it may take is the machine's affair."""
        process = seat.process
        if process is None:
            return
        environ = await self._environ(process)
        api_key, port = api_key_of(environ), port_of(environ)
        if port is not None:
            address = Address(LOOPBACK, port)
        else:
            told = ready_address(await self._ready_line(seat, replica.replica_id))
            if told is None:
                self._feed(seat, Useless(launch, "The engine does not tell where it listens."))
                return
            address = told
        engine = self.engine(replica, address, api_key)
        for delay_s in _delays():
            if await engine.healthy():
                break
            # It may die before it is ever ready.
            await seat.errands.begin(partial(self._processes.note_shared, process))
            await asyncio.sleep(delay_s)
        self._feed(seat, Listening(launch, address.host, address.port, api_key))

    async def _environ(self, process: Process) -> dict[str, str]:
        """What it was started with. A process that is just executing its program shows nothing."""
        for delay_s in _delays():
            environ = host.process_environ(process.pid)
            if LAUNCH_VARIABLE in environ:
                return environ
            await asyncio.sleep(delay_s)
        raise AssertionError  # the delays never end

    async def _ready_line(self, seat: Seat, replica_id: str) -> bytes:
        for delay_s in _delays():
            line = await seat.errands.begin(partial(self._processes.ready_line, replica_id))
            if line is not None:
                return line
            await asyncio.sleep(delay_s)
        raise AssertionError  # the delays never end

    async def probe(self, seat: Seat, launch: int, engine: Engine) -> None:
        """Have it give a token, then see how fast it is."""
        process = seat.process
        if process is None:
            return
        try:
            tokens_per_byte = await engine.first_token()
            loaded_s = (self._clock.wall_ns() - process.record.started_ns) / _NS
            measured = await engine.warm_up(tokens_per_byte)
        except EngineUnfit as error:
            self._feed(seat, Useless(launch, error.message))
            return
        memory = self._gpu_memory(await asyncio.to_thread(process.family))
        await self._caveat(seat, process.record.replica.replica_id)
        measured = replace(measured, loaded_s=max(0.0, loaded_s), gpu_memory_bytes=memory)
        seat.errands.begin(partial(self._processes.note_shared, process))
        await self._remember(seat, process, measured)
        self._feed(seat, GaveToken(launch, measured))

    async def _remember(self, seat: Seat, process: Process, measured: Measured) -> None:
        report = seat.machine.report()
        if report.host is not None and report.port is not None:
            fitness = Fitness(host=report.host, port=report.port, **asdict(measured))
            noted = seat.errands.begin(partial(self._processes.note, process, fitness))
            await asyncio.wait([noted], timeout=_DISK_S)

    async def watch(self, seat: Seat, launch: int, replica: DesiredReplica, engine: Engine) -> None:
        """See that it gets on, and how fast, as long as it serves."""
        process, report = seat.process, seat.machine.report()
        if process is None:
            return
        speed = Speed(report.tokens_per_s, report.prefill_tokens_per_s)
        capacity = Capacity(report.slots or replica.parallel, speed)
        # An engine that was given GPUs and cannot use them works on the processor.
        on_processor = await self._caveat(seat, replica.replica_id)
        busy_s = patience_s(
            self._still_s,
            gpus=0 if on_processor else replica.settings.gpus,
            context_tokens=replica.context_tokens,
            prefill_tokens_per_s=speed.prefill_tokens_per_s,
        )
        progress = Progress(self._clock.monotonic_s(), self._still_s, busy_s)
        members = Members(process, self._kinds[replica.engine].members)
        first = True
        while seat.machine.phase is Phase.READY:
            await asyncio.sleep(_WATCH_S)
            load = await self._look(seat, engine)
            now_s = self._clock.monotonic_s()
            used, waited = await asyncio.to_thread(process.work)
            problem = await asyncio.to_thread(members.lost)
            problem = problem or progress.look(load, used, now_s, waited)
            if problem is not None:
                self._feed(seat, Useless(launch, problem))
                return
            await self._refresh(seat, launch, process, capacity.look(load, now_s))
            if load is not None and self._kinds[replica.engine].sleep_path is not None:
                self._feed(seat, Slept(launch, load.asleep))
                running = seat.machine.running or replica  # it may be told otherwise by now
                if first and load.asleep != running.asleep:  # left so by an earlier agent
                    await self.sleep(seat, launch, replica, engine, asleep=running.asleep)
            first = first and load is None

    async def _caveat(self, seat: Seat, replica_id: str) -> str:
        """What is to be known of one that serves. A disk that hangs keeps nobody from watching."""
        asked = seat.errands.begin(partial(self._processes.ready_line, replica_id))
        await asyncio.wait([asked], timeout=_DISK_S)
        if asked.done():
            seat.caveat = ready_caveat(asked.result() or b"")
        return seat.caveat

    async def _refresh(self, seat: Seat, launch: int, process: Process, seen: Speed | None) -> None:
        """Tell what is known better now; the GPUs may not have been read when it became ready."""
        report, replica = seat.machine.report(), process.record.replica
        memory = None
        if replica.settings.gpus > 0 and report.gpu_memory_bytes is None:
            memory = self._gpu_memory(await asyncio.to_thread(process.family))
        if seen is None and memory is None:
            return
        speed = seen or Speed(report.tokens_per_s, report.prefill_tokens_per_s)
        self._feed(seat, Refreshed(launch, speed.tokens_per_s, speed.prefill_tokens_per_s, memory))

    async def _look(self, seat: Seat, engine: Engine) -> Load | None:
        try:
            load = await engine.load()
        except EngineUnfit:
            return None
        seat.note(load, self._clock.monotonic_s())
        return load

    async def sleep(
        self, seat: Seat, launch: int, replica: DesiredReplica, engine: Engine, *, asleep: bool
    ) -> None:
        """Let it sleep once nothing runs, or wake it. What cannot sleep stays awake.

        One at a time: a waking that comes while it falls asleep waits for that, and then wakes it.
        """
        if self._kinds[replica.engine].sleep_path is None:
            return
        try:
            if asleep:
                async with asyncio.timeout(_NAP_S):
                    await self._quiet(seat, engine)
            async with seat.switching:
                wanted = seat.machine.running
                if wanted is not None and wanted.asleep != asleep:
                    return  # it was told otherwise meanwhile
                if not asleep:
                    await engine.wake()
                elif not seat.machine.report().asleep:
                    await engine.sleep()
                self._feed(seat, Slept(launch, asleep))
        except TimeoutError:
            why = f"It had requests for {_NAP_S:g} s."
            log.warning("engine stays awake", extra={"launch": launch, "why": why})
        except EngineUnfit as error:
            if asleep:
                log.warning("engine stays awake", extra={"launch": launch, "why": error.message})
            else:
                self._feed(seat, Useless(launch, f"It does not wake up. {error.message}"))

    async def drain(self, seat: Seat, launch: int) -> None:
        """Wait until the appliance knows, then until nothing runs: twice, for what was underway."""
        try:
            async with asyncio.timeout(_TOLD_S):
                await self._told()
        except TimeoutError:
            log.info("draining without the appliance", extra={"launch": launch})
        report, replica = seat.machine.report(), seat.machine.running
        if report.host is None or report.port is None or replica is None:
            return
        engine = self.engine(replica, Address(report.host, report.port), report.api_key)
        try:
            await self._quiet(seat, engine)
        except EngineUnfit as error:  # nothing can be served by it any more
            log.info("draining engine does not answer", extra={"why": error.message})
        self._feed(seat, Idle(launch))

    async def _quiet(self, seat: Seat, engine: Engine) -> None:
        """Returns when two looks in a row saw no request. Raises EngineUnfit: it says nothing.

        One look without an answer is no sign of that: an engine at work on a busy node is late.
        The caller bounds the whole.
        """
        quiet = unheard = 0
        while quiet < 2:
            await asyncio.sleep(_DRAIN_POLL_S)
            try:
                load = await engine.load()
            except EngineUnfit:
                quiet, unheard = 0, unheard + 1
                if unheard >= _UNHEARD_MAX:
                    raise
                continue
            seat.note(load, self._clock.monotonic_s())
            unheard = 0
            quiet = quiet + 1 if load.requests == 0 else 0


def _delays() -> Iterator[float]:
    """Between two looks at an engine that starts: short at first, most are up soon or late."""
    delay_s = _FIND_S
    while True:
        yield delay_s
        delay_s = min(delay_s * 1.2, _FIND_S_MAX)
