"""What is wrong with this machine beside its GPUs: conditions at one moment. Pure.

A busy processor is what a node is for, and no fault: only what makes everything on the node late
for long counts. None of these takes a node under the score at which nothing new is started there.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Final

from agent.gpu.faults import Condition, FaultKind
from agent.host_figures import HostFigures, Port

_MIB: Final = 1024 * 1024
_GIB: Final = 1024 * _MIB
_LASTING_S: Final = 10.0  # two readings: a moment is none
_PACKETS_MIN: Final = 100  # broken in a minute, until it is worth a word

_MEMORY: Final = (
    "See what uses it (`ps aux --sort -rss`); end what is not needed, give the deployments smaller"
    " models or contexts, or the node more memory."
)
_DISK: Final = (
    "Make room on the disk of the node's folder (`du -xh --max-depth 2`), or move the folder to"
    " another one."
)
_CABLE: Final = "Look at the cable, the port of the switch and `ethtool` of the interface."

HOST_FAULTS: Final[dict[str, FaultKind]] = {
    "MEMORY_PRESSURE": FaultKind(
        *("memory", "error", 40, "The node stands still for want of memory", _MEMORY)
    ),
    "MEMORY_LOW": FaultKind(
        *("memory", "warning", 60, "The node's memory is nearly used up", _MEMORY),
        lasting_s=_LASTING_S,
    ),
    "SWAPPING": FaultKind(
        *("memory", "warning", 60, "The node moves memory to its swap and back", _MEMORY),
        lasting_s=_LASTING_S,
    ),
    "PROCESSOR_OVERLOADED": FaultKind(
        *("processor", "warning", 60, "Far more wants to run than the node has cores for"),
        "See what runs (`top`); end what is not needed, or place fewer replicas on the node.",
    ),
    "PROCESSOR_HOT": FaultKind(
        *("processor", "warning", 60, "The processor is slowed down against the heat"),
        "Look at fans, filters and the air of the room.",
        lasting_s=_LASTING_S,
    ),
    "LINK_DOWN": FaultKind(
        *("network", "warning", 60, "A network link that was up is down", _CABLE),
        lasting_s=_LASTING_S,
    ),
    "LINK_SLOW": FaultKind(
        *("network", "warning", 60, "A network link is slower than it was", _CABLE),
        lasting_s=_LASTING_S,
    ),
    "LINK_ERRORS": FaultKind(
        *("network", "warning", 60, "A network link loses packets", _CABLE),
        lasting_s=_LASTING_S,
    ),
    "DISK_LOW": FaultKind(
        *("faults", "warning", 60, "The disk of the node's folder is nearly full", _DISK)
    ),
    "DISK_FULL": FaultKind(
        *("faults", "error", 40, "The disk of the node's folder is full", _DISK)
    ),
    "DISK_HUNG": FaultKind(
        *("faults", "error", 40, "The disk of the node's folder does not answer"),
        "Read `journalctl -k` on the node; drain the node (`cic node drain`) before the disk or its"
        " server is repaired. Engines that still answer are left alone.",
    ),
}


def host_conditions(seen: HostFigures, raised: Collection[str]) -> list[Condition]:
    """Everything that is wrong in this reading.

    `raised` are the codes that count as faults by now: to end, a figure must be clearly better
    than where it began.
    """
    return [
        *_of_memory(seen, raised),
        *_of_processor(seen, raised),
        *_of_ports(seen.ports, raised),
        *_of_disk(seen, raised),
    ]


def disk_hung(silent_s: float) -> Condition:
    return _condition("DISK_HUNG", f"for {silent_s:.0f} s")


def _of_memory(seen: HostFigures, raised: Collection[str]) -> Iterator[Condition]:
    stalls = seen.memory_stalls
    if stalls is not None and stalls >= _limit("MEMORY_PRESSURE", raised, 10.0, 5.0):
        yield _condition("MEMORY_PRESSURE", f"{stalls:.0f} % of the last minute")
    free, total = seen.memory_available_bytes, seen.memory_total_bytes
    if free is not None and total and free / total < _limit("MEMORY_LOW", raised, 0.04, 0.06):
        yield _condition("MEMORY_LOW", f"{free / _GIB:.1f} of {total / _GIB:.1f} GiB are left")
    if seen.swapped_pages >= _limit("SWAPPING", raised, 60_000, 6_000):
        yield _condition("SWAPPING", f"{seen.swapped_pages:,} pages in the last minute")


def _of_processor(seen: HostFigures, raised: Collection[str]) -> Iterator[Condition]:
    load = seen.load
    waits = 100.0 if seen.cpu_waits is None else seen.cpu_waits
    if (
        load is not None
        and load >= seen.cores * _limit("PROCESSOR_OVERLOADED", raised, 8, 6)
        and waits >= _limit("PROCESSOR_OVERLOADED", raised, 90.0, 80.0)
    ):
        detail = f"a load of {load:.0f} over 15 minutes for {seen.cores} cores"
        yield _condition("PROCESSOR_OVERLOADED", detail)
    if seen.throttled_ms >= _limit("PROCESSOR_HOT", raised, 6_000, 1_000):
        yield _condition("PROCESSOR_HOT", f"{seen.throttled_ms / 1000:.0f} s of the last minute")


def _of_ports(ports: Sequence[Port], raised: Collection[str]) -> Iterator[Condition]:
    """One condition for all interfaces: which they are stands in its message."""
    down = [port.name for port in ports if not port.up]
    if down:
        yield _condition("LINK_DOWN", ", ".join(down))
    slow = [
        f"{port.name} at {port.mbit_per_s:,} instead of {port.mbit_per_s_best:,} Mbit/s"
        for port in ports
        if port.mbit_per_s and port.mbit_per_s_best and port.mbit_per_s < port.mbit_per_s_best
    ]
    if slow:
        yield _condition("LINK_SLOW", ", ".join(slow))
    share = _limit("LINK_ERRORS", raised, 0.01, 0.005)
    lossy = [
        f"{port.name} {port.errors:,} of {port.packets:,} in the last minute"
        for port in ports
        if port.errors >= _PACKETS_MIN and port.errors >= share * port.packets
    ]
    if lossy:
        yield _condition("LINK_ERRORS", ", ".join(lossy))


def _of_disk(seen: HostFigures, raised: Collection[str]) -> Iterator[Condition]:
    free, total = seen.disk_free_bytes, seen.disk_total_bytes
    if free is None or not total:
        return
    detail = f"{free / _GIB:.1f} of {total / _GIB:.1f} GiB are left"
    if free < _limit("DISK_FULL", raised, 256, 512) * _MIB:
        yield _condition("DISK_FULL", detail)
    elif free < total * _limit("DISK_LOW", raised, 0.05, 0.06) and free < 10 * _GIB:
        yield _condition("DISK_LOW", detail)


def _limit(code: str, raised: Collection[str], begins: float, ends: float) -> float:
    return ends if code in raised else begins


def _condition(code: str, detail: str) -> Condition:
    kind = HOST_FAULTS[code]
    return Condition(code, kind, f"{kind.message}: {detail}.")
