"""Models on their way to a node: a real server, a real store, interruptions in between."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from agent.model_source import ModelSource, Server
from agent.shelf import Shelf
from appliance.domain.clock import SystemClock
from appliance.domain.ids import ModelId, NodeId
from appliance.fleet.model_files import ModelFiles, Pace, wanted_model
from appliance.registry.models import ModelRow
from appliance.registry.node_certificates import Certificate
from appliance.wire.agent import Desired, DesiredReplica, ModelFile
from appliance.wire.model_store import ModelStore
from tests.fakes.clock import ManualClock

WAIT_S = 20.0
CERTIFICATE = Certificate(
    serial="1",
    node_id=NodeId("node_000000000000000000000001"),
    node_name="n1",
    issued_at_ns=0,
    expires_at_ns=1,
    revoked_at_ns=None,
)


@dataclass
class Appliance:
    """The node API without TLS: what TLS shows is given."""

    folder: Path
    models: dict[ModelId, ModelRow] = field(default_factory=dict)
    pace: Pace = field(default_factory=lambda: Pace(None, SystemClock()))
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    cut_after: int | None = None  # bytes of an answer, once
    server: TestServer | None = None

    def add(self, name: str, *contents: bytes) -> ModelRow:
        folder = self.folder / name
        folder.mkdir()
        files = []
        for number, content in enumerate(contents):
            (folder / f"part-{number}.safetensors").write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            part = f"part-{number}.safetensors"
            files.append(ModelFile(name=part, sha256=digest, size_bytes=len(content)))
        row = ModelRow(
            id=ModelId(name),
            name=name,
            path=str(folder),
            digest="sha256:" + hashlib.sha256(name.encode()).hexdigest(),
            size_bytes=sum(map(len, contents)),
            family="",
            licence="",
            architecture="llama",
            context_tokens=None,
            suspended=False,
            created_at_ns=0,
            files=tuple(files),
        )
        self.models[row.id] = row
        return row

    async def known(self) -> dict[ModelId, ModelRow]:
        return self.models

    async def start(self) -> None:
        ((method, path, send),) = ModelFiles(self.known, self.pace).routes()

        async def handle(request: web.Request) -> web.StreamResponse:
            self.asked.append((request.path.rpartition("/")[2], request.headers.get("Range")))
            if self.cut_after is not None:
                return await self._cut(request)
            return await send(request, CERTIFICATE)

        app = web.Application()
        app.router.add_route(method, path, handle)
        self.server = TestServer(app)
        await self.server.start_server()

    async def _cut(self, request: web.Request) -> web.StreamResponse:
        """The connection breaks in the middle of a file."""
        count, self.cut_after = self.cut_after, None
        for row in self.models.values():
            for file in row.files:
                if file.sha256 == request.match_info["sha256"]:
                    content = (row.folder / file.name).read_bytes()
                    response = web.StreamResponse(headers={"Content-Length": str(len(content))})
                    await response.prepare(request)
                    await response.write(content[:count])
                    assert request.transport is not None
                    request.transport.close()
                    return response
        raise AssertionError

    def address(self) -> Server | None:
        if self.server is None:
            return None
        assert self.server.port is not None
        return Server("127.0.0.1", self.server.port, "", None)


@dataclass
class Node:
    shelf: Shelf
    store: ModelStore
    ready: asyncio.Event
    task: asyncio.Task[None]

    async def comes(self) -> None:
        async with asyncio.timeout(WAIT_S):
            await self.ready.wait()
        self.ready.clear()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():  # noqa: ASYNC110 (a condition in another thread has no event)
                await asyncio.sleep(0.01)


@pytest.fixture
async def appliance(tmp_path: Path) -> AsyncIterator[Appliance]:
    (tmp_path / "site").mkdir()
    appliance = Appliance(tmp_path / "site")
    yield appliance
    if appliance.server is not None:
        await appliance.server.close()


@pytest.fixture
async def node(appliance: Appliance, tmp_path: Path) -> AsyncIterator[Node]:
    store, ready = ModelStore(tmp_path / "node"), asyncio.Event()
    shelf = Shelf(
        store,
        ModelSource(appliance.address),
        SystemClock(),
        ready=ready.set,
        changed=lambda: None,
        kept_s=0.0,
    )
    task = asyncio.create_task(shelf.run())
    yield Node(shelf, store, ready, task)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def replica(row: ModelRow | None, number: int = 1, generation: int = 1) -> DesiredReplica:
    return DesiredReplica(
        replica_id=f"rep{number}",
        deployment_id="dep1",
        generation=generation,
        engine="vllm",
        model_name="m",
        model_path="/on/the/appliance",
        model=None if row is None else wanted_model(row),
    )


def read(replica: DesiredReplica, part: int) -> bytes:
    return Path(replica.model_path, f"part-{part}.safetensors").read_bytes()


def outside(folder: Path, inside: str) -> set[Path]:
    """Everything in `folder` but for what is in that folder of it."""
    return {path for path in folder.rglob("*") if inside not in path.relative_to(folder).parts}


async def test_a_replica_waits_for_its_model_and_starts_from_the_nodes_own_store(
    appliance: Appliance, node: Node
) -> None:
    await appliance.start()
    row = appliance.add("llama", b"a" * 3_000_000, b"b" * 10, b"")
    assert node.shelf.want(Desired(replicas=(replica(row), replica(None, 2)))) == (
        replica(None, 2),
    )
    (report,) = node.shelf.reports()
    assert (report.replica_id, report.state) == ("rep1", "pending")
    assert "copied" in report.reason
    await node.comes()
    one, two = node.shelf.runnable()
    assert two == replica(None, 2)
    assert one.model_path == str(node.store.folder(row.digest))
    assert [read(one, number) for number in range(3)] == [b"a" * 3_000_000, b"b" * 10, b""]
    assert node.shelf.digests() == (row.digest,)
    assert node.shelf.reports() == ()


async def test_a_copy_that_breaks_off_goes_on_where_it_stopped(
    appliance: Appliance, node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await appliance.start()
    content = bytes(range(256)) * 8_000
    row = appliance.add("llama", content)
    appliance.cut_after = 1_500_000
    node.shelf.want(Desired(replicas=(replica(row),)))
    await node.comes()
    (first, second) = appliance.asked
    assert first[1] is None
    assert second[1] is not None
    assert 0 < int(second[1].removeprefix("bytes=").removesuffix("-")) <= 1_500_000
    assert read(node.shelf.runnable()[0], 0) == content
    assert "model not copied" in caplog.text


async def test_content_that_is_not_what_was_registered_never_starts(
    appliance: Appliance, node: Node
) -> None:
    await appliance.start()
    row = appliance.add("llama", b"what was registered")
    (row.folder / "part-0.safetensors").write_bytes(b"what somebody made.")
    node.shelf.want(Desired(replicas=(replica(row),)))
    await node.until(lambda: "SHA-256" in node.shelf.reports()[0].reason)
    assert node.shelf.runnable() == ()
    (row.folder / "part-0.safetensors").write_bytes(b"what was registered")
    await node.comes()
    assert node.shelf.runnable() != ()


async def test_the_appliance_may_be_away_for_a_while(appliance: Appliance, node: Node) -> None:
    row = appliance.add("llama", b"x")
    node.shelf.want(Desired(replicas=(replica(row),)))
    await node.until(lambda: "not reached" in node.shelf.reports()[0].reason)
    await appliance.start()
    await node.comes()
    assert len(node.shelf.runnable()) == 1
    assert node.shelf.reports() == ()


async def test_what_nobody_has_is_not_answered(appliance: Appliance, node: Node) -> None:
    await appliance.start()
    row = appliance.add("llama", b"x")
    appliance.models.clear()
    node.shelf.want(Desired(replicas=(replica(row),)))
    await node.until(lambda: "404" in node.shelf.reports()[0].reason)


async def test_an_order_that_would_leave_the_store_is_refused(
    appliance: Appliance, node: Node, tmp_path: Path
) -> None:
    await appliance.start()
    row = appliance.add("llama", b"x")
    model = wanted_model(row)
    (file,) = model.files
    bad = [
        msgspec.structs.replace(model, digest="sha256:../../../outside"),
        msgspec.structs.replace(model, entry="../../outside"),
        msgspec.structs.replace(model, files=(msgspec.structs.replace(file, name="../../out"),)),
        msgspec.structs.replace(model, files=(msgspec.structs.replace(file, sha256="../../o"),)),
    ]
    wanted = tuple(
        msgspec.structs.replace(replica(row, number), model=one) for number, one in enumerate(bad)
    )
    before = outside(tmp_path, "node")
    node.shelf.want(Desired(replicas=wanted))
    await node.until(lambda: all("again" in one.reason for one in node.shelf.reports()))
    assert node.shelf.runnable() == ()
    assert outside(tmp_path, "node") == before


async def test_a_replica_goes_on_with_its_model_until_the_next_one_is_there(
    appliance: Appliance, node: Node
) -> None:
    await appliance.start()
    old, new = appliance.add("old", b"old"), appliance.add("new", b"new")
    node.shelf.want(Desired(replicas=(replica(old),)))
    await node.comes()
    (running,) = node.shelf.runnable()
    assert node.shelf.want(Desired(replicas=(replica(new, generation=2),))) == (running,)
    await node.comes()
    (then,) = node.shelf.runnable()
    assert then.generation == 2
    await node.until(lambda: node.shelf.digests() == (new.digest,))  # the old one was given up
    with pytest.raises(FileNotFoundError):
        read(running, 0)


async def test_models_are_fetched_ahead_when_asked(appliance: Appliance, node: Node) -> None:
    await appliance.start()
    row = appliance.add("llama", b"x")
    assert node.shelf.want(Desired(replicas=(), models=(wanted_model(row),))) == ()
    await node.comes()
    assert node.shelf.digests() == (row.digest,)


async def test_an_agent_that_starts_sweeps_nothing_before_it_is_told(
    appliance: Appliance, node: Node, tmp_path: Path
) -> None:
    await appliance.start()
    row = appliance.add("llama", b"x")
    node.shelf.want(Desired(replicas=(replica(row),)))
    await node.comes()
    again = Shelf(
        node.store,
        ModelSource(appliance.address),
        SystemClock(),
        ready=lambda: None,
        changed=lambda: None,
        kept_s=0.0,
    )
    task = asyncio.create_task(again.run())
    await asyncio.sleep(0.1)
    assert again.digests() == (row.digest,)
    assert again.want(Desired(replicas=(replica(row),)))[0].model_path.startswith(str(tmp_path))
    again.want(Desired(replicas=()))
    await node.until(lambda: again.digests() == ())
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_all_copies_together_stay_beneath_the_cap() -> None:
    clock = ManualClock()
    pace = Pace(1_000_000, clock)
    await pace.take(20_000)
    started = asyncio.get_running_loop().time()
    await asyncio.gather(*(pace.take(20_000) for _ in range(4)))
    # The first 20,000 bytes had gone out: the four behind them wait 20, 40, 60 and 80 ms.
    assert 0.075 <= asyncio.get_running_loop().time() - started < 2.0
    await Pace(None, clock).take(10**12)
