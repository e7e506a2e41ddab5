"""Bursts: GPU nodes lent from clouds for a while."""

from typing import Final

from appliance.admin.calls import Call, NoQuery, Route, Services
from appliance.wire.burst import Burst, BurstPlan, BurstPlanned, BurstUp


async def plan_burst(services: Services, call: Call[NoQuery, BurstPlan]) -> BurstPlanned:
    return await services.bursts.plan(call.body)


async def list_bursts(services: Services, _call: Call[NoQuery, None]) -> list[Burst]:
    return list(await services.bursts.list())


async def start_burst(services: Services, call: Call[NoQuery, BurstUp]) -> Burst:
    return await services.bursts.up(call.actor, call.body)


async def show_burst(services: Services, call: Call[NoQuery, None]) -> Burst:
    return await services.bursts.show(call.ref)


async def end_burst(services: Services, call: Call[NoQuery, None]) -> Burst:
    return await services.bursts.down(call.actor, call.ref)


ROUTES: Final = (
    Route(
        *("POST", "/v1/bursts/plan", "What a burst would take and cost", plan_burst),
        answer=BurstPlanned,
        body=BurstPlan,
        role="operator",
    ),
    Route("GET", "/v1/bursts", "List bursts", list_bursts, list[Burst]),
    Route(
        *("POST", "/v1/bursts", "Lend machines from a cloud", start_burst, Burst),
        body=BurstUp,
        status=201,
        grows=True,
    ),
    Route("GET", "/v1/bursts/{ref}", "Show a burst", show_burst, Burst),
    Route(
        *("POST", "/v1/bursts/{ref}/down", "Give machines back", end_burst, Burst),
    ),
)
