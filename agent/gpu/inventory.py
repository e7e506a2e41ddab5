"""Which GPUs there are, which there were, and what was read of them last. No clock, no driver here.

A GPU that was here once is remembered until it is forgotten on purpose: one that fell off the bus
is missing, not absent. What must survive an agent's restart is `Remembered`.
"""

from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

from agent.gpu.messages import (
    DriverFailed,
    DriverRead,
    DriverTrouble,
    GpuFailed,
    GpuRead,
    GpuTrouble,
    Line,
    XidSeen,
)
from appliance.wire.gpu import Driver, Gpu

# Without a word of a GPU for so long, the driver hangs. The greeting may take longer.
HUNG_S: Final = 5.0
GREETING_S: Final = 8.0
_XIDS_MAX: Final = 16  # kinds remembered for one GPU

Trouble = DriverTrouble | GpuTrouble | Literal["NVML_HUNG", "NVML_CRASHED", "DRIVER_UNUSED"]


class KnownGpu(msgspec.Struct, frozen=True, kw_only=True):
    """`links_up`: NVLinks that were up when they were looked at; only those can go down."""

    index: int
    uuid: str
    name: str
    bus_id: str
    links_up: tuple[int, ...] = ()


class KnownXid(msgspec.Struct, frozen=True, kw_only=True):
    uuid: str
    xid: int
    first_ns: int  # wall clock
    last_ns: int
    count: int = 1


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """What outlives the agent. Xids are of one boot of the machine."""

    boot_id: str
    gpus: tuple[KnownGpu, ...] = ()
    xids: tuple[KnownXid, ...] = ()


@dataclass(frozen=True, slots=True)
class Ill:
    trouble: Trouble
    detail: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """Everything known at one moment. `ill` has the GPUs that nothing can be read of."""

    settled: bool  # every GPU has spoken or had its time: before that nothing is judged
    driver: Driver
    driver_ill: Ill | None
    gpus: tuple[Gpu, ...]
    ill: dict[str, Ill]
    links_up: dict[str, frozenset[int]]
    xids: tuple[KnownXid, ...]


@dataclass(slots=True)
class _Heard:
    """The last of one index. `gpu` None: it could not be read."""

    uuid: str | None
    heard_s: float
    gpu: Gpu | None = None
    ill: Ill | None = None


@dataclass(slots=True)
class _State:
    driver: Driver = field(default_factory=Driver)
    ill: Ill | None = None
    began_s: float | None = None
    answered_s: float | None = None  # the driver itself, last
    count: int | None = None
    absent: bool = False  # neither driver nor GPUs, and that is well


class Inventory:
    """Takes what the reader says; `view` tells what that means."""

    __slots__ = ("_hardware", "_heard", "_known", "_state", "_xids", "boot_id")

    def __init__(
        self, boot_id: str, remembered: Remembered | None, *, hardware: bool = True
    ) -> None:
        """`hardware`: an NVIDIA GPU is on this machine's bus, whatever its driver says."""
        self._hardware = hardware
        self.boot_id = boot_id
        self._known = {gpu.uuid: gpu for gpu in remembered.gpus} if remembered else {}
        same_boot = remembered is not None and remembered.boot_id == boot_id
        self._xids = (
            {(x.uuid, x.xid): x for x in remembered.xids} if remembered and same_boot else {}
        )
        self._heard: dict[int, _Heard] = {}
        self._state = _State()

    def remembered(self) -> Remembered:
        return Remembered(
            boot_id=self.boot_id,
            gpus=tuple(sorted(self._known.values(), key=lambda gpu: (gpu.index, gpu.uuid))),
            xids=tuple(self._xids.values()),
        )

    def began(self, now_s: float) -> None:
        """A reader was started."""
        if self._state.began_s is None:
            self._state.began_s = now_s

    def crashed(self, detail: str) -> None:
        """The reader ended without a reason of its own."""
        self._state.ill = Ill("NVML_CRASHED", detail)

    def take(self, line: Line, now_s: float) -> None:
        match line:
            case DriverRead():
                self._state.driver, self._state.count = line.driver, line.count
                self._state.answered_s, self._state.ill = now_s, None
                self._state.absent = False
                for index in [i for i in self._heard if i >= line.count]:
                    del self._heard[index]
            case DriverFailed():
                self._take_failure(line, now_s)
            case GpuRead():
                self._take_gpu(line.gpu, now_s)
            case GpuFailed():
                before = self._heard.get(line.index)
                uuid = line.uuid or (before.uuid if before else None)
                self._heard[line.index] = _Heard(uuid, now_s, ill=Ill(line.trouble, line.detail))
            case XidSeen():
                self._take_xid(line)

    def _take_failure(self, line: DriverFailed, now_s: float) -> None:
        self._state.answered_s, self._state.count = now_s, None
        self._heard.clear()
        ill: Ill | None = Ill(line.trouble, line.detail)
        if not self._known and not self._hardware:  # a machine that runs engines on its processor
            if line.trouble == "NO_DRIVER":
                ill = None
            elif line.trouble == "DRIVER_NOT_LOADED":
                ill = Ill("DRIVER_UNUSED", line.detail)
        self._state.ill, self._state.absent = ill, ill is None

    def _take_gpu(self, gpu: Gpu, now_s: float) -> None:
        self._heard[gpu.index] = _Heard(gpu.uuid, now_s, gpu)
        before = self._known.get(gpu.uuid)
        up = {link.link for link in gpu.links if link.up}
        self._known[gpu.uuid] = KnownGpu(
            index=gpu.index,
            uuid=gpu.uuid,
            name=gpu.name,
            bus_id=gpu.bus_id,
            links_up=tuple(sorted(up.union(before.links_up if before else ()))),
        )

    def _take_xid(self, seen: XidSeen) -> None:
        before = self._xids.pop((seen.uuid, seen.xid), None)
        same = [key for key in self._xids if key[0] == seen.uuid]
        for key in same[: max(0, len(same) - _XIDS_MAX + 1)]:
            del self._xids[key]
        self._xids[seen.uuid, seen.xid] = KnownXid(
            uuid=seen.uuid,
            xid=seen.xid,
            first_ns=before.first_ns if before else seen.at_ns,
            last_ns=seen.at_ns,
            count=before.count + 1 if before else 1,
        )

    def view(self, now_s: float) -> View:
        gpus: dict[str, Gpu] = {}
        ill: dict[str, Ill] = {}
        driver_ill = self._driver_ill(now_s)
        unnamed = {i: h for i, h in self._heard.items() if h.uuid is None}
        for heard in self._heard.values():
            if heard.gpu is not None and driver_ill is None and now_s - heard.heard_s <= HUNG_S:
                gpus[heard.gpu.uuid] = heard.gpu
        for known in self._known.values():
            if known.uuid in gpus:
                continue
            trouble = driver_ill or self._missing_why(known, unnamed, now_s)
            if trouble is not None:
                ill[known.uuid] = trouble
            unnamed.pop(known.index, None)
            gpus[known.uuid] = Gpu(
                index=known.index, uuid=known.uuid, name=known.name, bus_id=known.bus_id
            )
        for index, heard in unnamed.items():
            uuid = f"unknown-{index}"
            gpus[uuid] = Gpu(index=index, uuid=uuid, name="unknown", bus_id="")
            ill[uuid] = heard.ill or Ill("NVML_HUNG")
        return View(
            settled=self._settled(now_s),
            driver=self._state.driver,
            driver_ill=driver_ill,
            gpus=tuple(
                _with_xids(gpu, self._xids)
                for gpu in sorted(gpus.values(), key=lambda gpu: (gpu.index, gpu.uuid))
            ),
            ill=ill,
            links_up={gpu.uuid: frozenset(gpu.links_up) for gpu in self._known.values()},
            xids=tuple(self._xids.values()),
        )

    def _driver_ill(self, now_s: float) -> Ill | None:
        state = self._state
        if state.ill is not None:
            return state.ill
        if state.began_s is None or state.absent:
            return None
        if state.answered_s is None:
            return Ill("NVML_HUNG") if now_s - state.began_s > GREETING_S else None
        return Ill("NVML_HUNG") if now_s - state.answered_s > GREETING_S else None

    def _missing_why(self, known: KnownGpu, unnamed: dict[int, _Heard], now_s: float) -> Ill | None:
        """Why a GPU that was here cannot be read; None: it has still time to say."""
        own = next((h for h in self._heard.values() if h.uuid == known.uuid), None)
        heard = own or unnamed.get(known.index)
        if heard is not None:
            if heard.ill is not None:
                return heard.ill
            return Ill("NVML_HUNG") if now_s - heard.heard_s > HUNG_S else None
        if self._state.count is None:
            return None
        silent = [i for i in range(self._state.count) if i not in self._heard]
        if known.index in silent or (silent and not self._settled(now_s)):
            began_s = self._state.began_s or now_s
            return Ill("NVML_HUNG") if now_s - began_s > GREETING_S else None
        return Ill("GPU_MISSING")

    def _settled(self, now_s: float) -> bool:
        state = self._state
        if state.ill is not None or state.absent:
            return True
        if state.began_s is None:
            return False
        whole = state.count is not None and all(i in self._heard for i in range(state.count))
        return whole or now_s - state.began_s > GREETING_S


def _with_xids(gpu: Gpu, xids: dict[tuple[str, int], KnownXid]) -> Gpu:
    """The GPU with the numbers seen of it, newest last."""
    seen = sorted((x.last_ns, x.xid) for x in xids.values() if x.uuid == gpu.uuid)
    return msgspec.structs.replace(gpu, xids=tuple(xid for _at, xid in seen)) if seen else gpu
