"""What is wrong with the GPUs: conditions at one moment, and faults that hold still.

- `conditions` is pure: the same view, the same list.
- A fault is raised when its condition has lasted, and cleared when it has been away for a while, so
  that something that comes and goes is one fault and not a hundred.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from agent.gpu.inventory import Ill, KnownXid, View
from agent.gpu.xids import kind_of
from appliance.wire.gpu import Gpu, GpuFault

Part = Literal["engine", "temperature", "memory", "processor", "network", "faults"]
Severity = Literal["warning", "error", "fatal"]

CLEAR_S: Final = 10.0  # without its condition, until a fault is cleared
_LASTING_S: Final = 3.0  # for what also happens for a moment
_STARTED_S: Final = (
    5.0  # an agent that has just started does not wait: it has forgotten, not healed
)
_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class FaultKind:
    """A row of the table in docs/GPUS.md."""

    part: Part
    severity: Severity
    score: int  # that the part falls to
    message: str
    next_step: str
    lasting_s: float = 0.0


_RESET: Final = (
    "Drain the node (`cic node drain`), then reset the GPU (`nvidia-smi --gpu-reset`) or reboot."
)
_REPLACE: Final = (
    "Drain the node (`cic node drain`) and power it off and on; when the GPU stays away, have it"
    " replaced."
)
_COOL: Final = "Look at fans, filters and the air of the room; lower the power limit meanwhile."

FAULTS: Final[dict[str, FaultKind]] = {
    "NO_DRIVER": FaultKind(
        *("faults", "fatal", 0, "There are NVIDIA GPUs and no driver for them"),
        "Install NVIDIA's driver; the agent sees it within half a minute.",
    ),
    "DRIVER_NOT_LOADED": FaultKind(
        *("faults", "fatal", 0, "The driver's library is installed and the driver is not loaded"),
        "Load it (`modprobe nvidia`), and read why it is not: `journalctl -k -g nvidia`.",
    ),
    "DRIVER_UNUSED": FaultKind(
        *("faults", "warning", 60, "The driver's library is installed, and no NVIDIA GPU is there"),
        "Look at `lspci` when there should be one; else remove the library. Engines run on the"
        " processor.",
    ),
    "DRIVER_MISMATCH": FaultKind(
        *("faults", "fatal", 0, "The driver's library and its kernel module are of two versions"),
        "The driver was upgraded under way: reboot the node, or load the new module.",
    ),
    "NVML_ERROR": FaultKind(
        *("faults", "error", 10, "The driver answers with an error"),
        "Read `journalctl -k -g nvrm` on the node; reboot it when `nvidia-smi` fails too.",
    ),
    "NVML_CRASHED": FaultKind(
        *("faults", "error", 10, "The driver's library ends the process that asks it"),
        "Reinstall the driver's packages so that library and module are of one release.",
    ),
    "NVML_HUNG": FaultKind(
        *("faults", "error", 10, "The driver does not answer"),
        "See whether `nvidia-smi` hangs too; drain the node and reboot it. Engines that still"
        " answer are left alone.",
    ),
    "GPU_LOST": FaultKind(*("faults", "fatal", 0, "The GPU has fallen off the bus"), _REPLACE),
    "GPU_MISSING": FaultKind(
        *("faults", "fatal", 0, "The GPU was here and is not listed any more"),
        _REPLACE + " When it was taken out on purpose: `cic agent forget-gpu`.",
    ),
    "GPU_RESET_REQUIRED": FaultKind(*("faults", "error", 10, "The GPU asks to be reset"), _RESET),
    "GPU_ERROR": FaultKind(
        *("faults", "error", 10, "The GPU answers with an error"),
        _RESET,
    ),
    "ECC_UNCORRECTED": FaultKind(
        *("memory", "error", 40, "Memory errors that could not be corrected"), _RESET
    ),
    "REMAP_PENDING": FaultKind(
        *("memory", "warning", 60, "A row of its memory waits to be replaced"), _RESET
    ),
    "REMAP_FAILED": FaultKind(
        *("memory", "error", 10, "A bad row of its memory could not be replaced"), _REPLACE
    ),
    "THERMAL_SLOWDOWN": FaultKind(
        *("temperature", "error", 40, "The hardware slows the GPU down against the heat", _COOL),
        lasting_s=_LASTING_S,
    ),
    "THERMAL_LIMIT": FaultKind(
        *("temperature", "warning", 60, "The driver slows the GPU down against the heat", _COOL),
        lasting_s=_LASTING_S,
    ),
    "TEMPERATURE_HIGH": FaultKind(
        *("temperature", "warning", 60, "It is as hot as where it is slowed down", _COOL),
        lasting_s=_LASTING_S,
    ),
    "POWER_BRAKE": FaultKind(
        *("processor", "warning", 60, "The power supply makes the GPU slow down"),
        "Look at the power supplies and their cables.",
        lasting_s=_LASTING_S,
    ),
    "HARDWARE_SLOWDOWN": FaultKind(
        *("processor", "warning", 60, "The hardware slows the GPU down"),
        "Look at power supplies and cooling.",
        lasting_s=_LASTING_S,
    ),
    "NVLINK_DOWN": FaultKind(
        *("network", "warning", 60, "NVLinks are down"),
        "Engines over several GPUs get slower or stop: drain the node, reset its GPUs, and look at"
        " bridge or switch when the links stay down.",
    ),
}


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that is wrong now. `held`: it is an event's, and its end needs no waiting."""

    code: str
    kind: FaultKind
    message: str
    uuid: str | None = None
    since_ns: int | None = None  # None: now

    @property
    def key(self) -> tuple[str, str | None]:
        return self.code, self.uuid


def conditions(view: View, now_ns: int) -> list[Condition]:
    """Everything that is wrong in this view."""
    found = [] if view.driver_ill is None else [_of_driver(view.driver_ill)]
    for gpu in view.gpus:
        ill = view.ill.get(gpu.uuid)
        if ill is not None:
            if ill != view.driver_ill:  # else it is said once, of the node
                found.append(_ill(ill, gpu))
        else:
            found += _of_figures(gpu, _links_down(gpu, view))
    names = {gpu.uuid: gpu for gpu in view.gpus}
    for xid in view.xids:
        held_s = kind_of(xid.xid).held_s
        if held_s is None or now_ns - xid.last_ns < held_s * _NS:
            found.append(_of_xid(xid, names.get(xid.uuid)))
    return found


def _of_driver(ill: Ill) -> Condition:
    kind = FAULTS[ill.trouble]
    return Condition(ill.trouble, kind, _sentence(kind.message, ill.detail))


def _ill(ill: Ill, gpu: Gpu) -> Condition:
    kind = FAULTS[ill.trouble]
    return Condition(
        ill.trouble, kind, f"{_name(gpu)}: {_sentence(kind.message, ill.detail)}", gpu.uuid
    )


def _of_xid(xid: KnownXid, gpu: Gpu | None) -> Condition:
    known = kind_of(xid.xid)
    times = "" if xid.count == 1 else f", {xid.count} times"
    where = "A GPU" if gpu is None else _name(gpu)
    kind = FaultKind("faults", known.severity, known.score, known.meaning, known.next_step)
    message = f"{where}: Xid {xid.xid}, {known.meaning}{times}."
    return Condition(f"XID_{xid.xid}", kind, message, xid.uuid or None, xid.first_ns)


def _of_figures(gpu: Gpu, links_down: Sequence[int]) -> Iterator[Condition]:
    if gpu.ecc_uncorrected:
        yield _condition(gpu, "ECC_UNCORRECTED", f"{gpu.ecc_uncorrected} since the driver started")
    if gpu.remap_failed:
        yield _condition(gpu, "REMAP_FAILED")
    elif gpu.remap_pending:
        yield _condition(gpu, "REMAP_PENDING")
    yield from _of_clocks(gpu)
    if links_down:
        numbers = ", ".join(str(link) for link in links_down)
        yield _condition(gpu, "NVLINK_DOWN", f"{len(links_down)} of {len(gpu.links)}: {numbers}")


def _of_clocks(gpu: Gpu) -> Iterator[Condition]:
    reasons = set(gpu.throttle_reasons)
    hot = "" if gpu.temperature is None else f"{gpu.temperature} °C"
    if "hw_thermal_slowdown" in reasons:
        yield _condition(gpu, "THERMAL_SLOWDOWN", hot)
    elif "sw_thermal_slowdown" in reasons:
        yield _condition(gpu, "THERMAL_LIMIT", hot)
    elif (
        gpu.temperature is not None
        and gpu.temperature_slowdown
        and gpu.temperature >= gpu.temperature_slowdown
    ):
        yield _condition(gpu, "TEMPERATURE_HIGH", hot)
    if "hw_power_brake_slowdown" in reasons:
        yield _condition(gpu, "POWER_BRAKE")
    elif "hw_slowdown" in reasons and "hw_thermal_slowdown" not in reasons:
        yield _condition(gpu, "HARDWARE_SLOWDOWN")


def _links_down(gpu: Gpu, view: View) -> list[int]:
    """Links that were up before, here or on another GPU of the same kind on this node.

    A bridge leaves some links of a GPU unused for ever, and those are no fault.
    """
    was_up = set(view.links_up.get(gpu.uuid, ()))
    for other in view.gpus:
        if other.name == gpu.name:
            was_up |= view.links_up.get(other.uuid, frozenset())
    return [link.link for link in gpu.links if not link.up and link.link in was_up]


def _condition(gpu: Gpu, code: str, detail: str = "") -> Condition:
    kind = FAULTS[code]
    return Condition(code, kind, f"{_name(gpu)}: {_sentence(kind.message, detail)}", gpu.uuid)


def _name(gpu: Gpu) -> str:
    return f"GPU {gpu.index} ({gpu.name})"


def _sentence(message: str, detail: str) -> str:
    return f"{message}: {detail}." if detail else f"{message}."


@dataclass(slots=True)
class _Seen:
    condition: Condition
    first_s: float
    last_s: float
    since_ns: int


class FaultTracker:
    """Raises and clears. Times are parameters."""

    __slots__ = ("_seen", "_started_s")

    def __init__(self, started_s: float) -> None:
        self._started_s = started_s
        self._seen: dict[tuple[str, str | None], _Seen] = {}

    def update(self, present: Sequence[Condition], now_s: float, now_ns: int) -> list[Condition]:
        """The conditions that count as faults now, each with `since_ns`."""
        for condition in present:
            known = self._seen.get(condition.key)
            if known is None:
                since_ns = condition.since_ns or now_ns
                self._seen[condition.key] = _Seen(condition, now_s, now_s, since_ns)
            else:
                known.condition, known.last_s = condition, now_s
        for key, seen in list(self._seen.items()):
            away_s = now_s - seen.last_s
            if away_s >= CLEAR_S or (away_s > 0 and not self._raised(seen)):
                del self._seen[key]
        return [
            Condition(
                s.condition.code,
                s.condition.kind,
                s.condition.message,
                s.condition.uuid,
                s.since_ns,
            )
            for s in self._seen.values()
            if self._raised(s)
        ]

    def _raised(self, seen: _Seen) -> bool:
        if seen.first_s - self._started_s < _STARTED_S:
            return True
        return seen.last_s - seen.first_s >= seen.condition.kind.lasting_s


def fault_of(condition: Condition) -> GpuFault:
    """As it is told to the appliance."""
    return GpuFault(
        code=condition.code,
        severity=condition.kind.severity,
        message=condition.message,
        next_step=condition.kind.next_step,
        since_ns=condition.since_ns or 0,
        gpu_uuid=condition.uuid,
    )
