"""64 clients at once, engines of any speed: what is served in any minute stays within the bound."""

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from appliance.domain.limits import Layer, LayerLimits, Limits
from appliance.limits.memory import MemoryLimitStore
from appliance.limits.reservation import Refusal

CLIENTS = 64
LIMIT = 1_000
LAYERS = (
    LayerLimits(Layer.TENANT, "ten_1", Limits(requests_per_min=100_000)),
    LayerLimits(Layer.KEY, "key_1", Limits(tokens_per_min=LIMIT)),
)


@dataclass(frozen=True)
class Served:
    begin_s: float
    end_s: float
    tokens: int


@dataclass
class Run:
    served: list[Served]
    refusals: int
    overrun: int  # the most that requests open at one admission used beyond their reservations


def simulate(rng: Random, slowest_s: float, underestimate: float, minutes: int) -> Run:
    """All clients ask again as soon as they have an answer, or a moment after a refusal."""
    store = MemoryLimitStore()
    served: list[Served] = []
    refusals = overrun = 0
    open_overruns: dict[int, int] = {}
    now_s = rng.uniform(0, 1_000)
    until_s = now_s + minutes * 60
    # What happens next: at a time, to a client: it asks (None), or its answer has ended.
    queue: list[tuple[float, int, Callable[[float], None] | None]] = [
        (now_s + rng.random(), client, None) for client in range(CLIENTS)
    ]
    heapq.heapify(queue)
    while queue:
        now_s, client, end = heapq.heappop(queue)
        if end is not None:
            end(now_s)
            open_overruns.pop(client)
            heapq.heappush(queue, (now_s + 0.001, client, None))
            continue
        if now_s >= until_s:
            continue
        reserved = rng.choice((20, 100, 300, 900, 1_500))
        answer = store.reserve(LAYERS, reserved, now_s)
        if isinstance(answer, Refusal):
            refusals += 1
            pause_s = min(answer.retry_after_s, rng.uniform(0.2, 5))
            heapq.heappush(queue, (now_s + pause_s, client, None))
            continue
        used = int(reserved * rng.uniform(0, underestimate))
        overrun = max(overrun, sum(open_overruns.values()))
        open_overruns[client] = max(0, used - reserved)
        end_s = now_s + rng.uniform(0.01, slowest_s)
        served.append(Served(now_s, end_s, used))

        def settle(at_s: float, answer=answer, used=used) -> None:
            store.settle(answer, used, at_s)

        heapq.heappush(queue, (end_s, client, settle))
    assert store.used("key_1", now_s).concurrency == 0
    return Run(served, refusals, overrun)


def most_in_a_minute(moments: Iterable[tuple[float, int]]) -> int:
    """The largest sum over any 60 seconds."""
    ordered = sorted(moments)
    most = inside = first = 0
    for at_s, tokens in ordered:
        inside += tokens
        while ordered[first][0] <= at_s - 60:
            inside -= ordered[first][1]
            first += 1
        most = max(most, inside)
    return most


def check(run: Run, rng: Random) -> None:
    bound = LIMIT + max((s.tokens for s in run.served), default=0) + run.overrun
    # Whether tokens are said to be served at the beginning, at the end, or at any time between.
    for share in (lambda: 0.0, lambda: 1.0, rng.random, lambda: rng.choice((0.0, 1.0))):
        moments = ((s.begin_s + share() * (s.end_s - s.begin_s), s.tokens) for s in run.served)
        assert most_in_a_minute(moments) <= bound


@given(st.integers(0, 2**32), st.sampled_from((0.05, 2.0, 30.0, 200.0)))
@example(1, 0.05)
@settings(max_examples=16, deadline=None)
def test_any_minute_serves_at_most_the_limit_and_one_request(seed: int, slowest_s: float) -> None:
    rng = Random(seed)
    run = simulate(rng, slowest_s, underestimate=1.0, minutes=4)
    assert run.refusals > 0
    assert run.overrun == 0
    check(run, rng)


@given(st.integers(0, 2**32), st.sampled_from((0.05, 2.0, 30.0)))
@settings(max_examples=12, deadline=None)
def test_what_is_estimated_too_low_exceeds_it_only_by_what_ran_at_once(
    seed: int, slowest_s: float
) -> None:
    rng = Random(seed)
    run = simulate(rng, slowest_s, underestimate=3.0, minutes=4)
    check(run, rng)


def test_a_fresh_minute_is_used_and_not_left_empty() -> None:
    """The limit is a right as much as a bound: small requests use nine tenths of every minute."""
    store = MemoryLimitStore()
    served: list[tuple[float, int]] = []
    for step in range(6_000):
        now_s = 500 + step * 0.05
        answer = store.reserve(LAYERS, 20, now_s)
        if not isinstance(answer, Refusal):
            store.settle(answer, 20, now_s)
            served.append((now_s, 20))
    assert most_in_a_minute(served) == LIMIT
    assert sum(tokens for _, tokens in served) >= 0.9 * LIMIT * 5
