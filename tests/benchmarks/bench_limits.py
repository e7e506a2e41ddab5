"""What limits and placement cost one request, in CPU time of this process.

    python -m tests.benchmarks.bench_limits

Not a test: it prints microseconds and judges nothing. Time passes in the benchmark as it would
at 500 requests a second, so windows move on.
"""

import time
from collections.abc import Callable
from typing import Final

from appliance.domain.ids import DeploymentId
from appliance.domain.limits import Layer, LayerLimits, Limits
from appliance.limits.estimate import PromptEstimator
from appliance.limits.memory import MemoryLimitStore
from appliance.limits.reservation import Refusal, Reservation
from appliance.scheduler.scheduler import Scheduler
from appliance.scheduler.tickets import Outcome
from appliance.settings import Scheduling
from tests.fakes.replicas import DEPLOYMENT, target, ticket

REQUESTS: Final = 50_000
STEP_S: Final = 0.002
MUCH: Final = 10**12

TENANT: Final = LayerLimits(
    Layer.TENANT, "ten_1", Limits(requests_per_min=MUCH, tokens_per_day=MUCH)
)
KEY: Final = LayerLimits(
    Layer.KEY,
    "key_1",
    Limits(requests_per_min=MUCH, tokens_per_min=MUCH, tokens_per_day=MUCH, concurrency=MUCH),
)


def reserve_and_settle(layers: tuple[LayerLimits, ...]) -> Callable[[float], None]:
    store = MemoryLimitStore()

    def once(now_s: float) -> None:
        reservation = store.reserve(layers, 100, now_s)
        assert isinstance(reservation, Reservation)
        store.settle(reservation, 60, now_s)

    return once


def refuse() -> Callable[[float], None]:
    store = MemoryLimitStore()
    layers = (TENANT, LayerLimits(Layer.KEY, "key_1", Limits(tokens_per_day=1)))

    def once(now_s: float) -> None:
        answer = store.reserve(layers, 100, now_s)
        if not isinstance(answer, Refusal):
            store.settle(answer, 60, now_s)

    return once


def estimate() -> Callable[[float], None]:
    estimator, deployment = PromptEstimator(), DeploymentId("dep_1")

    def once(now_s: float) -> None:
        estimator.estimate(deployment, 900, 8_192)
        estimator.observe(deployment, 900, 200)

    return once


def place(replicas: int) -> Callable[[float], None]:
    scheduler = Scheduler(Scheduling())
    targets = [target(f"rep_{n}", slots=None) for n in range(replicas)]
    scheduler.set_replicas(DEPLOYMENT, targets, 0.0)

    def once(now_s: float) -> None:
        one = ticket()
        scheduler.arrive(one, now_s)
        scheduler.first_byte(one, now_s)
        scheduler.finish(one, Outcome.OK, 60, now_s + 0.1)

    return once


def queue(tenants: int) -> Callable[[float], None]:
    """Every request waits, and starts when the one before it has ended."""
    scheduler = Scheduler(Scheduling(queue_length_max=tenants + 1))
    scheduler.set_replicas(DEPLOYMENT, [target("rep_1", slots=1)], 0.0)
    running = ticket()
    scheduler.arrive(running, 0.0)
    for n in range(tenants):
        scheduler.arrive(ticket(f"ten_{n}"), 0.0)
    count = 0

    def once(now_s: float) -> None:
        nonlocal running, count
        count += 1
        scheduler.arrive(ticket(f"ten_{count % tenants}"), now_s)
        (start,) = scheduler.finish(running, Outcome.OK, 60, now_s)
        running = start.ticket

    return once


def cpu_us(once: Callable[[float], None]) -> float:
    """The best of three rounds: what disturbs a round only ever adds to it."""
    best = float("inf")
    now_s = 1_000.0
    for _ in range(3):
        begin = time.process_time()
        for _ in range(REQUESTS):
            now_s += STEP_S
            once(now_s)
        best = min(best, time.process_time() - begin)
    return best / REQUESTS * 1e6


def main() -> None:
    cases = {
        "reserve + settle, nothing limited": reserve_and_settle(()),
        "reserve + settle, one layer": reserve_and_settle((TENANT,)),
        "reserve + settle, two layers": reserve_and_settle((TENANT, KEY)),
        "refuse": refuse(),
        "estimate + observe": estimate(),
        "arrive + first byte + finish, 1 replica": place(1),
        "arrive + first byte + finish, 8 replicas": place(8),
        "the same through the queue, 200 tenants": queue(200),
    }
    for name, once in cases.items():
        print(f"{name:45} {cpu_us(once):6.2f} µs")


if __name__ == "__main__":
    main()
