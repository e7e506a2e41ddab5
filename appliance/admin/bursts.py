"""Bursts: GPU nodes lent from clouds for a while."""

from appliance.admin.calls import Call, NoQuery, Services
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
