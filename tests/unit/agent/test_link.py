"""The conversation with the appliance, over a real socket with an appliance of the test's own."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from agent.link import Link
from agent.ways import SocketWay
from appliance.wire.agent import (
    Desired,
    DesiredReplica,
    Heartbeat,
    Hello,
    Refusal,
    ReplicaReport,
    Welcome,
)

WAIT_S = 5.0
HELLO = Hello(
    node_name="n1", agent_version="0", boot_id="b", cores=2, memory_bytes=1, engines=("llamacpp",)
)
DESIRED = DesiredReplica(
    replica_id="rep_1",
    deployment_id="dep_1",
    generation=1,
    engine="llamacpp",
    model_name="m",
    model_path="/m.gguf",
)
REPORT = ReplicaReport(replica_id="rep_1", deployment_id="dep_1", generation=1, state="starting")


class Appliance:
    """Answers hellos and heartbeats, or refuses them, as the test says."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.hellos: list[Hello] = []
        self.heartbeats: list[Heartbeat] = []
        self.knows_node = True
        self.heartbeat_s = 30.0
        self.runner: web.AppRunner | None = None
        self.news = asyncio.Event()

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/agent/v1/hello", self.hello)
        app.router.add_post("/agent/v1/heartbeat", self.heartbeat)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.UnixSite(self.runner, str(self.path)).start()

    async def stop(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()
            self.runner = None

    async def hello(self, request: web.Request) -> web.Response:
        self.hellos.append(msgspec.json.decode(await request.read(), type=Hello))
        self.knows_node = True
        self.news.set()
        welcome = Welcome(node_id="nod_1", heartbeat_s=self.heartbeat_s)
        return web.Response(body=msgspec.json.encode(welcome))

    async def heartbeat(self, request: web.Request) -> web.Response:
        if not self.knows_node:
            refusal = Refusal(code="unknown_node", message="Who?")
            return web.Response(status=404, body=msgspec.json.encode(refusal))
        self.heartbeats.append(msgspec.json.decode(await request.read(), type=Heartbeat))
        self.news.set()
        return web.Response(body=msgspec.json.encode(Desired(replicas=(DESIRED,))))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self.news.clear()
                await self.news.wait()


class Talk:
    def __init__(self, path: Path) -> None:
        self.link = Link(SocketWay(path), HELLO)
        self.wanted: list[Desired] = []
        self.reports: tuple[ReplicaReport, ...] = (REPORT,)
        self.task = asyncio.create_task(self.link.run(lambda: self.reports, self.wanted.append))

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
async def appliance(tmp_path: Path) -> AsyncIterator[Appliance]:
    appliance = Appliance(tmp_path / "agent.sock")
    yield appliance
    await appliance.stop()


@pytest.fixture
async def talk(appliance: Appliance) -> AsyncIterator[Talk]:
    talk = Talk(appliance.path)
    yield talk
    await talk.stop()


async def test_it_introduces_itself_reports_and_hears_also_when_the_appliance_comes_late(
    appliance: Appliance, talk: Talk
) -> None:
    await asyncio.sleep(0)  # the link runs, and nobody is there
    await appliance.start()
    await appliance.until(lambda: bool(appliance.heartbeats))
    assert appliance.hellos == [HELLO]
    (first,) = appliance.heartbeats
    assert first == Heartbeat(node_id="nod_1", replicas=(REPORT,), sent_ns=first.sent_ns)
    assert abs(time.time_ns() - (first.sent_ns or 0)) < 60 * 1_000_000_000
    await appliance.until(lambda: True)
    async with asyncio.timeout(WAIT_S):
        await talk.link.told()
    assert talk.wanted[0].replicas == (DESIRED,)


async def test_a_change_is_told_at_once_and_told_returns_after_it(
    appliance: Appliance, talk: Talk
) -> None:
    await appliance.start()
    await appliance.until(lambda: bool(appliance.heartbeats))
    ready = msgspec.structs.replace(REPORT, state="draining")
    talk.reports = (ready,)
    async with asyncio.timeout(WAIT_S):  # far less than the heartbeat's interval
        await talk.link.told()
    assert appliance.heartbeats[-1].replicas == (ready,)


async def test_an_appliance_that_lost_its_memory_is_greeted_again(
    appliance: Appliance, talk: Talk
) -> None:
    appliance.heartbeat_s = 0.01
    await appliance.start()
    await appliance.until(lambda: bool(appliance.heartbeats))
    appliance.knows_node = False
    await appliance.until(lambda: len(appliance.hellos) == 2)


async def test_an_appliance_that_went_away_is_found_again(appliance: Appliance, talk: Talk) -> None:
    appliance.heartbeat_s = 0.01
    await appliance.start()
    await appliance.until(lambda: bool(appliance.heartbeats))
    await appliance.stop()
    count = len(appliance.heartbeats)
    await appliance.start()
    await appliance.until(lambda: len(appliance.heartbeats) > count)
    assert not talk.task.done()
