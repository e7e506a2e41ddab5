"""What the reading process tells the agent: one JSON object a line."""

from typing import Final, Literal

import msgspec

from appliance.wire.gpu import Driver, Gpu

# Why nothing, or nothing of one GPU, can be read. Each is a code of `agent.gpu.faults`, too.
DriverTrouble = Literal["NO_DRIVER", "DRIVER_NOT_LOADED", "DRIVER_MISMATCH", "NVML_ERROR"]
GpuTrouble = Literal["GPU_LOST", "GPU_MISSING", "GPU_RESET_REQUIRED", "GPU_ERROR"]


class DriverRead(msgspec.Struct, frozen=True, kw_only=True, tag="driver"):
    """The library answers. Comes first, and again whenever it was asked how many GPUs there are."""

    driver: Driver
    count: int


class DriverFailed(msgspec.Struct, frozen=True, kw_only=True, tag="driver_failed"):
    """The library does not work; the process ends after this."""

    trouble: DriverTrouble
    detail: str


class GpuRead(msgspec.Struct, frozen=True, kw_only=True, tag="gpu"):
    gpu: Gpu


class GpuFailed(msgspec.Struct, frozen=True, kw_only=True, tag="gpu_failed"):
    """`uuid` None: it failed before it said its name."""

    index: int
    uuid: str | None
    trouble: GpuTrouble
    detail: str


class XidSeen(msgspec.Struct, frozen=True, kw_only=True, tag="xid"):
    """The driver reported an error of a GPU. The numbers are NVIDIA's."""

    uuid: str
    xid: int
    at_ns: int  # wall clock


Line = DriverRead | DriverFailed | GpuRead | GpuFailed | XidSeen

encode: Final = msgspec.json.Encoder().encode
decode: Final = msgspec.json.Decoder(Line).decode
