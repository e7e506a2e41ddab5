"""The faults: what the caller sees, and what was done nevertheless."""

import urllib.request

import pytest
import stripe

from tests.fakes.stripe.faults import FAULTS
from tests.integration.stripe_double.conftest import HOUR_S, Billed

HOUR = 1_800_000_000
EVENTS = "/v1/billing/meter_events"


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        ("answer_lost", stripe.APIConnectionError),
        ("reset_before", stripe.APIConnectionError),
        ("reset_after", stripe.APIConnectionError),
        ("truncated", stripe.APIConnectionError),
        ("stored_500", stripe.APIError),
        ("stored_500_after", stripe.APIError),
        ("unavailable", stripe.APIError),
        ("rate_limited", stripe.RateLimitError),
        ("locked", stripe.RateLimitError),
    ],
)
def test_a_fault_hides_or_hinders_the_work(
    billed: Billed, fault: str, seen: type[Exception]
) -> None:
    done = fault in ("answer_lost", "reset_after", "truncated", "stored_500_after")
    billed.threaded.double.faults.plan(fault, EVENTS)
    with pytest.raises(seen):
        billed.send(10, "row")
    assert billed.sum(HOUR, HOUR + HOUR_S) == (10 if done else 0)
    billed.threaded.double.faults.clear()
    if done:
        with pytest.raises(stripe.InvalidRequestError, match="already exists"):
            billed.send(10, "row")
    else:
        billed.send(10, "row")
    assert billed.sum(HOUR, HOUR + HOUR_S) == 10


def test_a_slow_answer_is_an_answer(billed: Billed) -> None:
    billed.threaded.double.faults.plan("slow", EVENTS, seconds=0.05)
    assert billed.send(10, "row").identifier == "row"


def test_a_fault_waits_for_its_turn(billed: Billed) -> None:
    billed.threaded.double.faults.plan("unavailable", EVENTS, after=1, count=2)
    billed.send(1, "one")
    for _ in range(2):
        with pytest.raises(stripe.APIError):
            billed.send(1, "two")
    billed.send(1, "two")


def test_random_faults_are_the_same_for_the_same_seed(billed: Billed) -> None:
    def outcomes(seed: int, name: str) -> list[str]:
        billed.threaded.double.faults.at_random(seed, 0.5, FAULTS[4:8], EVENTS)
        found = []
        for number in range(12):
            try:
                billed.send(1, f"{name}-{number}")
                found.append("ok")
            except stripe.StripeError as problem:
                found.append(type(problem).__name__ + str(problem.http_status))
        billed.threaded.double.faults.clear()
        return found

    first = outcomes(7, "a")
    assert first == outcomes(7, "b")
    assert first != outcomes(8, "c")
    assert {"ok"} < set(first)


def test_other_processes_steer_the_double_over_http(billed: Billed) -> None:
    base = billed.threaded.double.base_url

    def call(path: str, body: bytes | None = None) -> bytes:
        with urllib.request.urlopen(f"{base}/__double__/{path}", body, timeout=5) as answer:
            return bytes(answer.read())

    call("faults", b'{"fault": "unavailable", "path": "/v1/billing/meter_events"}')
    with pytest.raises(stripe.APIError):
        billed.send(10, "row")
    billed.send(10, "row")
    before = billed.now
    call("clock", b'{"advance_s": 86400}')
    assert billed.now == before + 86_400
    assert b'"value": 10' in call("usage")
    assert b'"unavailable": 1' in call("faults")
