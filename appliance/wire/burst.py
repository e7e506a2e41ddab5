"""Bursts in the admin API. Amounts are US dollars as text: "12.50"."""

from typing import Annotated, Literal

import msgspec

from appliance.wire.admin_message import Message

Spot = Literal["prefer", "only", "never"]
BurstState = Literal["starting", "running", "ending", "ended"]
Count = Annotated[int, msgspec.Meta(ge=1, le=64)]


class BurstPlan(Message, frozen=True):
    """What a burst would ask the clouds for. Nothing is launched, and nothing costs anything."""

    gpu: str
    budget: str  # for the whole burst
    gpus: Count = 1  # of one node
    nodes: Count = 1
    spot: Spot = "prefer"
    clouds: tuple[str, ...] = ()  # default: those whose accounts SkyPilot knows
    regions: tuple[str, ...] = ()
    price_max: str | None = None  # of one node in an hour
    idle_s: Annotated[int, msgspec.Meta(ge=60)] | None = None  # then it is given back


class BurstUp(Message, frozen=True):
    name: str
    plan: BurstPlan


class BurstOffer(Message, frozen=True):
    """`reason` "": it is among those that are tried, in this order."""

    cloud: str
    region: str
    instance_type: str
    gpu: str
    gpus: int
    spot: bool
    price: str  # of one node in an hour
    reason: str = ""


class BurstPlanned(Message, frozen=True):
    offers: list[BurstOffer]
    chosen: BurstOffer | None  # by SkyPilot's optimiser
    problem: str  # why it chose none
    lasts_s: int  # the budget, at the first price
    task: str  # what SkyPilot is given, as YAML; the token in it is a dummy


class BurstMember(Message, frozen=True):
    node: str
    state: str
    reason: str
    since: str
    cluster: str
    offer: BurstOffer | None
    price: str  # an hour is reckoned with this: the dearest until one was taken


class Burst(Message, frozen=True):
    id: str
    name: str
    state: BurstState
    reason: str
    gpu: str
    gpus: int
    nodes: int
    spot: Spot
    budget: str
    spent: str
    idle_s: int | None
    members: list[BurstMember]
    created_at: str
    ended_at: str | None
