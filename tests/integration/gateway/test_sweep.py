"""The watch over deadlines goes on, whatever is wrong with one of those it watches."""

import asyncio

from tests.fakes.endpoint import endpoint, target
from tests.fakes.engine import FaultEngine


class Faulty:
    """Something among the running requests whose every check fails."""

    def check(self, _now_s: float) -> None:
        raise RuntimeError("a defect")

    def stop(self) -> None:
        pass


class Watched(Faulty):
    def __init__(self) -> None:
        self.looked_at = asyncio.Event()

    def check(self, _now_s: float) -> None:
        self.looked_at.set()


async def test_one_that_fails_hides_none_of_the_others() -> None:
    async with FaultEngine() as engine, endpoint(target(engine.port)) as site:
        running = site.gateway._running
        watched = [Watched() for _ in range(8)]
        faulty = [Faulty() for _ in range(8)]  # a set has no order: some come before, some after
        running.update(watched, faulty)
        try:
            async with asyncio.timeout(5):
                for one in watched:
                    await one.looked_at.wait()
        finally:
            running.difference_update(watched, faulty)
