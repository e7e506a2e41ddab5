"""GPUs of the site, as the agents of its nodes measured them last."""

import msgspec

from appliance.admin.calls import Call, NoQuery, Services
from appliance.wire.gpu import NodeGpu


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
