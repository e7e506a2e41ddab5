"""One look at the GPUs through NVIDIA's own library. Every call may block for ever.

A figure that the driver does not tell (not supported, not permitted, an older library) is None; it
is never guessed. An error that concerns the whole GPU raises `GpuUnreadable`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import pynvml

from agent.gpu.messages import DriverTrouble, GpuTrouble
from appliance.wire.gpu import Driver, Gpu, GpuLink, GpuProcess, GpuSlice

T = TypeVar("T")

_PROCESSES_MAX: Final = 64
# The words of nvml.h's nvmlClocksEventReason*, in its order of bits.
THROTTLE_REASONS: Final = (
    (0x001, "gpu_idle"),
    (0x002, "applications_clocks_setting"),
    (0x004, "sw_power_cap"),
    (0x008, "hw_slowdown"),
    (0x010, "sync_boost"),
    (0x020, "sw_thermal_slowdown"),
    (0x040, "hw_thermal_slowdown"),
    (0x080, "hw_power_brake_slowdown"),
    (0x100, "display_clock_setting"),
)
# What NVML answers where a figure does not exist on this GPU, driver or account.
_NOT_TOLD: Final = frozenset(
    {
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_NO_PERMISSION,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
    }
)
_GPU_TROUBLES: Final[dict[int, GpuTrouble]] = {
    pynvml.NVML_ERROR_GPU_IS_LOST: "GPU_LOST",
    pynvml.NVML_ERROR_GPU_NOT_FOUND: "GPU_MISSING",
    pynvml.NVML_ERROR_NOT_FOUND: "GPU_MISSING",
    pynvml.NVML_ERROR_INVALID_ARGUMENT: "GPU_MISSING",  # its index, or its handle, is no more
    pynvml.NVML_ERROR_RESET_REQUIRED: "GPU_RESET_REQUIRED",
}
_DRIVER_TROUBLES: Final[dict[int, DriverTrouble]] = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "NO_DRIVER",
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "DRIVER_NOT_LOADED",
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "DRIVER_MISMATCH",
}


class GpuUnreadable(Exception):
    """Nothing can be read of this GPU."""

    def __init__(self, trouble: GpuTrouble, detail: str) -> None:
        super().__init__(detail)
        self.trouble: GpuTrouble = trouble


class DriverUnreadable(Exception):
    """Nothing can be read of any GPU."""

    def __init__(self, trouble: DriverTrouble, detail: str) -> None:
        super().__init__(detail)
        self.trouble: DriverTrouble = trouble


def driver_trouble(error: pynvml.NVMLError) -> DriverUnreadable:
    """What an error means that no single GPU is to blame for."""
    return DriverUnreadable(_DRIVER_TROUBLES.get(error.value, "NVML_ERROR"), str(error))


def open_library() -> None:
    """Load the library and greet the driver. Raises DriverUnreadable."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise driver_trouble(error) from error


def greet_again() -> None:
    """Whether a program that starts now would be let in. Raises DriverUnreadable."""
    open_library()
    pynvml.nvmlShutdown()  # counted: the library stays open


def library_file() -> tuple[Path, int] | None:
    """Where the loaded library lies, and its inode; None: not in a file that is there.

    The inode is asked for by name: where file systems are stacked, the kernel's own list of what
    is loaded has that of a layer beneath.
    """
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and "/libnvidia-ml.so" in fields[5]:
            path = Path(fields[5])
            return (path, path.stat().st_ino) if path.exists() else None
    return None


def replaced(library: tuple[Path, int] | None) -> bool:
    """Whether an upgrade of the driver has put another file in the place of the loaded one."""
    if library is None:
        return False
    path, inode = library
    try:
        return path.stat().st_ino != inode
    except OSError:
        return True


def read_driver() -> tuple[Driver, int]:
    """The versions, and how many GPUs there are. Raises DriverUnreadable."""
    try:
        count = int(pynvml.nvmlDeviceGetCount())
        cuda = _told(pynvml.nvmlSystemGetCudaDriverVersion)
        version = _told(pynvml.nvmlSystemGetDriverVersion)
        nvml = _told(pynvml.nvmlSystemGetNVMLVersion)
    except pynvml.NVMLError as error:
        raise driver_trouble(error) from error
    # 12080 is CUDA 12.8 (nvml.h, NVML_CUDA_DRIVER_VERSION_MAJOR).
    words = None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}"
    return Driver(version=version, cuda=words, nvml=nvml), count


def find_gpu(index: int) -> Any:
    """NVML's handle of the GPU of that index. Raises GpuUnreadable, DriverUnreadable."""
    try:
        return pynvml.nvmlDeviceGetHandleByIndex(index)
    except pynvml.NVMLError as error:
        raise _trouble(error) from error


def read_uuid(handle: Any) -> str:
    """Raises GpuUnreadable, DriverUnreadable."""
    try:
        return str(pynvml.nvmlDeviceGetUUID(handle))
    except pynvml.NVMLError as error:
        raise _trouble(error) from error


def read_gpu(index: int, handle: Any) -> Gpu:
    """Every figure of one GPU. Raises GpuUnreadable, DriverUnreadable."""
    uuid = read_uuid(handle)  # first of all: a handle of a GPU that is gone fails here
    try:
        return _read(index, uuid, handle)
    except pynvml.NVMLError as error:
        raise _trouble(error) from error


def _trouble(error: pynvml.NVMLError) -> GpuUnreadable | DriverUnreadable:
    if error.value in {pynvml.NVML_ERROR_UNINITIALIZED, *_DRIVER_TROUBLES}:
        return driver_trouble(error)
    return GpuUnreadable(_GPU_TROUBLES.get(error.value, "GPU_ERROR"), str(error))


def _told(call: Callable[..., T], *arguments: Any) -> T | None:
    """What the driver tells, or None where it does not tell. Raises NVMLError for real errors."""
    try:
        return call(*arguments)
    except pynvml.NVMLError as error:
        if error.value in _NOT_TOLD:
            return None
        raise


def _read(index: int, uuid: str, handle: Any) -> Gpu:
    name = str(pynvml.nvmlDeviceGetName(handle))
    memory_total, memory_used, memory_reserved = _memory(handle)
    utilisation = _told(pynvml.nvmlDeviceGetUtilizationRates, handle)
    power = _told(pynvml.nvmlDeviceGetPowerUsage, handle)
    power_limit = _told(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    ecc = _told(pynvml.nvmlDeviceGetEccMode, handle)
    rows = _told(pynvml.nvmlDeviceGetRemappedRows, handle)
    mig = _told(pynvml.nvmlDeviceGetMigMode, handle)
    capability = _told(pynvml.nvmlDeviceGetCudaComputeCapability, handle)
    return Gpu(
        index=index,
        uuid=uuid,
        name=name,
        bus_id=str(pynvml.nvmlDeviceGetPciInfo(handle).busId),
        memory_total_bytes=memory_total,
        memory_used_bytes=memory_used,
        memory_reserved_bytes=memory_reserved,
        utilisation=None if utilisation is None else utilisation.gpu,
        memory_utilisation=None if utilisation is None else utilisation.memory,
        temperature=_told(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
        temperature_slowdown=_told(
            pynvml.nvmlDeviceGetTemperatureThreshold,
            handle,
            pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN,
        ),
        power=None if power is None else power / 1000,
        power_limit=None if power_limit is None else power_limit / 1000,
        sm_clock=_told(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM),
        sm_clock_max=_told(pynvml.nvmlDeviceGetMaxClockInfo, handle, pynvml.NVML_CLOCK_SM),
        memory_clock=_told(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_MEM),
        throttle_reasons=_throttle_reasons(handle),
        fan=_told(pynvml.nvmlDeviceGetFanSpeed, handle),
        ecc_enabled=None if ecc is None else bool(ecc[0]),
        ecc_corrected=_ecc(handle, pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED),
        ecc_uncorrected=_ecc(handle, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
        remapped_rows=None if rows is None else rows[0] + rows[1],
        remap_pending=None if rows is None else bool(rows[2]),
        remap_failed=None if rows is None else bool(rows[3]),
        links=_links(handle),
        slices=_slices(handle) if mig is not None and mig[0] else (),
        mig=None if mig is None else bool(mig[0]),
        processes=_processes(handle),
        energy=_told(pynvml.nvmlDeviceGetTotalEnergyConsumption, handle),
        compute_capability=None if capability is None else f"{capability[0]}.{capability[1]}",
    )


def _memory(handle: Any) -> tuple[int | None, int | None, int | None]:
    """Total, used by programs, held by the driver. An old library counts the last two as one."""
    newer = _told(pynvml.nvmlDeviceGetMemoryInfo, handle, pynvml.nvmlMemory_v2)
    if newer is not None:
        return newer.total, newer.used, newer.reserved
    older = _told(pynvml.nvmlDeviceGetMemoryInfo, handle)
    return (None, None, None) if older is None else (older.total, older.used, None)


def _throttle_reasons(handle: Any) -> tuple[str, ...]:
    bits = _told(pynvml.nvmlDeviceGetCurrentClocksEventReasons, handle)
    if bits is None:  # drivers before R535 know it by its older name
        bits = _told(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle)
    return tuple(word for bit, word in THROTTLE_REASONS if (bits or 0) & bit)


def _ecc(handle: Any, kind: int) -> int | None:
    return _told(pynvml.nvmlDeviceGetTotalEccErrors, handle, kind, pynvml.NVML_VOLATILE_ECC)


def _links(handle: Any) -> tuple[GpuLink, ...]:
    links: list[GpuLink] = []
    for link in range(pynvml.NVML_NVLINK_MAX_LINKS):
        try:
            up = _told(pynvml.nvmlDeviceGetNvLinkState, handle, link)
        except pynvml.NVMLError_InvalidArgument:
            break  # this GPU has fewer links than there can be
        if up is None:
            break
        links.append(GpuLink(link=link, up=bool(up), peer_uuid=_peer(handle, link)))
    return tuple(links)


def _peer(handle: Any, link: int) -> str | None:
    """The GPU at the other end; None: a switch, or nothing."""
    try:
        pci = _told(pynvml.nvmlDeviceGetNvLinkRemotePciInfo, handle, link)
        if pci is None:
            return None
        return str(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByPciBusId(pci.busId)))
    except pynvml.NVMLError:
        return None  # a link that is down, or an NVSwitch: no GPU has that address


def _slices(handle: Any) -> tuple[GpuSlice, ...]:
    slices: list[GpuSlice] = []
    for index in range(_told(pynvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
        try:
            mig = _told(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, index)
        except pynvml.NVMLError_NotFound:
            continue  # indices of slices may have holes
        if mig is None:
            break
        total, used, _reserved = _memory(mig)
        # "NVIDIA H100 80GB HBM3 MIG 1g.10gb": the profile stands behind the word MIG.
        profile = str(pynvml.nvmlDeviceGetName(mig)).rpartition("MIG ")[2]
        slices.append(
            GpuSlice(
                uuid=str(pynvml.nvmlDeviceGetUUID(mig)),
                profile=profile,
                memory_total_bytes=total,
                memory_used_bytes=used,
            )
        )
    return tuple(slices)


def _processes(handle: Any) -> tuple[GpuProcess, ...]:
    """Those with the most memory; a process may compute and draw, and is then counted once."""
    found: dict[int, int | None] = {}
    for call in (
        pynvml.nvmlDeviceGetComputeRunningProcesses,
        pynvml.nvmlDeviceGetGraphicsRunningProcesses,
    ):
        for process in _told(call, handle) or ():
            found[process.pid] = process.usedGpuMemory
    largest = sorted(found.items(), key=lambda item: (-(item[1] or 0), item[0]))[:_PROCESSES_MAX]
    return tuple(GpuProcess(pid=pid, memory_bytes=used) for pid, used in largest)
