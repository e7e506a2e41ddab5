"""What the agent knows of its GPUs at any moment: figures, faults, health. Answers at once."""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from agent import host
from agent.durable import kept_message, read_message
from agent.errands import Errands
from agent.gpu.faults import FAULTS, Condition, FaultTracker, conditions
from agent.gpu.health import (
    Steady,
    engines,
    floor_of,
    judge_gpus,
    node_health,
    warmest,
)
from agent.gpu.history import History
from agent.gpu.inventory import Inventory, Remembered, View
from agent.gpu.messages import GpuRead, Line
from agent.gpu.sampler import READER, Sampler
from agent.host_faults import HOST_FAULTS
from agent.host_watch import HostWatch
from appliance.domain.clock import Clock
from appliance.wire.agent import ReplicaReport
from appliance.wire.gpu import Driver, Gpu, GpuHistory, GpuProcess, NodeHealth

log = logging.getLogger(__name__)

STATE_FILE: Final = "gpus.json"
HISTORY_FILE: Final = "gpu-history.json"
_EVERY_S: Final = 1.0
_WRITE_RETRY_S: Final = 30.0
_HISTORY_EVERY_S: Final = 300.0  # it is written; a power cut costs no more than that
_PCI: Final = Path("/sys/bus/pci/devices")
_NVIDIA: Final = "0x10de"
_DISPLAY_CLASSES: Final = ("0x0300", "0x0302")  # VGA and 3D controllers (pci.ids)


class GpuWatch:
    """`run` reads until it is cancelled. Everything else answers from memory."""

    def __init__(
        self, state: Path, boot_id: str, clock: Clock, command: Sequence[str] = READER
    ) -> None:
        """`state` is the agent's folder."""
        self.reports: Callable[[], Sequence[ReplicaReport]] = tuple  # the node's engines
        self.changed: Callable[[], None] = _nobody  # is told when a fault came or went
        self.host: HostWatch | None = None  # the machine beside its GPUs
        self._path = state / STATE_FILE
        self._clock = clock
        self._inventory = Inventory(
            boot_id, read_message(self._path, Remembered), hardware=nvidia_hardware()
        )
        self._written = self._inventory.remembered()
        self._errands = Errands("gpus")
        self._write_again_s = 0.0  # where the disk took nothing, or has not answered
        self._history_path = state / HISTORY_FILE
        self._history = History(read_message(self._history_path, GpuHistory))
        self._history_due_s = clock.monotonic_s() + _HISTORY_EVERY_S
        self._tracker = FaultTracker(clock.monotonic_s())
        self._engine, self._warmth = Steady(), Steady()
        self._settled = asyncio.Event()
        self._fault_keys: set[tuple[str, str | None]] = set()
        self._sampler = Sampler(
            clock=clock,
            began=lambda: self._inventory.began(clock.monotonic_s()),
            hear=self._hear,
            crashed=self._inventory.crashed,
            stuck=self._stuck,
            command=command,
        )
        self.gpus: tuple[Gpu, ...] = ()
        self.driver = Driver()
        self.health: NodeHealth | None = None  # None: nothing is known yet

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._sampler.run())
            tasks.create_task(self._judge_for_ever())
            tasks.create_task(self._write_at_the_end())

    async def settled(self) -> None:
        """Returns when the GPUs have been seen, or had their time."""
        await self._settled.wait()

    def names(self) -> tuple[str, ...]:
        """In NVML's order; those that are missing too."""
        return tuple(gpu.name for gpu in self.gpus)

    async def history(self, uuid: str) -> bytes:
        """Answers a question of the kind gpu_history; "" is every GPU."""
        return msgspec.json.encode(self._history.tell(uuid))

    def memory_of(self, pids: Collection[int]) -> int | None:
        """Bytes that these processes hold on all GPUs; None: no GPU told of any of them."""
        held = [
            process.memory_bytes
            for gpu in self.gpus
            for process in gpu.processes
            if process.pid in pids and process.memory_bytes is not None
        ]
        return sum(held) if held else None

    def _hear(self, line: Line) -> None:
        self._inventory.take(line, self._clock.monotonic_s())
        if not isinstance(line, GpuRead):
            self.judge()

    def _stuck(self) -> bool:
        view = self._inventory.view(self._clock.monotonic_s())
        ills = [*view.ill.values(), *([view.driver_ill] if view.driver_ill else [])]
        return any(ill.trouble == "NVML_HUNG" for ill in ills)

    async def _judge_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            self.judge()
            self._history.add(self.gpus, self._clock.wall_ns())
            self._remember()
            if self._clock.monotonic_s() >= self._history_due_s:
                self._history_due_s += _HISTORY_EVERY_S
                self._errands.begin(self._write_history)

    async def _write_at_the_end(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self._errands.begin(self._write_history)
            await self._errands.settled()

    def _write_history(self) -> None:
        kept = self._history.tell()
        if kept.gpus:
            kept_message(self._history_path, kept)

    def judge(self) -> None:
        """Bring figures, faults and health up to date."""
        now_s, now_ns = self._clock.monotonic_s(), self._clock.wall_ns()
        view = self._inventory.view(now_s)
        if not view.settled:
            return
        ours = () if self.host is None else self.host.conditions()
        faults = self._tracker.update([*conditions(view, now_ns), *ours], now_s, now_ns)
        if self.host is not None:
            self.host.raised(frozenset(fault.code for fault in faults))
        scores = judge_gpus(view.gpus, [f for f in faults if f.code not in HOST_FAULTS])
        reports = self.reports()
        engine = self._engine.hold(engines(reports), now_s)
        warm = self._warmth.hold(warmest(view.gpus), now_s)
        self.health = node_health(faults, engine, warm, floor=floor_of(scores))
        self.gpus = tuple(
            msgspec.structs.replace(
                gpu,
                score=scores[gpu.uuid][0],
                state=scores[gpu.uuid][1],
                processes=_attributed(gpu.processes, reports),
            )
            for gpu in view.gpus
        )
        self.driver = _driver(view)
        self._settled.set()
        self._tell(faults)

    def _tell(self, faults: Sequence[Condition]) -> None:
        """Log what came and what went, and have it reported at once."""
        now = {fault.key: fault for fault in faults}
        for key in now.keys() - self._fault_keys:
            log.warning(
                "fault raised", extra={"code": key[0], "gpu": key[1], "why": now[key].message}
            )
        for code, uuid in self._fault_keys - now.keys():
            log.info("fault cleared", extra={"code": code, "gpu": uuid})
        if now.keys() != self._fault_keys:
            self._fault_keys = set(now)
            self.changed()

    def _remember(self) -> None:
        remembered = self._inventory.remembered()
        if remembered != self._written:
            now_s = self._clock.monotonic_s()
            if now_s < self._write_again_s:
                return
            self._write_again_s = now_s + _WRITE_RETRY_S
            writing = self._errands.begin(partial(kept_message, self._path, remembered))

            def written(done: "asyncio.Future[bool]") -> None:
                if not done.cancelled() and done.result():
                    self._written, self._write_again_s = remembered, 0.0

            writing.add_done_callback(written)


def _nobody() -> None:
    """Nobody listens yet."""


def nvidia_hardware() -> bool:
    """Whether the PCI bus has a GPU of NVIDIA's, with or without a driver."""
    try:
        devices = list(_PCI.iterdir())
    except OSError:
        return False
    return any(_is_gpu(device) for device in devices)


def _is_gpu(device: Path) -> bool:
    try:
        vendor = (device / "vendor").read_text().strip()
        kind = (device / "class").read_text().strip()
    except OSError:
        return False
    return vendor == _NVIDIA and kind.startswith(_DISPLAY_CLASSES)


def _driver(view: View) -> Driver:
    if view.driver_ill is None:
        return view.driver
    kind = FAULTS[view.driver_ill.trouble]
    problem = f"{kind.message}. {kind.next_step}"
    return msgspec.structs.replace(view.driver, problem=problem)


def _attributed(
    processes: Sequence[GpuProcess], reports: Sequence[ReplicaReport]
) -> tuple[GpuProcess, ...]:
    """With names, and whose engine's they are: an engine leads a group of its own."""
    leaders = {report.pid: report.replica_id for report in reports if report.pid is not None}
    told: list[GpuProcess] = []
    for process in processes:
        stat = host.process_stat(process.pid)
        told.append(
            msgspec.structs.replace(
                process,
                name=host.process_name(process.pid),
                replica_id=None if stat is None else leaders.get(stat.group),
            )
        )
    return tuple(told)
