"""The door as a process: it outlives agents, comes back when it died, and moves with the host."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable

import pytest

from agent import host
from agent.doors import OWNER_VARIABLE, Doors, NodePapers
from appliance.domain.clock import SystemClock
from appliance.domain.ids import NodeId, ReplicaId
from appliance.domain.tls_names import replica_name
from appliance.wire.agent import ReplicaReport
from tests.fakes.certificates import Authority

NODE = NodeId("nod_0123456789abcdef01234567")
REPLICA = ReplicaId("rep_0123456789abcdef01234567")
WAIT_S = 30.0


class House:
    """A node's folder, an engine that echoes, and the agents that keep its door."""

    def __init__(self, folder) -> None:
        self.folder = folder / "door"
        self.authority = Authority(folder)
        papers = self.authority.node(NODE)
        self.papers = NodePapers(NODE, papers.file, papers.file, self.authority.file)
        self.appliance = self.authority.appliance()
        self.changes = 0

    def agent(self) -> Doors:
        doors = Doors(
            folder=self.folder,
            papers=self.papers,
            boot_id=host.boot_id(),
            clock=SystemClock(),
            changed=self._changed,
        )
        doors.speaks_from("127.0.0.1")
        return doors

    def _changed(self) -> None:
        self.changes += 1

    def report(self) -> ReplicaReport:
        return ReplicaReport(
            replica_id=REPLICA,
            deployment_id="dep_1",
            generation=1,
            state="ready",
            host="127.0.0.1",
            port=self.engine_port,
        )

    async def call(self, doors: Doors, address: str = "127.0.0.1"):
        async with asyncio.timeout(WAIT_S):
            return await asyncio.open_connection(
                address,
                doors.port,
                ssl=self.appliance.client(),
                server_hostname=replica_name(REPLICA, NODE),
            )

    async def echoes(self, doors: Doors, address: str = "127.0.0.1") -> bool:
        reader, writer = await self.call(doors, address)
        return await echoed(reader, writer, leave=True)

    def processes(self) -> list[int]:
        owner = str(self.folder.resolve())
        return [
            pid
            for pid in host.own_processes()
            if host.process_environ(pid).get(OWNER_VARIABLE) == owner
            and (stat := host.process_stat(pid)) is not None
            and stat.state not in {"Z", "X"}
        ]


async def echoed(reader, writer, *, leave: bool = False) -> bool:
    writer.write(b"ping")
    try:
        async with asyncio.timeout(WAIT_S):
            return await reader.readexactly(4) == b"ping"
    finally:
        if leave:
            writer.transport.abort()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - another process does it
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def kept(doors: Doors) -> AsyncIterator[Doors]:
    """An agent's run, which ends without a word to its door."""
    task = asyncio.create_task(doors.run())
    try:
        await until(lambda: doors.port is not None)
        yield doors
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        doors.release()


@pytest.fixture
async def house(tmp_path) -> AsyncIterator[House]:
    house = House(tmp_path)

    async def echo(reader, writer):
        with contextlib.suppress(ConnectionResetError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    house.engine_port = server.sockets[0].getsockname()[1]
    yield house
    server.close()
    for pid in house.processes():
        os.kill(pid, signal.SIGKILL)


async def test_an_engine_is_led_to_before_it_is_told(house):
    async with kept(house.agent()) as doors:
        assert house.changes == 1
        assert doors.lead((house.report(),)) == (house.report(),)
        assert await house.echoes(doors)
        doors.lead(())
        reader, writer = await house.call(doors)
        assert await reader.read() == b""
        writer.transport.abort()
        await doors.stop()


async def test_a_large_answer_that_ends_with_its_connection_arrives_whole(house):
    """Closing must not overtake what was written: some TLS transports drop it."""
    size = 32 * 1024 * 1024

    async def send(reader, writer):
        writer.write(bytes(size))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(send, "127.0.0.1", 0)
    house.engine_port = server.sockets[0].getsockname()[1]
    async with kept(house.agent()) as doors:
        doors.lead((house.report(),))
        for _ in range(3):
            reader, writer = await house.call(doors)
            taken = 0
            async with asyncio.timeout(WAIT_S):
                while piece := await reader.read(1024 * 1024):
                    taken += len(piece)
            writer.transport.abort()
            assert taken == size
        await doors.stop()
    server.close()


async def test_an_agent_that_ends_leaves_the_door_and_the_next_one_finds_it(house, monkeypatch):
    monkeypatch.setattr("agent.doors._END_S", 0.5)
    async with kept(house.agent()) as first:
        first.lead((house.report(),))
        reader, writer = await house.call(first)
        assert await echoed(reader, writer)
        port, (pid,) = first.port, house.processes()
    # Nobody keeps it now: what runs goes on, and new connections are taken.
    assert await echoed(reader, writer)
    assert await house.echoes(first)
    async with kept(house.agent()) as second:
        assert (second.port, house.processes()) == (port, [pid])
        assert await echoed(reader, writer)
        second.lead((house.report(),))
        await second.stop()
    assert house.processes() == []
    assert await reader.read() == b""
    writer.transport.abort()


async def test_a_killed_door_is_opened_again_at_its_port(house):
    async with kept(house.agent()) as doors:
        doors.lead((house.report(),))
        port = doors.port
        (pid,) = house.processes()
        os.kill(pid, signal.SIGKILL)
        await until(lambda: doors.port is None)
        await until(lambda: doors.port is not None)
        assert doors.port == port
        assert house.processes() != [pid]
        assert await house.echoes(doors)
        await doors.stop()


async def test_a_door_that_hangs_is_killed_and_opened_again(house, monkeypatch):
    monkeypatch.setattr("agent.doors._SILENT_S", 5.0)
    monkeypatch.setattr("agent.doors._LOOK_S", 0.2)
    async with kept(house.agent()) as doors:
        doors.lead((house.report(),))
        (pid,) = house.processes()
        os.kill(pid, signal.SIGSTOP)
        await until(lambda: house.processes() not in ([pid], []) and doors.port is not None)
        assert await house.echoes(doors)
        await doors.stop()


async def test_another_address_has_another_door_and_guests_of_the_old_one_finish(
    house, monkeypatch
):
    monkeypatch.setattr("agent.doors._LOOK_S", 0.1)
    async with kept(house.agent()) as doors:
        doors.lead((house.report(),))
        reader, writer = await house.call(doors)
        assert await echoed(reader, writer)
        (old,) = house.processes()
        doors.speaks_from("::1")
        await until(lambda: doors.port is None)
        await until(lambda: doors.port is not None)
        assert await house.echoes(doors, "::1")
        assert await echoed(reader, writer)  # through the old one
        assert old in house.processes()
        writer.transport.abort()
        await until(lambda: old not in house.processes())
        await doors.stop()


async def test_a_door_whose_record_was_lost_is_found_and_ends(house):
    async with kept(house.agent()) as first:
        (lost,) = house.processes()
        assert first.port is not None
    (house.folder / "door.json").unlink()
    async with kept(house.agent()) as second:
        await until(lambda: lost not in house.processes())
        assert len(house.processes()) == 1
        await second.stop()


async def test_a_record_of_another_boot_or_process_is_not_believed(house):
    (house.folder).mkdir()
    (house.folder / "door.json").write_text(
        f'{{"pid":{os.getpid()},"started_ticks":1,"boot_id":"{host.boot_id()}",'
        '"address":"127.0.0.1","release":"0"}'
    )
    async with kept(house.agent()) as doors:
        assert os.getpid() not in house.processes()
        assert len(house.processes()) == 1
        await doors.stop()


async def test_a_door_ends_with_its_engines_also_when_it_hangs(house, monkeypatch):
    monkeypatch.setattr("agent.doors._END_S", 0.5)
    async with kept(house.agent()) as doors:
        (pid,) = house.processes()
        os.kill(pid, signal.SIGSTOP)
        await doors.stop()
        assert house.processes() == []
        assert doors.port is None


async def test_a_door_without_a_certificate_does_not_open_and_is_tried_again(house, monkeypatch):
    certificate = house.papers.certificate_file.read_bytes()
    house.papers.certificate_file.unlink()
    doors = house.agent()
    task = asyncio.create_task(doors.run())
    await until(lambda: "door cannot open" in _log(house))
    house.papers.certificate_file.write_bytes(certificate)
    await until(lambda: doors.port is not None)
    doors.lead((house.report(),))
    assert await house.echoes(doors)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await doors.stop()


def _log(house: House) -> str:
    try:
        return (house.folder / "door.log").read_text()
    except FileNotFoundError:
        return ""
