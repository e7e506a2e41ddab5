"""The admin API of a site that does not exist, on a real unix socket: for the console.

`python -m tests.fakes.simulated_site --home DIR --nodes 64` serves one by hand.
"""

import argparse
import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, get_args

import msgspec
from aiohttp import web

from appliance.wire.home import Home, find_home
from appliance.wire.stream import Change, Tick, Topic
from tests.fakes.simulated_fleet import Condition, SimulatedFleet, iso
from tests.fakes.simulated_records import answer_of, lines_of

_TOPICS: Final[frozenset[str]] = frozenset(get_args(Topic))
_EVERY_S_MIN: Final = 0.5
_EVERY_S_MAX: Final = 60.0
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class Faults:
    """What goes wrong from now on."""

    slow_s: float = 0.0
    status: int = 0  # every answer has it
    garbage: bool = False  # answers that are no JSON
    hang_up: bool = False  # connections end at once
    silent: bool = False  # the live stream stands but sends nothing
    another: bool = False  # answers are JSON, but not what was asked for
    cut: bool = False  # the live stream ends within an event


@dataclass(slots=True)
class Versions:
    """Which field of which row changed when."""

    now: int = 0
    rows: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    changed: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)
    gone: dict[tuple[str, str], int] = field(default_factory=dict)

    def take(self, tables: dict[str, dict[str, dict[str, Any]]]) -> None:
        self.now += 1
        seen = set()
        for topic, table in tables.items():
            for row_id, row in table.items():
                place = (topic, row_id)
                seen.add(place)
                old = self.rows.get(place, {})
                versions = self.changed.setdefault(place, {})
                for name, value in row.items():
                    if name not in old or old[name] != value:
                        versions[name] = self.now
                self.rows[place] = dict(row)
                self.gone.pop(place, None)
        for place in [place for place in self.rows if place not in seen]:
            del self.rows[place]
            self.changed.pop(place, None)
            self.gone[place] = self.now

    def since(self, version: int, topics: set[str]) -> list[Change]:
        rows: dict[str, dict[str, dict[str, Any]]] = {}
        for (topic, row_id), row in self.rows.items():
            if topic in topics:
                versions = self.changed[topic, row_id]
                fields = {name: row[name] for name, at in versions.items() if at > version}
                if fields:
                    rows.setdefault(topic, {})[row_id] = fields
        gone: dict[str, list[str]] = {}
        for (topic, row_id), at in self.gone.items():
            if topic in topics and at > version:
                gone.setdefault(topic, []).append(row_id)
        names = sorted(set(rows) | set(gone))
        return [
            Change(topic=topic, rows=rows.get(topic, {}), gone=gone.get(topic, []))  # type: ignore[arg-type]
            for topic in names
        ]


class SimulatedSite:
    """`role` is that of whoever asks. `lists` are answers by path, for what the fleet has not."""

    def __init__(self, home: Home, fleet: SimulatedFleet, *, role: str = "admin") -> None:
        self.home = home
        self.fleet = fleet
        self.role = role
        self.faults = Faults()
        self.boot = "b1"
        self.versions = Versions()
        self.frozen = False  # nothing changes
        self.asked: list[str] = []  # paths, in their order
        self.answers: dict[str, Any] = {}
        self.beside: tuple[Change, ...] = ()  # told with every Tick, whatever the fleet is
        self._runner: web.AppRunner | None = None
        self._door: web.UnixSite | None = None
        self._living: asyncio.Task[None] | None = None
        self._moved = asyncio.Event()

    async def start(self, *, every_s: float = 1.0) -> None:
        self.home.run.mkdir(parents=True, exist_ok=True)
        self.home.config_file.parent.mkdir(parents=True, exist_ok=True)
        self.home.config_file.touch()
        app = web.Application()
        app.router.add_get("/v1/stream", self._faulty(self._stream))
        app.router.add_get("/v1/me", self._faulty(self._me))
        app.router.add_get("/v1/{rest:.*}", self._faulty(self._any))
        app.router.add_get("/metrics", self._faulty(self._any))
        app.router.add_post("/v1/{rest:.*}", self._faulty(self._any))
        self._runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=0.1)
        await self._runner.setup()
        await self.come_back()
        self.versions.take(self.fleet.tables())
        self._living = asyncio.create_task(self._live(every_s))

    async def stop(self) -> None:
        if self._living is not None:
            self._living.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._living
        if self._runner is not None:
            await self._runner.cleanup()

    async def leave(self) -> None:
        """Its socket is gone; who is connected stays so, until the next answer breaks off."""
        if self._door is not None:
            door, self._door = self._door, None
            await door.stop()
            self.home.admin_socket.unlink(missing_ok=True)
            self.faults = Faults(hang_up=True)
            self._wake()

    async def come_back(self) -> None:
        if self._door is None and self._runner is not None:
            self.home.admin_socket.unlink(missing_ok=True)
            self.faults = Faults()
            self._door = web.UnixSite(self._runner, str(self.home.admin_socket))
            await self._door.start()

    def step(self) -> None:
        """A second of the fleet, told to every subscriber."""
        self.fleet.step()
        self.tell()

    def tell(self) -> None:
        """What was changed by hand."""
        self.versions.take(self.fleet.tables())
        self._wake()

    def _wake(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def _live(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            if not self.frozen:
                self.step()

    def _faulty(self, answer: Answer) -> Answer:
        async def handler(request: web.Request) -> web.StreamResponse:
            try:
                return await tried(request)
            except ConnectionResetError:  # the reader has left
                return web.Response()

        async def tried(request: web.Request) -> web.StreamResponse:
            self.asked.append(request.path)
            faults = self.faults
            if faults.slow_s:
                await asyncio.sleep(faults.slow_s)
            if faults.hang_up:
                _abort(request)
            if faults.status:
                return web.json_response(
                    {"code": "broken", "message": "It broke.", "next_step": "Look at its log."},
                    status=faults.status,
                )
            if faults.garbage:
                return web.Response(body=b'{"half": ', content_type="application/json")
            if faults.another:
                return web.json_response([{"another": [None, 1, "text"]}])
            return await answer(request)

        return handler

    async def _me(self, _request: web.Request) -> web.Response:
        why = "Its groups are those of viewers." if self.role == "viewer" else ""
        me = {"account": "1000:ada", "role": self.role, "groups": ["ops"], "site": "gpubox-01"}
        return web.json_response({**me, "mapped": True, "read_only_reason": why})

    async def _any(self, request: web.Request) -> web.Response:
        if request.path in self.answers:
            answer = self.answers[request.path]
            if isinstance(answer, bytes):
                return web.Response(body=answer, content_type="application/x-ndjson")
            return web.json_response(answer)
        lines = lines_of(self.fleet, request.path)
        if lines is not None:
            body = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
            return web.Response(body=body, content_type="application/x-ndjson")
        made = answer_of(self.fleet, request.path, request.query)
        if made is not None:
            return web.Response(body=msgspec.json.encode(made), content_type="application/json")
        topic = request.path.removeprefix("/v1/")
        tables = self.fleet.tables()
        if topic in ("nodes", "gpus", "models", "environments", "keys"):
            return web.json_response(list(tables[topic].values()))
        return _refused("no_such_route", f"{request.path} is not simulated.", 404)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        asked = {topic for topic in request.query.get("topics", "").split(",") if topic}
        topics, every_s = asked or set(_TOPICS), float(request.query.get("every_s", "1"))
        if not (topics <= _TOPICS and set(request.query) <= {"topics", "every_s"}):
            return _refused("bad_request", "The stream has no such topic or parameter.", 400)
        if not _EVERY_S_MIN <= every_s <= _EVERY_S_MAX:
            return _refused("bad_request", "every_s: 0.5 to 60.", 400)
        boot, _, text = request.headers.get("Last-Event-ID", "").partition(".")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        version = int(text) if boot == self.boot and text.isdigit() else -1
        while True:
            changes = [*self._changes(version, topics), *self.beside]
            version = self.versions.now
            if not self.faults.silent:
                tick = msgspec.json.encode(Tick(at=iso(self.fleet.now), changes=changes))
                event = b"id: %s.%d\ndata: %s\n\n" % (self.boot.encode(), version, tick)
                if self.faults.cut:
                    await response.write(event[: len(event) // 2])
                    _abort(request)
                    return response
                await response.write(event)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._moved.wait(), every_s)
            if self.faults.hang_up:
                _abort(request)
                return response

    def _changes(self, version: int, topics: set[str]) -> list[Change]:
        if version >= 0:
            return self.versions.since(version, topics)
        return [
            Change(topic=topic, whole=True, rows=rows)  # type: ignore[arg-type]  # topics as they are
            for topic, rows in self.fleet.tables().items()
            if topic in topics
        ]


def _refused(code: str, message: str, status: int) -> web.Response:
    return web.json_response({"code": code, "message": message}, status=status)


def _abort(request: web.Request) -> None:
    if request.transport is not None:  # None: the reader was faster
        request.transport.abort()


@contextlib.asynccontextmanager
async def simulated_site(
    folder: Path, *, every_s: float = 1.0, role: str = "admin", **fleet: Any
) -> AsyncIterator[SimulatedSite]:
    site = SimulatedSite(find_home(str(folder)), SimulatedFleet(**fleet), role=role)
    await site.start(every_s=every_s)
    try:
        yield site
    finally:
        await site.stop()


async def _serve(options: argparse.Namespace) -> None:
    condition: Condition = options.condition
    async with simulated_site(
        Path(options.home),
        role=options.role,
        now=datetime.now(UTC),
        nodes=options.nodes,
        deployments=options.deployments,
        tenants=options.tenants,
        condition=condition,
    ) as site:
        site.frozen = options.frozen
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", required=True)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--deployments", type=int, default=6)
    parser.add_argument("--tenants", type=int, default=5)
    parser.add_argument("--condition", choices=("empty", "busy", "failed"), default="busy")
    parser.add_argument("--role", choices=("viewer", "operator", "admin"), default="admin")
    parser.add_argument("--frozen", action="store_true", help="nothing changes")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(options))


if __name__ == "__main__":
    main()
