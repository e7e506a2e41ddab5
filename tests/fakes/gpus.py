"""GPUs as messages, for what judges them without any driver."""

from typing import Any

from agent.gpu.messages import DriverRead, GpuRead
from appliance.wire.gpu import Driver, Gpu, GpuLink

DRIVER = Driver(version="580.95.05", cuda="13.0", nvml="13.580.95.05")


def gpu(index: int = 0, **figures: Any) -> Gpu:
    """A GPU in good health."""
    usual: dict[str, Any] = {
        "memory_total_bytes": 80 * 1024**3,
        "memory_used_bytes": 0,
        "temperature": 40,
        "temperature_slowdown": 87,
        "ecc_uncorrected": 0,
        "remap_pending": False,
        "remap_failed": False,
        "links": tuple(GpuLink(link=link, up=True) for link in range(4)),
    }
    return Gpu(
        index=index,
        uuid=f"GPU-{index}",
        name="H100",
        bus_id=f"00000000:{index + 1:02}:00.0",
        **{**usual, **figures},
    )


def driver_read(count: int) -> DriverRead:
    return DriverRead(driver=DRIVER, count=count)


def gpu_read(index: int = 0, **figures: Any) -> GpuRead:
    return GpuRead(gpu=gpu(index, **figures))
