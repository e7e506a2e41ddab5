"""The door of a node: who is let in, to which engine, and how connections end."""

import asyncio
import contextlib
import datetime
import socket
import ssl
from collections.abc import AsyncIterator, Callable

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from agent.door import OPEN_FILE, PLAN_FILE, Door, Opened, Papers, Plan, Route
from agent.durable import read_message, write_message
from appliance.domain.ids import NodeId, ReplicaId
from appliance.domain.tls_names import APPLIANCE_NAME, node_name, replica_name
from tests.fakes.certificates import Authority

NODE = NodeId("nod_0123456789abcdef01234567")
REPLICA = ReplicaId("rep_0123456789abcdef01234567")
NAME = replica_name(REPLICA, NODE)
WAIT_S = 10.0


class Engine:
    """Listens on the loopback; gives each connection to whoever asks for it."""

    def __init__(self) -> None:
        self.guests: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = (
            asyncio.Queue()
        )

    async def start(self) -> None:
        async def arrive(reader, writer):
            await self.guests.put((reader, writer))

        self._server = await asyncio.start_server(arrive, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def guest(self):
        async with asyncio.timeout(WAIT_S):
            return await self.guests.get()

    def stop(self) -> None:
        self._server.close()


class House:
    """A door in this process, its engine and its CA."""

    def __init__(self, tmp_path) -> None:
        self.folder = tmp_path / "door"
        self.folder.mkdir()
        self.authority = Authority(tmp_path)
        self.appliance = self.authority.appliance()
        self.engine = Engine()
        self.routes: dict[str, Route] = {}

    def plan(self, **other) -> Plan:
        file = str(self.authority.folder / f"site-{NODE}.pem")
        settings = {
            "address": "127.0.0.1",
            "port": None,
            "certificate_file": file,
            "key_file": file,
            "ca_file": str(self.authority.file),
            "routes": self.routes,
        }
        return Plan(**(settings | other))

    def write(self, **other) -> None:
        write_message(self.folder / PLAN_FILE, self.plan(**other))

    async def call(self, context: ssl.SSLContext | None = None, name: str = NAME):
        async with asyncio.timeout(WAIT_S):
            return await asyncio.open_connection(
                "127.0.0.1",
                self.opened.port,
                ssl=context or self.appliance.client(),
                server_hostname=name,
            )

    async def turned_away(self, context: ssl.SSLContext | None = None, name: str = NAME) -> bool:
        """Whether a caller gets nothing at all, and no engine hears of it."""
        reader = writer = None
        try:
            reader, writer = await self.call(context, name)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            async with asyncio.timeout(WAIT_S):
                return await reader.read() == b"" and self.engine.guests.empty()
        except OSError:  # a certificate that is refused ends the connection with an alert
            return self.engine.guests.empty()
        finally:
            if writer is not None:
                writer.transport.abort()


@pytest.fixture
async def house(tmp_path) -> AsyncIterator[House]:
    house = House(tmp_path)
    house.authority.node(NODE)
    await house.engine.start()
    house.routes[NAME] = Route(host="127.0.0.1", port=house.engine.port)
    house.write()
    house.door = Door(house.folder, Papers(house.folder))
    house.opened = house.door.open()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(house.door.run())
        yield house
        house.door.close()
        async with asyncio.timeout(WAIT_S):
            await running
    house.engine.stop()


async def _within(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - the door tells nobody
            await asyncio.sleep(0.01)


async def _end(*writers: asyncio.StreamWriter) -> None:
    for writer in writers:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_bytes_go_both_ways(house):
    reader, writer = await house.call()
    engine_reader, engine_writer = await house.engine.guest()
    writer.write(b"question")
    assert await engine_reader.readexactly(8) == b"question"
    engine_writer.write(b"answer")
    assert await reader.readexactly(6) == b"answer"
    await _end(writer, engine_writer)


async def test_where_it_listens_is_told(house):
    assert read_message(house.folder / OPEN_FILE, Opened) == house.opened
    assert house.opened.port != house.engine.port


async def test_a_name_leads_to_its_engine_alone(house):
    other = Engine()
    await other.start()
    second = replica_name(ReplicaId("rep_ffffffffffffffffffffffff"), NODE)
    house.routes[second] = Route(host="127.0.0.1", port=other.port)
    house.write()
    _, writer = await house.call(name=second)
    _, engine_writer = await other.guest()
    assert house.engine.guests.empty()
    await _end(writer, engine_writer)
    other.stop()


async def test_a_replica_that_is_not_here_is_nobody(house):
    assert await house.turned_away(name=replica_name(ReplicaId("rep_0"), NODE))
    assert await house.turned_away(name=node_name(NODE))


async def test_a_route_that_was_taken_away_leads_nowhere(house):
    _, writer = await house.call()
    _, engine_writer = await house.engine.guest()
    house.routes.clear()
    house.write()
    assert await house.turned_away()
    # What runs, runs on.
    writer.write(b"x")
    await writer.drain()
    await _end(writer, engine_writer)


async def test_a_route_out_of_this_host_is_not_taken(house):
    house.routes[NAME] = Route(host="192.0.2.1", port=80)
    house.write()
    assert await house.turned_away()
    house.routes[NAME] = Route(host="metadata.internal", port=80)
    house.write()
    assert await house.turned_away()


async def test_another_node_is_not_let_in(house):
    other = house.authority.node(NodeId("nod_other"))
    assert await house.turned_away(other.client())


async def test_a_node_that_calls_itself_something_like_the_appliance_is_not_let_in(house):
    crafty = house.authority.issue("crafty", f"x.{APPLIANCE_NAME}", f"{APPLIANCE_NAME}.x")
    assert await house.turned_away(crafty.client())


async def test_nobody_without_a_certificate_is_let_in(house):
    anonymous = ssl.create_default_context(cafile=house.authority.file)
    assert await house.turned_away(anonymous)


async def test_the_appliance_of_another_site_is_not_let_in(house, tmp_path):
    foreign = Authority(tmp_path, "foreign").appliance()
    context = foreign.client()
    context.load_verify_locations(house.authority.file)  # it would trust us
    assert await house.turned_away(context)


async def test_an_expired_appliance_is_not_let_in(house):
    old = house.authority.issue("old", APPLIANCE_NAME, life=-datetime.timedelta(minutes=1))
    assert await house.turned_away(old.client())


async def test_a_certificate_for_servers_alone_lets_nobody_in(house):
    server = house.authority.issue(
        "server", APPLIANCE_NAME, usages=[ExtendedKeyUsageOID.SERVER_AUTH]
    )
    assert await house.turned_away(server.client())


async def test_older_tls_is_not_spoken(house):
    context = ssl.create_default_context(cafile=house.authority.file)
    context.load_cert_chain(house.appliance.file)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert await house.turned_away(context)


async def test_plain_bytes_end_at_once(house):
    reader, writer = await asyncio.open_connection("127.0.0.1", house.opened.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    with contextlib.suppress(ConnectionResetError):
        async with asyncio.timeout(WAIT_S):
            assert b"HTTP" not in await reader.read()
    await _end(writer)


async def test_a_caller_that_leaves_takes_its_request_with_it(house):
    _, writer = await house.call()
    engine_reader, engine_writer = await house.engine.guest()
    writer.transport.abort()
    async with asyncio.timeout(0.5):
        with contextlib.suppress(ConnectionResetError):
            assert await engine_reader.read() == b""
    await _end(engine_writer)


async def test_an_engine_that_closes_has_its_last_bytes_delivered(house):
    reader, writer = await house.call()
    _, engine_writer = await house.engine.guest()
    engine_writer.write(b"y" * 300_000)
    engine_writer.close()
    async with asyncio.timeout(WAIT_S):
        assert await reader.read() == b"y" * 300_000
    await _end(writer)


async def test_an_engine_that_dies_is_no_clean_end(house):
    reader, writer = await house.call()
    _, engine_writer = await house.engine.guest()
    wire = engine_writer.get_extra_info("socket")
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    engine_writer.transport.abort()  # a reset, as from a killed process with unread bytes
    async with asyncio.timeout(WAIT_S):
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    await _end(writer)


async def test_a_dead_engine_ends_the_connection(house):
    house.engine.stop()
    assert await house.turned_away()


async def test_a_slow_reader_holds_the_engine_back(house):
    reader, writer = await house.call()
    _, engine_writer = await house.engine.guest()
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < 512 * 1024 * 1024:
            engine_writer.write(b"z" * 1024 * 1024)
            async with asyncio.timeout(0.5):
                await engine_writer.drain()
            sent += 1024 * 1024
    assert sent < 64 * 1024 * 1024  # some lies in the kernel's buffers, none piles up in ours
    taken = 0
    async with asyncio.timeout(WAIT_S):
        while taken < sent:
            taken += len(await reader.read(1024 * 1024))
    await _end(writer, engine_writer)


async def test_a_renewed_certificate_is_shown_to_the_next_caller(house):
    def shown(writer):
        return writer.get_extra_info("ssl_object").getpeercert()["serialNumber"]

    _, before = await house.call()
    house.authority.node(NODE)
    _, after = await house.call()
    assert shown(before) != shown(after)
    guests = [await house.engine.guest() for _ in range(2)]
    await _end(before, after, *(guest[1] for guest in guests))


async def test_papers_that_cannot_be_read_leave_those_before_in_force(house):
    (house.folder / PLAN_FILE).write_bytes(b"{")
    (house.authority.folder / f"site-{NODE}.pem").write_bytes(b"no certificate")
    _, writer = await house.call()
    _, engine_writer = await house.engine.guest()
    await _end(writer, engine_writer)


async def test_a_closed_door_lets_its_guests_finish(tmp_path):
    house = House(tmp_path)
    house.authority.node(NODE)
    await house.engine.start()
    house.routes[NAME] = Route(host="127.0.0.1", port=house.engine.port)
    house.write()
    door = Door(house.folder, Papers(house.folder))
    house.opened = door.open()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(door.run())
        reader, writer = await house.call()
        _, engine_writer = await house.engine.guest()
        door.close()
        while True:  # it takes a turn of the loop
            try:
                await house.call()
            except OSError:
                break
        engine_writer.write(b"still")
        assert await reader.readexactly(5) == b"still"
        assert not running.done()
        engine_writer.close()
        await _end(writer)
        async with asyncio.timeout(WAIT_S):
            await running
    house.engine.stop()


async def test_the_port_of_before_is_taken_again_when_it_is_free(tmp_path):
    house = House(tmp_path)
    house.authority.node(NODE)
    house.write()
    door = Door(house.folder, Papers(house.folder))
    port = door.open().port
    door.close()
    await door.run()
    house.write(port=port)
    again = Door(house.folder, Papers(house.folder))
    assert again.open().port == port
    # A second one does not fail where the first one listens; it finds a port of its own.
    third = Door(house.folder, Papers(house.folder))
    assert third.open().port != port
    for each in (again, third):
        each.close()
        await each.run()


async def test_silent_guests_are_not_waited_for(house, monkeypatch):
    monkeypatch.setattr("agent.door._HANDSHAKE_S", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", house.opened.port)
    async with asyncio.timeout(WAIT_S):
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    await _end(writer)


async def test_strangers_leave_room_for_the_appliance(house, monkeypatch):
    monkeypatch.setattr("agent.door._HANDSHAKES_PER_STRANGER_MAX", 2)
    monkeypatch.setattr("agent.door._HANDSHAKES_OF_STRANGERS_MAX", 4)
    _, writer = await house.call()  # the appliance speaks from 127.0.0.1
    _, engine_writer = await house.engine.guest()
    await _end(writer, engine_writer)
    await _within(lambda: house.door._handshakes.total() == 0)
    silent = []
    for number in range(12):
        _, stranger = await asyncio.open_connection(
            "127.0.0.1", house.opened.port, local_addr=(f"127.0.0.{2 + number % 4}", 0)
        )
        silent.append(stranger)
    await _within(lambda: house.door._refused >= 7)
    assert house.door._handshakes.total() == 4
    _, writer = await house.call()
    _, engine_writer = await house.engine.guest()
    await _end(writer, engine_writer)
    for stranger in silent:
        stranger.transport.abort()


async def test_one_peer_cannot_hold_all_handshakes(house, monkeypatch):
    monkeypatch.setattr("agent.door._HANDSHAKES_PER_STRANGER_MAX", 2)
    silent = [await asyncio.open_connection("127.0.0.1", house.opened.port) for _ in range(2)]
    assert await house.turned_away()
    await _end(*(writer for _, writer in silent))
    await _within(lambda: house.door._handshakes.total() == 0)
    _, writer = await house.call()
    _, engine_writer = await house.engine.guest()
    await _end(writer, engine_writer)
