"""Why replicas run where they do."""

from appliance.admin.calls import Call, NoQuery, Services
from appliance.admin.errors import BadRequest
from appliance.registry.engines import Engine
from appliance.wire.placement import Explanation


async def explain_deployment(services: Services, call: Call[NoQuery, None]) -> Explanation:
    row = await services.registry.deployments.get(call.ref)
    if row.engine is Engine.EXTERNAL:
        raise BadRequest(
            f"The deployment {row.name!r} has an external engine, which runs on no node.",
            next_step=f"`cic deployment show {row.name}` tells whether its URL answers.",
        )
    explanation = services.live.explain(row.id)
    if explanation is None:
        raise BadRequest(
            f"The deployment {row.name!r} was made a moment ago and is not planned yet.",
            next_step="Ask again in a second.",
        )
    return explanation
