"""Why a deployment's replicas run where they do, in the words of the admin API. Pure."""

from collections.abc import Mapping
from typing import Final

from appliance.domain.clock import iso
from appliance.domain.ids import NodeId
from appliance.fleet.estimate import Need
from appliance.fleet.node_facts import NodeFacts
from appliance.fleet.placing import choose, gib, only_embedded
from appliance.fleet.reconcile import Wanted, ask_of, desired_replica, room_of
from appliance.fleet.statuses import DeploymentStatus
from appliance.registry.deployment_rows import DeploymentRow
from appliance.registry.generations import Generation
from appliance.registry.profiles import ProfileRow
from appliance.wire.engine_arguments import Place, embedded_arguments, engine_arguments
from appliance.wire.placement import Explanation, MemoryNeed, NodeVerdict, Profile

_MS: Final = 1_000


def explain(
    deployment: DeploymentRow,
    wanted: Wanted,
    nodes: Mapping[NodeId, NodeFacts],
    status: DeploymentStatus | None,
    profiles: tuple[ProfileRow, ...] = (),
) -> Explanation:
    """As if none of its replicas had a place yet: what each node has to offer to them.

    So the nodes that were chosen show why, and not that they are full of it by now.
    """
    key = deployment.id, deployment.generation
    own = [row for row in wanted.replicas if row.deployment_id == deployment.id]
    need = wanted.needs.get(key)
    room = room_of(wanted).without(*(row.id for row in own))
    choice = choose(ask_of(deployment, wanted.generations[key], need), nodes, room)
    chosen = {seat.node_id for seat in choice.seats}
    best = next((nodes[v.node_id] for v in choice.verdicts if v.score is not None), None)
    verdicts = [
        NodeVerdict(
            node=verdict.node_name,
            chosen=verdict.node_id in chosen,
            running=sum(any(s.node_id == verdict.node_id for s in row.seats) for row in own),
            score=verdict.score,
            reasons=list(verdict.reasons),
            gpus=[] if verdict.seat is None else list(verdict.seat.gpu_uuids),
        )
        for verdict in choice.verdicts
    ]
    reports = [] if status is None else [r.report for r in status.replicas if r.report is not None]
    return Explanation(
        deployment=deployment.name,
        engine=deployment.engine.value,
        generation=deployment.generation,
        need=None if need is None else need_view(need),
        nodes=verdicts,
        reason=choice.reason,
        arguments=_arguments(deployment, wanted.generations[key], best),
        commands=[list(report.command) for report in reports if report.command],
        profiles=[_profile(row) for row in profiles],
    )


def _arguments(
    deployment: DeploymentRow, generation: Generation, node: NodeFacts | None
) -> list[str]:
    """What its newest generation is started with by the engine of the best node.

    Where there is none, or it does not tell its version: by the newest release of the engine.
    """
    replica = desired_replica(deployment, generation, "")
    if node is not None and only_embedded(deployment.engine, node):
        return ["(embedded llama.cpp)", *embedded_arguments(replica, replica.threads)]
    version = None if node is None else node.engine_versions.get(str(deployment.engine))
    words = engine_arguments(replica, version, Place())
    program = ["vllm", "serve", generation.model_path] if replica.engine == "vllm" else []
    return [*program, *words]


def need_view(need: Need) -> MemoryNeed:
    return MemoryNeed(
        weights_bytes=need.weights_bytes,
        kv_cache_bytes=need.kv_bytes,
        gpus=need.gpus,
        per_gpu_bytes=need.per_gpu_bytes,
        host_bytes=need.host_bytes,
        gpu_share=need.share,
        measured=need.measured,
        text=need_text(need),
    )


def need_text(need: Need) -> str:
    """`2 GPUs with 78 GiB each: 131 GiB of weights, 20 GiB of KV cache and overhead`."""
    cache = "a KV cache of unknown size" if need.kv_bytes is None else f"{gib(need.kv_bytes)} of KV"
    parts = f"{gib(need.weights_bytes)} of weights, {cache}, and overhead"
    if not need.gpus:
        return f"{gib(need.host_bytes)} of the node's memory: {parts}"
    plural = "s" if need.gpus > 1 else ""
    share = "" if need.share is None else f" within {need.share:.0%} of each"
    how = "measured" if need.measured else parts
    each = f"{gib(need.per_gpu_bytes)} each" if need.gpus > 1 else gib(need.per_gpu_bytes)
    return f"{need.gpus} GPU{plural} with {each}{share}: {how}"


def _profile(row: ProfileRow) -> Profile:
    return Profile(
        hardware=row.hardware,
        engine_version=row.engine_version,
        gpu_memory_bytes=row.gpu_memory_bytes,
        loaded_s=None if row.loaded_ms is None else row.loaded_ms / _MS,
        tokens_per_s=row.tokens_per_s,
        prefill_tokens_per_s=row.prefill_tokens_per_s,
        measured_at=iso(row.measured_at_ns),
    )
