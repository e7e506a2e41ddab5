"""Content for nodes: how many copies one has at once, and what a node that has gone costs."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from appliance.domain.clock import SystemClock
from appliance.domain.ids import ModelId, NodeId
from appliance.fleet.model_files import CHUNK_BYTES, COPIES_OF_NODE_MAX, ModelFiles, Pace
from appliance.registry.models import ModelRow
from appliance.registry.node_certificates import Certificate
from appliance.wire.agent import ModelFile

CONTENT = bytes(range(256)) * (CHUNK_BYTES * 8 // 256)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    """One file of 8 MiB, sent with 1 MiB/s in all, to the node that a header names."""
    (tmp_path / "weights").write_bytes(CONTENT)
    row = ModelRow(
        id=ModelId("mod_1"),
        name="m",
        path=str(tmp_path),
        digest=f"sha256:{SHA256}",
        size_bytes=len(CONTENT),
        family="",
        licence="",
        architecture="llama",
        context_tokens=None,
        suspended=False,
        created_at_ns=0,
        files=(ModelFile(name="weights", sha256=SHA256, size_bytes=len(CONTENT)),),
    )

    async def known() -> dict[ModelId, ModelRow]:
        return {row.id: row}

    ((method, path, send),) = ModelFiles(known, Pace(CHUNK_BYTES, SystemClock())).routes()

    async def handle(request: web.Request) -> web.StreamResponse:
        node_id = NodeId(request.headers["X-Node"])
        return await send(request, Certificate("1", node_id, "n", 0, 0, None))

    app = web.Application()
    app.router.add_route(method, path, handle)
    server = TestServer(app)
    await server.start_server()
    yield str(server.make_url(path.replace("{sha256}", SHA256)))
    await server.close()


async def test_a_node_has_a_few_copies_at_once_and_its_place_back_when_it_goes(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        copies = [
            await session.get(url, headers={"X-Node": "greedy"}) for _ in range(COPIES_OF_NODE_MAX)
        ]
        assert [copy.status for copy in copies] == [200] * COPIES_OF_NODE_MAX
        async with session.get(url, headers={"X-Node": "greedy"}) as refused:
            assert refused.status == 429
        async with session.get(url, headers={"X-Node": "other"}) as modest:
            assert modest.status == 200
        for copy in copies:
            copy.close()
        # Each handler ends when its turn comes, without another byte.
        async with asyncio.timeout(30):
            while True:
                async with session.get(url, headers={"X-Node": "greedy"}) as again:
                    if again.status == 200:
                        break
                await asyncio.sleep(0.1)


async def test_what_took_the_place_of_a_file_is_not_read(url: str, tmp_path: Path) -> None:
    (tmp_path / "weights").unlink()
    for make in (os.mkfifo, Path.mkdir):
        make(tmp_path / "weights")
        async with (
            asyncio.timeout(10),
            aiohttp.ClientSession() as session,
            session.get(url, headers={"X-Node": "n"}) as answer,
        ):
            assert answer.status == 404
        if make is os.mkfifo:
            (tmp_path / "weights").unlink()
