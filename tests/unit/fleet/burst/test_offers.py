"""Which of the clouds' offers a burst takes, and what it costs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.fleet.burst.offers import CANDIDATES_MAX, cost_micro, lasts_s, rank
from appliance.registry.bursts import BurstSpec, Offer

MICRO = 1_000_000
HOUR_NS = 3_600 * 1_000_000_000


def offer(region: str, price: float, *, spot: bool = False, cloud: str = "AWS") -> Offer:
    return Offer(cloud, region, "g6.xlarge", "L4", 1, spot, round(price * MICRO))


def spec(**more: object) -> BurstSpec:
    wanted: dict[str, object] = {
        "gpu": "L4", "gpus": 1, "nodes": 1, "spot": "prefer", "budget_micro": 10 * MICRO
    }  # fmt: skip
    return BurstSpec(**(wanted | more))  # type: ignore[arg-type]  # fields of it


OFFERS = (
    offer("us-east-1", 0.80),
    offer("us-east-1", 0.30, spot=True),
    offer("eu-north-1", 0.85),
    offer("eu-north-1", 0.25, spot=True),
    offer("RO", 0.79, cloud="RunPod"),
    offer("RO", 0.79, cloud="RunPod", spot=True),
)


def places(offers: tuple[Offer, ...]) -> list[tuple[str, bool]]:
    return [(offer.region, offer.spot) for offer in offers]


def test_spot_first_then_on_demand_each_by_price() -> None:
    ranking = rank(OFFERS, spec())
    assert places(ranking.candidates) == [
        ("eu-north-1", True),
        ("us-east-1", True),
        ("RO", False),
        ("us-east-1", False),
        ("eu-north-1", False),
    ]
    (refused,) = ranking.refused
    assert (refused.offer.region, refused.offer.spot) == ("RO", True)
    assert refused.reason == "costs as spot what another costs on demand"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"spot": "never"}, [("RO", False), ("us-east-1", False), ("eu-north-1", False)]),
        ({"spot": "only"}, [("eu-north-1", True), ("us-east-1", True), ("RO", True)]),
        ({"clouds": ("runpod",), "spot": "only"}, [("RO", True)]),
        ({"regions": ("US-EAST-1",)}, [("us-east-1", True), ("us-east-1", False)]),
        ({"price_max_micro": 260_000}, [("eu-north-1", True)]),
        ({"budget_micro": 140_000}, [("eu-north-1", True)]),  # half an hour at 0.28
        ({"budget_micro": 140_000, "nodes": 2}, []),
        ({"budget_micro": 0}, []),
    ],
)
def test_what_is_not_wanted_is_not_taken(
    more: dict[str, object], expected: list[tuple[str, bool]]
) -> None:
    ranking = rank(OFFERS, spec(**more))
    assert places(ranking.candidates) == expected
    assert len(ranking.candidates) + len(ranking.refused) == len(OFFERS)
    assert all(refused.reason for refused in ranking.refused)


def test_no_more_are_tried_than_there_is_time_for() -> None:
    many = [offer(f"r{n:02d}", 1 + n / 100) for n in range(CANDIDATES_MAX + 3)]
    ranking = rank(reversed(many), spec())
    assert len(ranking.candidates) == CANDIDATES_MAX
    assert ranking.candidates[0].region == "r00"
    assert len(ranking.refused) == 3


def test_costs_are_rounded_up_and_never_negative() -> None:
    assert cost_micro(800_000, 0, HOUR_NS) == 800_000
    assert cost_micro(800_000, 0, 1) == 1
    assert cost_micro(800_000, 5, 5) == 0
    assert cost_micro(800_000, 10, 5) == 0
    assert lasts_s(800_000, 800_000) == 3_600
    assert lasts_s(-1, 800_000) == 0
    assert lasts_s(1, 0) == 365 * 86_400


@given(
    budget_micro=st.integers(0, 10**12),
    price_micro=st.integers(1, 10**9),
)
def test_what_lasts_is_paid_for(budget_micro: int, price_micro: int) -> None:
    lasts_ns = lasts_s(budget_micro, price_micro) * 1_000_000_000
    assert cost_micro(price_micro, 0, lasts_ns) <= budget_micro
