"""Models on their way to nodes: which a node shall have, and the content that it fetches.

GET /node/v1/models/{sha256} answers the content of that SHA-256, from `Range: bytes=N-` on, for as
long as a registered model has it. All copies together stay beneath the site's cap.
"""

import asyncio
import os
import re
import stat
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
from aiohttp import web

from appliance.domain.clock import Clock
from appliance.domain.ids import DeploymentId, ModelId, NodeId
from appliance.fleet.node_api import NodeHandler
from appliance.registry.generations import Generation
from appliance.registry.models import ModelRow
from appliance.registry.node_certificates import Certificate
from appliance.wire.agent import DesiredReplica, WantedModel

PATH: Final = "/node/v1/models/{sha256}"
CHUNK_BYTES: Final = 1024 * 1024
COPIES_OF_NODE_MAX: Final = 4
_WRITE_S: Final = 60.0  # for a node to take a chunk
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_FROM: Final = re.compile(r"bytes=(\d{1,15})-")


def wanted_model(row: ModelRow) -> WantedModel:
    return WantedModel(digest=row.digest, files=row.files, entry=row.entry)


def with_model(replica: DesiredReplica, row: ModelRow, *, remote: bool) -> DesiredReplica:
    """What a node is told of the model it shall run: golden prompt, and what is to be copied.

    A node of this host opens the files where they are; `remote` ones have a store of their own.
    """
    return msgspec.structs.replace(
        replica,
        model=wanted_model(row) if remote else None,
        probe_prompt=row.facts.probe_prompt,
        probe_answer=row.facts.probe_answer,
    )


def with_models(
    replicas: Sequence[DesiredReplica],
    generations: Mapping[tuple[DeploymentId, int], Generation],
    models: Mapping[ModelId, ModelRow],
    *,
    remote: bool,
) -> tuple[DesiredReplica, ...]:
    """`with_model` of each, where its model is known."""
    told = []
    for replica in replicas:
        made_from = generations.get((DeploymentId(replica.deployment_id), replica.generation))
        row = None if made_from is None else models.get(made_from.model_id)
        told.append(replica if row is None else with_model(replica, row, remote=remote))
    return tuple(told)


class Pace:
    """Holds all who send back so that they stay beneath `bytes_per_s` together; None: no bound."""

    def __init__(self, bytes_per_s: int | None, clock: Clock) -> None:
        self._bytes_per_s = bytes_per_s
        self._clock = clock
        self._free_at_s = 0.0

    async def take(self, size_bytes: int) -> None:
        """Wait for one's turn. Who is cancelled meanwhile has still used it up."""
        if self._bytes_per_s is None:
            return
        now_s = self._clock.monotonic_s()
        begin_s = max(now_s, self._free_at_s)
        self._free_at_s = begin_s + size_bytes / self._bytes_per_s
        await asyncio.sleep(begin_s - now_s)


class ModelFiles:
    """Answers nodes with content."""

    def __init__(
        self, models: Callable[[], Awaitable[Mapping[ModelId, ModelRow]]], pace: Pace
    ) -> None:
        self._models = models
        self._pace = pace
        self._sending: Counter[NodeId] = Counter()

    def routes(self) -> tuple[tuple[str, str, NodeHandler], ...]:
        """For the node API, which knows who asks: any node of the site may have any model."""
        return (("GET", PATH, self._send),)

    async def _send(self, request: web.Request, held: Certificate) -> web.StreamResponse:
        # A node copies one thing at a time; the others are connections it has given up.
        if self._sending[held.node_id] >= COPIES_OF_NODE_MAX:
            raise web.HTTPTooManyRequests(headers={"Retry-After": "5"})
        self._sending[held.node_id] += 1
        try:
            return await self._answer(request)
        finally:
            self._sending[held.node_id] -= 1
            if not self._sending[held.node_id]:
                del self._sending[held.node_id]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        sha256 = request.match_info["sha256"]
        place = await self._place(sha256) if _SHA256.fullmatch(sha256) else None
        if place is None:
            raise web.HTTPNotFound
        path, size_bytes = place
        offset = _offset(request)
        if offset > size_bytes:
            raise web.HTTPRequestRangeNotSatisfiable
        # Not in a thread: a node that goes away meanwhile would leave it open for ever.
        with _opened(path) as file:
            return await self._stream(request, file, offset, size_bytes)

    async def _place(self, sha256: str) -> tuple[Path, int] | None:
        for row in (await self._models()).values():
            for file in row.files:
                if file.sha256 == sha256:
                    return row.folder / file.name, file.size_bytes
        return None

    async def _stream(
        self, request: web.Request, file: BinaryIO, offset: int, size_bytes: int
    ) -> web.StreamResponse:
        left = size_bytes - offset
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(left)}
        if offset:
            headers["Content-Range"] = f"bytes {offset}-{size_bytes - 1}/{size_bytes}"
        response = web.StreamResponse(status=206 if offset else 200, headers=headers)
        await response.prepare(request)
        await asyncio.to_thread(file.seek, offset)
        while left:
            await self._pace.take(min(left, CHUNK_BYTES))
            # Handlers outlive their connections: nothing is read for a node that has gone.
            if request.transport is None or request.transport.is_closing():
                return response
            chunk = await asyncio.to_thread(file.read, min(left, CHUNK_BYTES))
            if not chunk:
                request.transport.abort()  # the file is shorter than it was: the node must see that
                return response
            try:
                async with asyncio.timeout(_WRITE_S):
                    await response.write(chunk)
            except TimeoutError:  # it takes nothing: it asks again, from where it stopped
                request.transport.abort()
                return response
            left -= len(chunk)
        await response.write_eof()
        return response


def _opened(path: Path) -> BinaryIO:
    """A file that is one: a pipe in its place would hold the event loop until somebody writes."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:  # it was registered where it lay, and was taken away since
        raise web.HTTPNotFound from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise web.HTTPNotFound
    return os.fdopen(descriptor, "rb", buffering=0)


def _offset(request: web.Request) -> int:
    asked = request.headers.get("Range")
    if asked is None:
        return 0
    match = _FROM.fullmatch(asked)
    if match is None:
        raise web.HTTPRequestRangeNotSatisfiable
    return int(match[1])
