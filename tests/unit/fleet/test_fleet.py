"""The fleet over a real registry, a real scheduler, its real socket and real HTTP engines."""

import asyncio
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp import web

from appliance.domain.clock import SystemClock
from appliance.domain.ids import NodeId, TenantId
from appliance.fleet.service import Fleet
from appliance.fleet.sessions import Origin, Session
from appliance.fleet.view import node_view
from appliance.registry.registry import Registry
from appliance.scheduler.scheduler import Scheduler
from appliance.scheduler.tickets import Effect, Placed, Shed, ShedReason, Ticket
from appliance.settings import Fleet as FleetSettings
from appliance.settings import Scheduling
from appliance.wire.agent import Desired, Heartbeat, Hello, Refusal, ReplicaReport, Welcome
from tests.fakes.tiny_gguf import write_tiny_gguf
from tests.unit.fleet.conftest import StartEngine

WAIT_S = 5.0
SETTINGS = FleetSettings(heartbeat_s=0.05, node_lost_s=0.4, probe_s=0.2)


class Site:
    """A fleet at work, and an agent's side of its socket."""

    def __init__(self, registry: Registry, socket: Path) -> None:
        self.registry = registry
        self.socket = socket
        self.scheduler = Scheduler(Scheduling())
        self.effects: list[Effect] = []
        self.clock = SystemClock()
        self.fleet = Fleet(
            registry=registry,
            scheduler=self.scheduler,
            apply=self.effects.extend,
            settings=SETTINGS,
            clock=self.clock,
            socket=socket,
        )

    async def post(self, path: str, message: msgspec.Struct) -> tuple[int, bytes]:
        connector = aiohttp.UnixConnector(str(self.socket))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.post(f"http://appliance{path}", data=msgspec.json.encode(message)) as answer,
        ):
            return answer.status, await answer.read()

    async def hello(self, name: str = "n1") -> Welcome:
        message = Hello(
            node_name=name,
            agent_version="0",
            boot_id="b",
            cores=2,
            memory_bytes=1,
            engines=("llamacpp",),
        )
        status, body = await self.post("/agent/v1/hello", message)
        assert status == 200, body
        return msgspec.json.decode(body, type=Welcome)

    async def heartbeat(self, node_id: str, *reports: ReplicaReport) -> Desired:
        message = Heartbeat(node_id=node_id, replicas=reports)
        status, body = await self.post("/agent/v1/heartbeat", message)
        assert status == 200, body
        return msgspec.json.decode(body, type=Desired)

    def state(self, deployment_id: str) -> str:
        seen = self.fleet.deployment(deployment_id)  # type: ignore[arg-type]  # a NewType of str
        return "" if seen is None else seen.state

    def arrive(self, deployment_id: str) -> object:
        ticket = Ticket(deployment_id, TenantId("ten_1"), 10)  # type: ignore[arg-type]  # the same
        return self.scheduler.arrive(ticket, self.clock.monotonic_s())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - the state of a real service, which tells nobody
            await asyncio.sleep(0.01)


@pytest.fixture
async def site(registry: Registry, tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(registry, tmp_path / "agent.sock")
    await site.fleet.start()
    task = asyncio.create_task(site.fleet.run())
    yield site
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await site.fleet.stop()


async def test_an_external_engine_serves_soon_after_its_creation(
    site: Site, start_engine: StartEngine
) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response()

    url = await start_engine(answer)
    row = await site.registry.deployments.create(
        "test", "m", "external", url=f"{url}/v1", api_key="sk-x"
    )
    await until(lambda: site.state(row.id) == "ready")
    placed = site.arrive(row.id)
    assert isinstance(placed, Placed)
    assert f"{placed.target.host}:{placed.target.port}" == url.removeprefix("http://")
    assert placed.target.api_key == "sk-x"
    assert placed.target.base_path == ""
    await site.registry.deployments.suspend("test", row.id)
    await until(lambda: site.state(row.id) == "suspended")
    assert isinstance(site.arrive(row.id), Shed)
    await site.registry.deployments.resume("test", row.id)
    await until(lambda: site.state(row.id) == "ready")
    await site.registry.deployments.delete("test", row.id)
    await until(lambda: site.state(row.id) == "")
    assert isinstance(site.arrive(row.id), Shed)


async def test_a_dead_external_engine_is_failed_with_the_reason(site: Site) -> None:
    row = await site.registry.deployments.create(
        "test", "m", "external", url="http://127.0.0.1:1", api_key=None
    )
    await until(lambda: site.state(row.id) == "failed")
    seen = site.fleet.deployment(row.id)
    assert seen is not None
    assert "Connection refused" in seen.reason
    assert seen.replicas[0].state == "failed"
    shed = site.arrive(row.id)
    assert isinstance(shed, Shed)
    assert shed.reason is ShedReason.UNAVAILABLE


async def test_an_agent_is_told_its_replicas_and_they_serve_when_it_reports_them_ready(
    site: Site, tmp_path: Path
) -> None:
    model = await site.registry.models.register("test", None, write_tiny_gguf(tmp_path / "m.gguf"))
    row = await site.registry.deployments.create("test", "m", "llamacpp", model=model.name)
    await until(lambda: site.state(row.id) == "pending")
    seen = site.fleet.deployment(row.id)
    assert seen is not None
    assert seen.reason.startswith("No node is ready")
    welcome = await site.hello()
    await until(lambda: site.state(row.id) == "starting")
    desired = await site.heartbeat(welcome.node_id)
    (replica,) = desired.replicas
    assert replica.deployment_id == row.id
    assert replica.model_path == model.path
    shed = site.arrive(row.id)
    assert isinstance(shed, Shed)
    assert shed.reason is ShedReason.MODEL_LOADING
    report = ReplicaReport(
        replica_id=replica.replica_id,
        deployment_id=row.id,
        generation=replica.generation,
        state="ready",
        host="127.0.0.1",
        port=4000,
        slots=4,
        prompt_tokens_per_byte=0.3,
    )
    await site.heartbeat(welcome.node_id, report)
    assert isinstance(site.arrive(row.id), Placed)
    assert site.state(row.id) == "ready"
    assert site.fleet.prompt_tokens_per_byte(row.id) == 0.3
    # Silence takes it out of service; a word brings it back, and it is still wanted there.
    await until(lambda: site.state(row.id) == "failed")
    assert isinstance(site.arrive(row.id), Shed)
    desired = await site.heartbeat(welcome.node_id, report)
    assert [r.replica_id for r in desired.replicas] == [replica.replica_id]
    assert isinstance(site.arrive(row.id), Placed)


async def test_what_is_refused_on_the_socket(site: Site) -> None:
    assert stat.S_IMODE(site.socket.stat().st_mode) == 0o660
    unknown = Heartbeat(node_id="nod_x", replicas=())
    status, body = await site.post("/agent/v1/heartbeat", unknown)
    assert (status, msgspec.json.decode(body, type=Refusal).code) == (404, "unknown_node")
    old = Heartbeat(version=99, node_id="nod_x", replicas=())
    status, body = await site.post("/agent/v1/heartbeat", old)
    assert (status, msgspec.json.decode(body, type=Refusal).code) == (426, "unsupported_version")
    status, body = await site.post("/agent/v1/hello", unknown)
    assert (status, msgspec.json.decode(body, type=Refusal).code) == (400, "bad_report")
    welcome = await site.hello()
    for report in (
        ReplicaReport(
            replica_id="r", deployment_id="d", generation=1, state="ready", host="10.0.0.9", port=80
        ),
        ReplicaReport(
            replica_id="r", deployment_id="d", generation=1, state="ready", host="127.0.0.1", port=0
        ),
        ReplicaReport(replica_id="r", deployment_id="d", generation=1, state="ready"),
    ):
        message = Heartbeat(node_id=welcome.node_id, replicas=(report,))
        status, body = await site.post("/agent/v1/heartbeat", message)
        assert (status, msgspec.json.decode(body, type=Refusal).code) == (400, "bad_report")


async def test_what_is_answered_to_a_change_of_a_node_is_what_came_of_it(site: Site) -> None:
    """Without a pause: the fleet has heard of the change when `caught_up` returns."""
    welcome = await site.hello()
    await site.heartbeat(welcome.node_id)
    node_id = NodeId(welcome.node_id)
    at_ns = site.clock.wall_ns() + 600 * 10**9

    await site.registry.notices.give("0:test", "n1", at_ns, "new fans")
    await site.fleet.caught_up()
    seen = site.fleet.node(node_id)
    assert seen is not None
    assert (seen.state, "ends at" in seen.reason) == ("maintenance", True)  # and nothing runs there

    await site.registry.notices.withdraw("0:test", "n1")
    await site.fleet.caught_up()
    seen = site.fleet.node(node_id)
    assert seen is not None
    assert (seen.state, seen.notice) == ("ready", None)


async def test_a_silent_node_says_when_it_was_heard_and_where_to_look(site: Site) -> None:
    node_id = NodeId((await site.hello()).node_id)

    def reason() -> str:
        seen = site.fleet.node(node_id)
        return seen.reason if seen is not None and seen.state == "unreachable" else ""

    await until(lambda: bool(reason()))
    assert "heard last at 20" in reason()
    assert "`cic agent` or `cic serve --with-agent`" in reason()


def test_of_a_silent_node_of_another_host_the_way_to_it_is_named() -> None:
    hello = Hello(
        node_name="far",
        agent_version="0",
        boot_id="b",
        cores=2,
        memory_bytes=1,
        engines=("llamacpp",),
    )
    node_id = NodeId("nod_1")
    session = Session(node_id, hello, 0.0, 10**18, Origin(node_id, "192.0.2.7"))
    seen = node_view(session, "serving", lost=True)
    assert seen.reason.startswith("It was heard last at 2001-09-09T01:46:40.000Z. It spoke from")
    assert "192.0.2.7: see whether the machine is on, its cable, the firewall" in seen.reason
