"""A gateway in front of engines on other hosts: requests go through doors, over mutual TLS."""

import asyncio
import ssl

import pytest
import uvloop

from appliance.domain.errors import CrossLogicError
from appliance.domain.ids import NodeId, ReplicaId
from appliance.domain.tls_names import replica_name
from tests.fakes.certificates import Authority
from tests.fakes.doors import open_door
from tests.fakes.endpoint import chat, endpoint, settings, target
from tests.fakes.engine import FaultEngine, engine_in_thread

NODE = NodeId("nod_0123456789abcdef01234567")
OTHER = NodeId("nod_fedcba9876543210fedcba98")
REPLICA = ReplicaId("rep_0123456789abcdef01234567")
SECOND = ReplicaId("rep_fedcba9876543210fedcba98")


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def site_tls(authority):
    context = authority.appliance().client()
    return lambda: context


@pytest.fixture
async def engine():
    async with FaultEngine() as running:
        yield running


def behind(port, replica_id=REPLICA, node_id=NODE):
    """The replica as it is told to the gateway when it stands behind a door."""
    return target(port, replica_id, tls=True, server_name=replica_name(replica_id, node_id))


async def test_an_answer_and_a_stream_come_through_the_door(tmp_path, authority, site_tls, engine):
    async with (
        open_door(tmp_path / "door", authority, NODE, {REPLICA: engine.port}) as port,
        endpoint(behind(port), site_tls=site_tls) as site,
    ):
        answer = await site.ask(chat())
        assert answer.status == 200
        assert answer.json["usage"]["completion_tokens"] == 5
        stream = await site.ask(chat(stream=True))
        assert stream.events[-1] == "[DONE]"
        assert len(engine.requests) == 2
        assert engine.connections_made == 1  # the connection is kept, and so is what is behind it


async def test_a_large_question_and_a_large_answer_come_whole(
    tmp_path, authority, site_tls, engine
):
    words = "many words " * 200_000
    async with (
        open_door(tmp_path / "door", authority, NODE, {REPLICA: engine.port}) as port,
        endpoint(behind(port), site_tls=site_tls) as site,
    ):
        answer = await site.ask(
            chat(messages=[{"role": "user", "content": words}], max_tokens=2000)
        )
        assert answer.status == 200
        assert answer.json["usage"]["completion_tokens"] == 2000
        assert answer.json["usage"]["prompt_tokens"] >= 400_000


async def test_a_node_that_shows_another_nodes_certificate_gets_no_request(
    tmp_path, authority, site_tls, engine
):
    async with (
        open_door(
            tmp_path / "door", authority, NODE, {REPLICA: engine.port}, as_node=OTHER
        ) as port,
        endpoint(behind(port), site_tls=site_tls) as site,
    ):
        assert (await site.ask(chat())).status == 503
        assert engine.requests == []


async def test_an_engine_of_another_site_gets_no_request(tmp_path, site_tls, engine):
    foreign = Authority(tmp_path, "foreign")
    async with (
        open_door(tmp_path / "door", foreign, NODE, {REPLICA: engine.port}) as port,
        endpoint(behind(port), site_tls=site_tls) as site,
    ):
        assert (await site.ask(chat())).status == 503
        assert engine.requests == []


async def test_an_engine_without_tls_gets_no_request_where_a_door_is_expected(site_tls, engine):
    quick = settings(timeouts={"connect_s": 0.5})
    async with endpoint(behind(engine.port), site_tls=site_tls, using=quick) as site:
        assert (await site.ask(chat())).code == "model_unavailable"
        assert engine.requests == []


async def test_what_one_replica_cannot_the_other_does(tmp_path, authority, site_tls, engine):
    """The engine of the first is dead behind the door, the second's is well."""
    engines = {REPLICA: 1, SECOND: engine.port}
    async with (
        open_door(tmp_path / "door", authority, NODE, engines) as port,
        endpoint(behind(port), behind(port, SECOND), site_tls=site_tls) as site,
    ):
        answers = [await site.ask(chat()) for _ in range(4)]
        assert {answer.status for answer in answers} == {200}
        assert site.gateway.stats.retries >= 1


async def test_connections_of_two_replicas_behind_one_door_are_not_mixed_up(
    tmp_path, authority, site_tls
):
    async with FaultEngine() as first, FaultEngine() as second:
        engines = {REPLICA: first.port, SECOND: second.port}
        async with (
            open_door(tmp_path / "door", authority, NODE, engines) as port,
            endpoint(behind(port), behind(port, SECOND), site_tls=site_tls) as site,
        ):
            for _ in range(3):
                site.serve_from(behind(port))
                assert (await site.ask(chat())).status == 200
                site.serve_from(behind(port, SECOND))
                assert (await site.ask(chat())).status == 200
            assert (len(first.requests), len(second.requests)) == (3, 3)


async def test_a_client_that_leaves_stops_the_engine_within_half_a_second(
    tmp_path, authority, site_tls
):
    async with (
        FaultEngine(token_s=0.05) as engine,
        open_door(tmp_path / "door", authority, NODE, {REPLICA: engine.port}) as port,
        endpoint(behind(port), site_tls=site_tls) as site,
    ):
        reader, writer = await site.connect()
        writer.write(site.request(chat(stream=True, max_tokens=1000)))
        await reader.readuntil(b"data: ")
        writer.transport.abort()
        await engine.seen(lambda requests: requests[0].closed_at is not None, 0.5)


def test_on_the_event_loop_that_serves_a_client_that_leaves_stops_the_engine_too(
    tmp_path, authority, site_tls
):
    """uvloop has a TLS of its own."""

    async def leave(engine):
        async with (
            open_door(tmp_path / "door", authority, NODE, {REPLICA: engine.port}) as port,
            endpoint(behind(port), site_tls=site_tls) as site,
        ):
            reader, writer = await site.connect()
            writer.write(site.request(chat(stream=True, max_tokens=1000)))
            await reader.readuntil(b"data: ")
            writer.transport.abort()
            await engine.seen(lambda requests: requests[0].closed_at is not None, 0.5)

    with engine_in_thread(FaultEngine(token_s=0.05)) as engine:
        uvloop.run(leave(engine))


async def test_an_engine_that_dies_in_a_stream_leaves_no_done(tmp_path, authority, site_tls):
    async with (
        FaultEngine(token_s=0.02) as engine,
        open_door(tmp_path / "door", authority, NODE, {REPLICA: engine.port}) as port,
        endpoint(behind(port), site_tls=site_tls) as site,
    ):
        reader, writer = await site.connect()
        writer.write(site.request(chat(stream=True, max_tokens=1000)))
        await reader.readuntil(b"data: ")
        await engine.stop()
        async with asyncio.timeout(5):
            rest = await reader.readuntil(b"0\r\n\r\n")
        assert b"engine_error" in rest
        assert b"[DONE]" not in rest
        await engine.start()


async def test_a_gateway_without_a_certificate_says_so(engine, tmp_path, authority):
    async with (
        open_door(tmp_path / "door", authority, NODE, {REPLICA: engine.port}) as port,
        endpoint(behind(port)) as site,
    ):
        assert (await site.ask(chat())).status == 503

    class Broken(CrossLogicError):
        code = "broken"

    def no_context() -> ssl.SSLContext:
        raise Broken("The certificate cannot be read.")

    async with endpoint(behind(port), site_tls=no_context) as site:
        answer = await site.ask(chat())
        assert (answer.status, answer.code) == (503, "model_unavailable")
        assert answer.headers["retry-after"] == "5"
    assert engine.requests == []


async def test_an_external_engine_is_not_shown_the_sites_certificate(engine):
    def never() -> ssl.SSLContext:
        pytest.fail("asked for the site's certificate")

    plain = target(engine.port, tls=True, server_name=None)
    async with endpoint(plain, site_tls=never, using=settings(timeouts={"connect_s": 1.0})) as site:
        assert (await site.ask(chat())).status in {502, 504}


async def test_a_door_that_lets_nobody_in_is_not_waited_for(site_tls):
    """It takes the connection and says nothing, like a machine that hangs."""
    guests = []
    silent = await asyncio.start_server(
        lambda reader, writer: guests.append(writer), "127.0.0.1", 0
    )
    port = silent.sockets[0].getsockname()[1]
    async with (
        FaultEngine() as engine,
        endpoint(
            behind(port),
            target(engine.port, SECOND),
            site_tls=site_tls,
            using=settings(timeouts={"connect_s": 0.3}),
        ) as site,
    ):
        for _ in range(3):
            assert (await site.ask(chat())).status == 200
    silent.close()
    for writer in guests:
        writer.transport.abort()
