"""GPUs of the site, as the agents of its nodes measured them last."""

import msgspec

from appliance.admin.calls import Call, NoQuery, Services
from appliance.admin.errors import BadNodeAnswer
from appliance.wire.gpu import GpuHistory, NodeGpu


class OfGpu(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One GPU by its UUID, or all."""

    gpu: str = ""


async def gpu_history(services: Services, call: Call[OfGpu, None]) -> GpuHistory:
    """As the node itself remembers. Asked of it now: the appliance keeps none."""
    row = await services.registry.nodes.get(call.ref)
    answer = await services.live.ask_node(row.id, "gpu_history", call.query.gpu)
    try:
        return msgspec.json.decode(answer, type=GpuHistory)
    except msgspec.DecodeError as error:
        raise BadNodeAnswer(
            f"What the node {row.name} answered makes no sense: {error}.",
            next_step="Run the same release on the node.",
        ) from error


async def list_gpus(services: Services, _call: Call[NoQuery, None]) -> list[NodeGpu]:
    """By node and index. A silent node's GPUs are marked: their figures are old."""
    found: list[NodeGpu] = []
    for row in await services.registry.nodes.list():
        live = services.live.node(row.id)
        if live is None:
            continue
        found += [
            NodeGpu(
                node=row.name,
                node_id=row.id,
                stale=live.state == "unreachable",
                **msgspec.structs.asdict(gpu),
            )
            for gpu in live.gpu_figures
        ]
    return found
