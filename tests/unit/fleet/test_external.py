"""External engines: what counts as ready, how fast it is noticed, what is said when it is not."""

import asyncio
import socket
from collections.abc import Callable

import pytest
from aiohttp import web

from appliance.domain.clock import SystemClock
from appliance.domain.ids import DeploymentId
from appliance.fleet.external import Endpoint, Health, Prober, Target, parse_endpoint
from tests.unit.fleet.conftest import StartEngine

DEPLOYMENT = DeploymentId("dep_1")
WAIT_S = 5.0


class Asked:
    """A prober and its news."""

    def __init__(self, every_s: float = 0.2) -> None:
        self.news = asyncio.Event()
        self.prober = Prober(every_s=every_s, clock=SystemClock(), changed=self.news.set)

    async def until(self, condition: Callable[[Health], bool]) -> Health:
        async with asyncio.timeout(WAIT_S):
            while not condition(self.prober.health(DEPLOYMENT)):
                self.news.clear()
                await self.news.wait()
        return self.prober.health(DEPLOYMENT)


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://gpu1:8000", Endpoint("gpu1", 8000, False, "")),
        ("http://gpu1:8000/v1", Endpoint("gpu1", 8000, False, "")),
        ("http://gpu1:8000/v1/", Endpoint("gpu1", 8000, False, "")),
        ("https://gpu1", Endpoint("gpu1", 443, True, "")),
        ("http://gpu1/team/llm/v1", Endpoint("gpu1", 80, False, "/team/llm")),
        ("http://[::1]:9/x", Endpoint("::1", 9, False, "/x")),
    ],
)
def test_a_base_url_is_read_with_or_without_its_v1(url: str, endpoint: Endpoint) -> None:
    assert parse_endpoint(url) == endpoint


@pytest.mark.parametrize("url", ["", "gpu1:8000", "ftp://gpu1", "http://"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="http"):
        parse_endpoint(url)


def test_the_models_url_brackets_an_ipv6_address() -> None:
    assert Endpoint("::1", 9, True, "/x").models_url == "https://[::1]:9/x/v1/models"


@pytest.mark.parametrize("status", [200, 302, 401, 404, 429])
async def test_any_answer_below_500_is_ready(start_engine: StartEngine, status: int) -> None:
    seen: list[tuple[str, str | None]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((request.path, request.headers.get("Authorization")))
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    asked = Asked()
    asked.prober.watch({DEPLOYMENT: Target(parse_endpoint(await start_engine(answer)), "k1")})
    try:
        health = await asked.until(lambda h: h.asked)
    finally:
        await asked.prober.close()
    assert health.ready
    assert health.reason == ""
    assert set(seen) == {("/v1/models", "Bearer k1")}  # a redirect is not followed


async def test_an_engine_that_answers_500_is_not_ready_until_it_does_better(
    start_engine: StartEngine,
) -> None:
    status = 500

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status)

    asked = Asked()
    asked.prober.watch({DEPLOYMENT: Target(parse_endpoint(await start_engine(answer)), None)})
    try:
        health = await asked.until(lambda h: h.asked)
        assert not health.ready
        assert "answers 500" in health.reason
        status = 200
        await asked.until(lambda h: h.ready)
        status = 503
        health = await asked.until(lambda h: not h.ready)
    finally:
        await asked.prober.close()
    assert "answers 503" in health.reason


async def test_a_refused_connection_is_said_and_tried_again(start_engine: StartEngine) -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        asked = Asked()
        asked.prober.watch({DEPLOYMENT: Target(Endpoint("127.0.0.1", port, False, ""), None)})
        health = await asked.until(lambda h: h.asked)
    assert not health.ready
    assert "Connection refused" in health.reason

    async def answer(_: web.Request) -> web.Response:
        return web.Response()

    runner = web.AppRunner(web.Application())
    runner.app.router.add_get("/v1/models", answer)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
    try:
        await asked.until(lambda h: h.ready)
    finally:
        await asked.prober.close()
        await runner.cleanup()


async def test_an_engine_that_hangs_is_not_ready(start_engine: StartEngine) -> None:
    release = asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        await release.wait()
        return web.Response()

    asked = Asked(every_s=0.1)
    asked.prober.watch({DEPLOYMENT: Target(parse_endpoint(await start_engine(hang)), None)})
    try:
        health = await asked.until(lambda h: h.asked)
        assert not health.ready
        assert "does not answer within 0.1 s" in health.reason
        release.set()
        await asked.until(lambda h: h.ready)
    finally:
        release.set()
        await asked.prober.close()


async def test_what_is_no_longer_watched_is_no_longer_asked(start_engine: StartEngine) -> None:
    count = 0

    async def answer(_: web.Request) -> web.Response:
        nonlocal count
        count += 1
        return web.Response()

    asked = Asked(every_s=0.02)
    asked.prober.watch({DEPLOYMENT: Target(parse_endpoint(await start_engine(answer)), None)})
    await asked.until(lambda h: h.ready)
    asked.prober.watch({})
    assert asked.prober.health(DEPLOYMENT) == Health()
    await asked.prober.close()
    at_close = count
    await asyncio.sleep(0.1)  # five times the interval: any question would come in it
    assert count == at_close
