"""What replicas need and how long they take: computed from their models, then as measured.

A profile is kept of each model with its settings on each kind of hardware, and used for the next
start: for its place, and for what clients are told while they wait for it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from appliance.domain.ids import DeploymentId, NodeId
from appliance.fleet.estimate import Need, estimate
from appliance.fleet.node_facts import NodeFacts, Unit, units
from appliance.fleet.reconcile import GenerationKey, Wanted
from appliance.fleet.shapes import Shapes
from appliance.fleet.statuses import DeploymentStatus, ReplicaStatus
from appliance.registry.deployment_rows import CONTEXT_TOKENS_DEFAULT, DeploymentRow
from appliance.registry.engines import Engine
from appliance.registry.generations import Generation
from appliance.registry.profiles import ProfileRow, Profiles, shape_of
from appliance.registry.replicas import ReplicaRow
from appliance.wire.agent import ReplicaReport

PROCESSOR: Final = "processor"
_NEWS: Final = 0.2  # a figure that differs by less is no news
_NEWS_NS: Final = 60_000_000_000  # neighbours that differ shall not write by turns all the time
_MS: Final = 1_000
# A load that was never measured: from a disk of our day, and what an engine does beside reading.
_READ_BYTES_PER_S: Final = 1_000_000_000
_STARTING_S: Final = {Engine.LLAMACPP: 2.0, Engine.VLLM: 60.0, Engine.SGLANG: 60.0}

_Key = tuple[str, str, str]  # digest of the model, shape, hardware


class Measurements:
    """Reads and keeps profiles; everything else follows from them."""

    def __init__(self, profiles: Profiles, shapes: Shapes, actor: str) -> None:
        self._profiles = profiles
        self._shapes = shapes
        self._actor = actor
        self._known: dict[_Key, ProfileRow] = {}
        self._read = False

    async def needs(
        self, deployments: Sequence[DeploymentRow], generations: Sequence[Generation]
    ) -> Mapping[GenerationKey, Need]:
        """Of every generation whose model can be read."""
        if not self._read:
            self._known = {_key(row): row for row in reversed(await self._profiles.list())}
            self._read = True
        shapes = await self._shapes.of(generations)
        engines = {row.id: row.engine for row in deployments}
        return {
            (g.deployment_id, g.number): estimate(
                engines[g.deployment_id],
                shapes[g.model_digest],
                g.settings,
                context_tokens=g.context_tokens or CONTEXT_TOKENS_DEFAULT,
                parallel=g.parallel,
                measured_gpu_bytes=self._gpu_memory(engines[g.deployment_id], g),
            )
            for g in generations
            if g.model_digest in shapes and g.deployment_id in engines
        }

    def of(self, engine: Engine, generation: Generation) -> tuple[ProfileRow, ...]:
        """What was measured of that generation, on whatever hardware."""
        shape = shape_of(engine.value, generation)
        return tuple(
            row
            for row in self._known.values()
            if (row.model_digest, row.shape) == (generation.model_digest, shape)
        )

    def load_s(self, engine: Engine, generation: Generation) -> float:
        """From a start to the first token: the longest that was measured, else a guess."""
        loads = [row.loaded_ms for row in self.of(engine, generation) if row.loaded_ms is not None]
        if loads:
            return max(loads) / _MS
        return _STARTING_S.get(engine, 0.0) + generation.model_size_bytes / _READ_BYTES_PER_S

    async def learn(
        self,
        wanted: Wanted,
        statuses: Iterable[DeploymentStatus],
        nodes: Mapping[NodeId, NodeFacts],
        now_ns: int,
    ) -> bool:
        """Keep what the reports of ready replicas tell anew; True: something was kept."""
        engines = {row.id: row.engine for row in wanted.deployments}
        ready = [r for status in statuses for r in status.replicas if r.state == "ready"]
        news = False
        for replica in ready:
            row = _profile(replica, engines, wanted, nodes, now_ns)
            if row is None or not _is_news(self._known.get(_key(row)), row):
                continue
            self._known[_key(row)] = row
            await self._profiles.keep(self._actor, row)
            news = True
        return news

    def _gpu_memory(self, engine: Engine, generation: Generation) -> int | None:
        """The most that was measured, over all kinds of hardware."""
        seen = [row.gpu_memory_bytes for row in self.of(engine, generation)]
        return max((count for count in seen if count is not None), default=None)


def hardware_of(row: ReplicaRow, nodes: Mapping[NodeId, NodeFacts]) -> str:
    """The GPUs it runs on, as `2 × NVIDIA A100-SXM4-80GB`, or the processor."""
    names = [f"{unit.gpu.name} {unit.profile}".strip() for unit in _held(row, nodes)]
    if not names:
        return PROCESSOR
    return ", ".join(f"{names.count(name)} × {name}" for name in sorted(set(names)))


def _held(row: ReplicaRow, nodes: Mapping[NodeId, NodeFacts]) -> Iterator[Unit]:
    """The GPUs and slices it was given, as far as their nodes tell of them."""
    for seat in row.seats:
        node = nodes.get(seat.node_id)
        known = {unit.uuid: unit for unit in units(node)} if node is not None else {}
        yield from (known[uuid] for uuid in seat.gpu_uuids if uuid in known)


def _profile(
    replica: ReplicaStatus,
    engines: Mapping[DeploymentId, Engine],
    wanted: Wanted,
    nodes: Mapping[NodeId, NodeFacts],
    now_ns: int,
) -> ProfileRow | None:
    row, report = replica.row, replica.report
    generation = wanted.generations.get((row.deployment_id, row.generation))
    if report is None or generation is None or not _measured(report):
        return None
    return ProfileRow(
        model_digest=generation.model_digest,
        shape=shape_of(engines[row.deployment_id].value, generation),
        hardware=hardware_of(row, nodes),
        engine_version=report.engine_version or "",
        gpu_memory_bytes=_gpu_memory(report, row, nodes),
        loaded_ms=None if report.loaded_s is None else int(report.loaded_s * _MS),
        tokens_per_s=_whole(report.tokens_per_s),
        prefill_tokens_per_s=_whole(report.prefill_tokens_per_s),
        measured_at_ns=now_ns,
    )


def _gpu_memory(
    report: ReplicaReport, row: ReplicaRow, nodes: Mapping[NodeId, NodeFacts]
) -> int | None:
    """What it holds; None where that is more than its GPUs have, which cannot be."""
    held = report.gpu_memory_bytes
    totals = [unit.total_bytes for unit in _held(row, nodes)]
    if held is None or not totals or None in totals:
        return None
    return held if 0 < held <= sum(total or 0 for total in totals) else None


def _measured(report: ReplicaReport) -> bool:
    return report.loaded_s is not None or report.gpu_memory_bytes is not None


def _whole(figure: float | None) -> int | None:
    return None if figure is None else round(figure)


def _is_news(known: ProfileRow | None, row: ProfileRow) -> bool:
    if known is None or known.engine_version != row.engine_version:
        return True
    if row.measured_at_ns - known.measured_at_ns < _NEWS_NS:
        return False
    pairs = (
        (known.gpu_memory_bytes, row.gpu_memory_bytes),
        (known.loaded_ms, row.loaded_ms),
        (known.tokens_per_s, row.tokens_per_s),
        (known.prefill_tokens_per_s, row.prefill_tokens_per_s),
    )
    return any(
        new is not None and (old is None or abs(new - old) > _NEWS * max(old, 1))
        for old, new in pairs
    )


def _key(row: ProfileRow) -> _Key:
    return row.model_digest, row.shape, row.hardware
