"""Who may speak for a node: over TLS its certificate says so, on the unix socket this host does."""

import asyncio

import pytest

from appliance.domain.clock import SystemClock
from appliance.domain.ids import NodeId
from appliance.domain.tls_names import replica_name
from appliance.fleet.errors import BadReport, ForeignNode
from appliance.fleet.service import Fleet
from appliance.fleet.sessions import LOCAL, Origin
from appliance.registry.errors import NotFound
from appliance.scheduler.scheduler import Scheduler
from appliance.security.site_ca import Issued
from appliance.settings import Fleet as FleetSettings
from appliance.settings import Scheduling
from appliance.wire.agent import EngineCount, Heartbeat, Hello, ReplicaReport
from tests.fakes.tiny_gguf import write_tiny_gguf


@pytest.fixture
async def counted():
    return []


@pytest.fixture
async def fleet(registry, tmp_path, counted):
    fleet = Fleet(
        registry=registry,
        scheduler=Scheduler(Scheduling()),
        apply=lambda _: None,
        settings=FleetSettings(heartbeat_s=0.05, node_lost_s=30.0),
        clock=SystemClock(),
        socket=tmp_path / "agent.sock",
        counted=counted.append,
    )
    await fleet.start()
    task = asyncio.create_task(fleet.run())
    yield fleet
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await fleet.stop()


async def join(registry, name, host):
    """A node that joined with a token: its row, and where it speaks from."""
    _, token = await registry.node_tokens.create("test", ttl_s=3_600)
    identifier, secret = token.split(".")
    now_ns = SystemClock().wall_ns()

    def issue(_node_id):
        return Issued(f"{name}-1", "pem", now_ns, now_ns + 3_600 * 10**9)

    row, _, _ = await registry.node_tokens.redeem("join", identifier, secret, name, name, issue)
    return Origin(row.id, host)


@pytest.fixture
async def far(registry):
    return await join(registry, "far", "192.0.2.7")


@pytest.fixture
async def deployment(registry, tmp_path):
    model = await registry.models.register("test", None, write_tiny_gguf(tmp_path / "m.gguf"))
    return await registry.deployments.create("test", "m", "llamacpp", model=model.id)


def hello(name="far"):
    return Hello(
        node_name=name,
        agent_version="1",
        boot_id="b",
        cores=4,
        memory_bytes=1,
        engines=("llamacpp",),
    )


def ready(desired, **changes):
    fields = {"state": "ready", "host": "127.0.0.1", "port": 4711} | changes
    return ReplicaReport(
        replica_id=desired.replica_id,
        deployment_id=desired.deployment_id,
        generation=desired.generation,
        **fields,
    )


async def beat(fleet, origin, node_id, *reports, **other):
    return await fleet.heartbeat(
        Heartbeat(node_id=node_id, replicas=tuple(reports), **other), origin
    )


async def placed(fleet, origin):
    """The replica the node is told to run, as soon as it is."""
    async with asyncio.timeout(10):
        while True:
            desired = await beat(fleet, origin, origin.node_id)
            if desired.replicas:
                return desired.replicas[0]
            await asyncio.sleep(0.02)


async def test_a_node_is_who_its_certificate_says_whatever_it_calls_itself(fleet, far, registry):
    welcome = await fleet.hello(hello("somebody-else"), far)
    assert welcome.node_id == far.node_id
    assert [row.name for row in await registry.nodes.list()] == ["far"]


async def test_a_node_that_was_removed_is_nobody(fleet, far, registry):
    await registry.nodes.delete("test", "far")
    with pytest.raises(NotFound):
        await fleet.hello(hello(), far)


async def test_a_node_speaks_for_itself_alone(fleet, far, registry):
    other = await join(registry, "other", "192.0.2.8")
    await fleet.hello(hello(), far)
    await fleet.hello(hello("other"), other)
    with pytest.raises(ForeignNode):
        await beat(fleet, far, other.node_id)
    local = await fleet.hello(hello("here"), LOCAL)
    with pytest.raises(ForeignNode):
        await beat(fleet, far, NodeId(local.node_id))


async def test_an_agent_of_this_host_does_not_speak_for_a_node_that_joined(fleet, far):
    await fleet.hello(hello(), far)
    with pytest.raises(ForeignNode):
        await fleet.hello(hello("far"), LOCAL)
    with pytest.raises(ForeignNode):
        await beat(fleet, LOCAL, far.node_id)


async def test_a_certificate_wins_over_an_agent_of_this_host_that_came_first(fleet, far):
    first = await fleet.hello(hello("far"), LOCAL)
    assert first.node_id == far.node_id  # by its name
    await fleet.hello(hello(), far)
    with pytest.raises(ForeignNode):
        await beat(fleet, LOCAL, far.node_id)
    await beat(fleet, far, far.node_id)


async def test_an_engine_of_another_host_is_reached_through_its_door(fleet, far, deployment):
    await fleet.hello(hello(), far)
    desired = await placed(fleet, far)
    await beat(fleet, far, far.node_id, ready(desired), door_port=8445)
    (target,) = fleet.statuses()[deployment.id].targets
    assert (target.host, target.port, target.tls) == ("192.0.2.7", 8445, True)
    assert target.server_name == replica_name(desired.replica_id, far.node_id)
    assert fleet.deployment(deployment.id).replicas[0].address == "192.0.2.7:8445"


async def test_an_engine_whose_nodes_door_is_shut_serves_nobody(fleet, far, deployment):
    await fleet.hello(hello(), far)
    desired = await placed(fleet, far)
    await beat(fleet, far, far.node_id, ready(desired))
    status = fleet.statuses()[deployment.id]
    assert status.targets == ()
    assert "door" in status.replicas[0].reason
    await beat(fleet, far, far.node_id, ready(desired), door_port=8445)
    assert len(fleet.statuses()[deployment.id].targets) == 1


async def test_a_node_that_was_renumbered_is_reached_where_it_speaks_from(fleet, far, deployment):
    await fleet.hello(hello(), far)
    desired = await placed(fleet, far)
    await beat(fleet, far, far.node_id, ready(desired), door_port=8445)
    moved = Origin(far.node_id, "2001:db8::7")
    await beat(fleet, moved, far.node_id, ready(desired), door_port=8445)
    (target,) = fleet.statuses()[deployment.id].targets
    assert target.host == "2001:db8::7"
    assert fleet.deployment(deployment.id).replicas[0].address == "[2001:db8::7]:8445"


@pytest.mark.parametrize(
    "changes",
    [
        {"host": "192.0.2.9"},  # its own network, even
        {"host": "169.254.169.254"},
        {"host": "metadata.internal"},
        {"port": 0},
        {"port": 65_536},
    ],
)
async def test_an_address_that_a_node_makes_up_is_refused(fleet, far, deployment, changes):
    await fleet.hello(hello(), far)
    desired = await placed(fleet, far)
    with pytest.raises(BadReport):
        await beat(fleet, far, far.node_id, ready(desired, **changes), door_port=8445)


@pytest.mark.parametrize("port", [0, -1, 65_536])
async def test_a_door_has_a_port(fleet, far, port):
    await fleet.hello(hello(), far)
    with pytest.raises(BadReport):
        await beat(fleet, far, far.node_id, door_port=port)


async def test_a_node_reports_and_counts_for_its_own_replicas_alone(
    fleet, far, registry, deployment, counted
):
    await fleet.hello(hello(), far)
    desired = await placed(fleet, far)
    liar = await join(registry, "other", "192.0.2.66")
    await fleet.hello(hello("other"), liar)
    count = EngineCount(
        replica_id=desired.replica_id,
        incarnation="1-1",
        prompt_tokens=9,
        generated_tokens=9,
        waiting=2,
        cache_used=0.25,
        tokens_per_s=80.0,
    )
    await beat(fleet, liar, liar.node_id, ready(desired), door_port=8445, counts=(count,))
    assert fleet.statuses()[deployment.id].targets == ()
    assert counted == []
    await beat(fleet, far, far.node_id, ready(desired), door_port=8445, counts=(count,))
    assert [reading.generated_tokens for reading in counted] == [9]
    (replica,) = fleet.deployment(deployment.id).replicas
    assert (replica.requests_waiting, replica.output_tokens_per_s) == (2, 80.0)
    assert replica.cache_used_percent == 25.0
    (target,) = fleet.statuses()[deployment.id].targets
    assert target.host == "192.0.2.7"
