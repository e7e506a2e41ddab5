"""Bursts for tests of the admin API: one that is up, and what it would cost."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from appliance.registry.errors import NotFound
from appliance.wire.burst import Burst, BurstOffer, BurstPlan, BurstPlanned, BurstUp

OFFER = BurstOffer(
    cloud="RunPod",
    region="RO",
    instance_type="1x_L4_SECURE",
    gpu="L4",
    gpus=1,
    spot=True,
    price="0.19",
)
UP = Burst(
    id="bur_000000000000000000000001",
    name="more",
    state="starting",
    reason="",
    gpu="L4",
    gpus=1,
    nodes=1,
    spot="prefer",
    budget="5.00",
    spent="0.00",
    idle_s=None,
    members=[],
    created_at="2026-11-22T19:22:03.250Z",
    ended_at=None,
)


@dataclass(slots=True)
class FixedBursts:
    asked: list[object] = field(default_factory=list)

    async def plan(self, asked: BurstPlan) -> BurstPlanned:
        self.asked.append(asked)
        return BurstPlanned(offers=[OFFER], chosen=OFFER, problem="", lasts_s=94_736, task="{}")

    async def up(self, actor: str, asked: BurstUp) -> Burst:
        self.asked.append(asked)
        return msgspec.structs.replace(UP, name=asked.name)

    async def down(self, actor: str, ref: str) -> Burst:
        return msgspec.structs.replace(await self.show(ref), state="ending")

    async def list(self) -> Sequence[Burst]:
        return [UP]

    async def show(self, ref: str) -> Burst:
        if ref not in {UP.id, UP.name}:
            raise NotFound(f"There is no burst {ref!r}.")
        return UP
