"""Health of a node: six parts of 0–100 and their lowest. Pure.

- 80 and more is ok, 20 and more is degraded, less is failed: nothing can run there.
- A GPU's score is the lowest of what concerns it. A node of several GPUs does not fall under 20
  while one of them can be used.
- Parts fall at once. What the readings alone decide rises when it has been better for `RISE_S`;
  faults bring their own patience.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, get_args

from agent.gpu.faults import Condition, Part, fault_of
from appliance.wire.agent import ReplicaReport
from appliance.wire.gpu import Gpu, GpuState, HealthPart, HealthState, NodeHealth

RISE_S: Final = 10.0
OK_SCORE: Final = 80
FAILED_BELOW: Final = 20
_WARM_K: Final = 10  # so far under the slow-down the score begins to fall
_NO_ENGINE_SCORE: Final = 60
_SOME_ENGINES_SCORE: Final = 90  # in good health still: the others show that engines can run here
_GONE: Final = frozenset({"GPU_LOST", "GPU_MISSING"})
_PARTS: Final[tuple[Part, ...]] = get_args(Part)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a figure says of a part, without any fault."""

    score: int
    reason: str = ""


_WELL: Final = Reading(100)


class Steady:
    """Lets a reading fall at once and rise late."""

    __slots__ = ("_better_since_s", "_shown")

    def __init__(self) -> None:
        self._shown = _WELL
        self._better_since_s: float | None = None

    def hold(self, reading: Reading, now_s: float) -> Reading:
        if reading.score <= self._shown.score:
            self._shown, self._better_since_s = reading, None
        elif self._better_since_s is None:
            self._better_since_s = now_s
        elif now_s - self._better_since_s >= RISE_S:
            self._shown, self._better_since_s = reading, None
        return self._shown


def judge_gpus(gpus: Sequence[Gpu], faults: Sequence[Condition]) -> dict[str, tuple[int, GpuState]]:
    """Score and state of each GPU; a fault of the driver is every GPU's."""
    verdicts: dict[str, tuple[int, GpuState]] = {}
    for gpu in gpus:
        own = [f for f in faults if f.uuid in {gpu.uuid, None}]
        score = min((*(f.kind.score for f in own), warmth(gpu).score))
        gone = any(f.code in _GONE for f in own)
        verdicts[gpu.uuid] = (score, "gone" if gone else state_of(score))
    return verdicts


def state_of(score: int) -> HealthState:
    if score < FAILED_BELOW:
        return "failed"
    return "ok" if score >= OK_SCORE else "degraded"


def warmth(gpu: Gpu) -> Reading:
    """From 100, ten degrees under the slow-down, to 80 at it; above it there is a fault."""
    if gpu.temperature is None or not gpu.temperature_slowdown:
        return _WELL
    margin = gpu.temperature_slowdown - gpu.temperature
    if margin >= _WARM_K:
        return _WELL
    return Reading(
        max(OK_SCORE, 100 - 2 * (_WARM_K - margin)),
        f"GPU {gpu.index} has {gpu.temperature} °C and is slowed down at"
        f" {gpu.temperature_slowdown} °C.",
    )


def warmest(gpus: Sequence[Gpu]) -> Reading:
    return min((warmth(gpu) for gpu in gpus), key=lambda reading: reading.score, default=_WELL)


def engines(reports: Sequence[ReplicaReport]) -> Reading:
    """Engines of this node that do not come up. Where others run, it is hardly the node's doing."""
    ailing = [r for r in reports if r.state in {"failed", "backoff"}]
    if not ailing:
        return _WELL
    first = ailing[0]
    others = any(report.state == "ready" for report in reports)
    return Reading(
        _SOME_ENGINES_SCORE if others else _NO_ENGINE_SCORE,
        f"{len(ailing)} of {len(reports)} engines cannot run: {first.replica_id}:"
        f" {first.reason or first.state}",
    )


def node_health(
    faults: Sequence[Condition], engine: Reading, temperature: Reading, *, floor: int
) -> NodeHealth:
    """`floor`: what no fault of one GPU takes the node below."""
    readings = {"engine": engine, "temperature": temperature}
    parts = tuple(
        _part(name, [f for f in faults if f.kind.part == name], readings.get(name, _WELL), floor)
        for name in _PARTS
    )
    score = min(part.score for part in parts)
    return NodeHealth(
        score=score,
        state=state_of(score),
        parts=parts,
        faults=tuple(fault_of(f) for f in faults),
    )


def floor_of(scores: Mapping[str, tuple[int, GpuState]]) -> int:
    """`FAILED_BELOW` while one GPU can be used; 0 when none can, or there are none."""
    usable = any(score >= FAILED_BELOW for score, _state in scores.values())
    return FAILED_BELOW if usable else 0


def _part(name: Part, faults: Sequence[Condition], reading: Reading, floor: int) -> HealthPart:
    lowest = min(faults, key=lambda fault: fault.kind.score, default=None)
    if lowest is None or lowest.kind.score >= reading.score:
        return HealthPart(name=name, score=reading.score, reason=reading.reason)
    more = "" if len(faults) == 1 else f" And {len(faults) - 1} more."
    return HealthPart(
        name=name,
        score=max(lowest.kind.score, floor),
        reason=f"{lowest.message} {lowest.kind.next_step}{more}",
    )
