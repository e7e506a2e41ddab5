"""What the clouds offer, and which of it a burst takes: pure.

Prices are micro-US-dollars for one hour of one machine, out of SkyPilot's catalogue.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from appliance.registry.bursts import BurstSpec, Offer

# SkyPilot tries them one after the other; each costs it up to some minutes.
CANDIDATES_MAX: Final = 16
# A burst that could not even start an engine for the money is refused beforehand.
MINIMUM_S: Final = 1_800
_HOUR_S: Final = 3_600


@dataclass(frozen=True, slots=True)
class Refused:
    offer: Offer
    reason: str


@dataclass(frozen=True, slots=True)
class Ranking:
    """`candidates` in the order in which they are tried, `refused` by price."""

    candidates: tuple[Offer, ...]
    refused: tuple[Refused, ...]


def rank(offers: Iterable[Offer], wanted: BurstSpec) -> Ranking:
    """Spot machines first, on demand as the fallback, each from the cheapest region on.

    A spot machine that costs what one on demand costs in the cheapest region is not taken: it can
    only be lost.
    """
    by_price = sorted(offers, key=lambda o: (o.price_micro, o.cloud, o.region, o.instance_type))
    taken: list[Offer] = []
    refused: list[Refused] = []
    for offer in by_price:
        reason = _unfit(offer, wanted)
        if reason:
            refused.append(Refused(offer, reason))
        else:
            taken.append(offer)
    steady = [offer for offer in taken if not offer.spot]
    spot = [offer for offer in taken if offer.spot]
    if steady:
        bound = steady[0].price_micro
        refused += [
            Refused(offer, "costs as spot what another costs on demand")
            for offer in spot
            if offer.price_micro >= bound
        ]
        spot = [offer for offer in spot if offer.price_micro < bound]
    ordered = spot + steady
    refused += [
        Refused(offer, f"more than {CANDIDATES_MAX} are better")
        for offer in ordered[CANDIDATES_MAX:]
    ]
    return Ranking(
        tuple(ordered[:CANDIDATES_MAX]),
        tuple(sorted(refused, key=lambda entry: entry.offer.price_micro)),
    )


def _unfit(offer: Offer, wanted: BurstSpec) -> str:
    """Why the offer is not taken; "" when it is."""
    if wanted.clouds and offer.cloud.lower() not in _lower(wanted.clouds):
        return "another cloud"
    if wanted.regions and offer.region.lower() not in _lower(wanted.regions):
        return "another region"
    if offer.spot and wanted.spot == "never":
        return "spot"
    if not offer.spot and wanted.spot == "only":
        return "on demand"
    if wanted.price_max_micro is not None and offer.price_micro > wanted.price_max_micro:
        return "over the highest price"
    if lasts_s(wanted.budget_micro, offer.price_micro * wanted.nodes) < MINIMUM_S:
        return f"the budget lasts for less than {MINIMUM_S // 60} minutes"
    return ""


def lasts_s(budget_micro: int, price_micro: int) -> int:
    """For how long a budget lasts at a price for an hour, in whole seconds. Price 0: a year."""
    if price_micro <= 0:
        return 365 * 86_400
    return max(0, budget_micro) * _HOUR_S // price_micro


def cost_micro(price_micro: int, from_ns: int, to_ns: int) -> int:
    """What a machine cost in that time, rounded up: the cap must hold."""
    hour_ns = _HOUR_S * 1_000_000_000
    return -(-price_micro * max(0, to_ns - from_ns) // hour_ns)


def _lower(names: Sequence[str]) -> set[str]:
    return {name.lower() for name in names}
