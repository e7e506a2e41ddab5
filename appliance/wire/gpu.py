"""GPUs and the health of a node, as its agent measures them. None: the driver does not tell."""

from typing import Annotated, Literal

import msgspec

from appliance.wire.figures import Finite, Int64

Score = Annotated[int, msgspec.Meta(ge=0, le=100)]

# gone: it was there and has fallen off the bus, or is not enumerated any more
GpuState = Literal["ok", "degraded", "failed", "gone"]
HealthState = Literal["ok", "degraded", "failed"]


class GpuProcess(msgspec.Struct, frozen=True, kw_only=True):
    """A process that holds memory of a GPU."""

    pid: Int64
    memory_bytes: Int64 | None
    name: str = ""
    replica_id: str | None = None  # one of our engines


class GpuLink(msgspec.Struct, frozen=True, kw_only=True):
    """One NVLink of a GPU."""

    link: Int64
    up: bool
    peer_uuid: str | None = None


class GpuSlice(msgspec.Struct, frozen=True, kw_only=True):
    """A MIG device: a part of a GPU that is used like one."""

    uuid: str
    profile: str  # "1g.10gb"
    memory_total_bytes: Int64 | None
    memory_used_bytes: Int64 | None


class GpuFault(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is wrong. `code` is stable: XID_79, GPU_LOST, ECC_UNCORRECTED, NVML_HUNG …"""

    code: str
    severity: Literal["warning", "error", "fatal"]
    message: str
    next_step: str
    since_ns: Int64  # wall clock
    gpu_uuid: str | None = None  # None: the node's


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU. Bytes, °C, W, MHz, percent 0–100, mJ since the driver was loaded."""

    index: Int64
    uuid: str
    name: str
    bus_id: str  # PCI, "00000000:01:00.0"
    state: GpuState = "ok"
    memory_total_bytes: Int64 | None = None
    memory_used_bytes: Int64 | None = None  # by programs; what the driver keeps is apart
    memory_reserved_bytes: Int64 | None = None  # by the driver
    utilisation: Int64 | None = None
    memory_utilisation: Int64 | None = None
    temperature: Int64 | None = None
    temperature_slowdown: Int64 | None = None
    power: Finite | None = None
    power_limit: Finite | None = None
    sm_clock: Int64 | None = None
    sm_clock_max: Int64 | None = None
    memory_clock: Int64 | None = None
    throttle_reasons: tuple[str, ...] = ()
    fan: Int64 | None = None
    ecc_enabled: bool | None = None
    ecc_corrected: Int64 | None = None  # volatile: since the driver was loaded
    ecc_uncorrected: Int64 | None = None
    remapped_rows: Int64 | None = None
    remap_pending: bool | None = None
    remap_failed: bool | None = None
    links: tuple[GpuLink, ...] = ()
    slices: tuple[GpuSlice, ...] = ()
    mig: bool | None = None
    processes: tuple[GpuProcess, ...] = ()
    energy: Int64 | None = None
    compute_capability: str | None = None  # "9.0"
    xids: tuple[Int64, ...] = ()  # seen by this agent, newest last
    score: Score = 100


class NodeGpu(Gpu, frozen=True, kw_only=True):
    """A GPU, and which node it is in. `stale`: the node is silent; this is what it told last."""

    node: str
    node_id: str
    stale: bool = False


class Driver(msgspec.Struct, frozen=True, kw_only=True):
    """The GPU driver of a node. `problem` "": it answers, or there are no GPUs."""

    version: str | None = None
    cuda: str | None = None  # "12.8", the newest the driver serves
    nvml: str | None = None
    problem: str = ""  # none, mismatch, hung: in words, with what to do


class HealthPart(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a node's health: engine, temperature, memory, processor, network, faults."""

    name: str
    score: Score
    reason: str = ""  # what lowers it, with what to do


class NodeHealth(msgspec.Struct, frozen=True, kw_only=True):
    """`score` is the lowest of the parts, held back by hysteresis when it rises."""

    score: Score
    state: HealthState
    parts: tuple[HealthPart, ...]
    faults: tuple[GpuFault, ...] = ()


class GpuPoint(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One span of a GPU's past: means, the hottest moment, the lowest score. An array in JSON."""

    at_s: Int64  # wall clock, the beginning of the span
    utilisation: Int64 | None
    memory_used_bytes: Int64 | None
    temperature: Int64 | None
    power: Int64 | None
    sm_clock: Int64 | None
    score: Int64


class GpuRing(msgspec.Struct, frozen=True, kw_only=True):
    """Points of `step_s` seconds each, oldest first. A span without any sample is left out."""

    step_s: Int64
    points: tuple[GpuPoint, ...]


class GpuSeries(msgspec.Struct, frozen=True, kw_only=True):
    uuid: str
    rings: tuple[GpuRing, ...]  # finest first


class GpuHistory(msgspec.Struct, frozen=True, kw_only=True):
    """What a node remembers of its GPUs: answers a question of the kind gpu_history."""

    gpus: tuple[GpuSeries, ...] = ()
