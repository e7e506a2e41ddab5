"""A fault-injecting OpenAI-compatible engine: a real HTTP server that can be wrong in every byte.

A request names its fault in its body, which survives the gateway: a top-level field `fault`, or
`metadata.fault`, or a `user` that starts with `fault:`. Faults can also be queued for requests to
come (`engine.next_fault`, `POST /__fake__/fault`), for clients that cannot add a field.
`tests/fakes/engine_faults.py` lists them. Everything received is recorded.

Three ways to run it:

- `async with FaultEngine() as engine` in a test's own loop;
- `with engine_in_thread() as engine` beside synchronous clients;
- `python -m tests.fakes.engine --port 0` as a process; it prints its URL, and answers
  `GET /__fake__/requests`, `GET /__fake__/counts`, `POST /__fake__/reset`, `POST /__fake__/open`.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import itertools
import json
import resource
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.fakes.engine_answers import CREATED_S, OPERATIONS
from tests.fakes.engine_faults import FAULTS, JSON_TYPE, Call
from tests.fakes.engine_wire import ClientGone, Connection, Head, Received

DEADLINE_S = 10.0


class FaultEngine:
    """The server. Methods that look at what was received may be called from any thread."""

    def __init__(
        self,
        model: str = "fault",
        *,
        api_key: str | None = None,
        usage_on_every: bool = False,
        token_s: float = 0.0,
    ) -> None:
        self.model = model
        self.api_key = api_key
        self.usage_on_every = usage_on_every
        self.token_s = token_s
        self.port = 0
        self.requests: list[Received] = []  # probes for health and models are not among them
        self.connections_open = 0
        self.connections_made = 0
        self.gate = asyncio.Event()  # opened by POST /__fake__/open, shut again by reset
        self._numbers = itertools.count()
        self._queued: list[tuple[str, str]] = []  # (path, fault)
        self._lock = threading.Lock()
        self._server: asyncio.Server | None = None
        self._live: set[Connection] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self, port: int = 0) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connect, "127.0.0.1", port, backlog=4096)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        await asyncio.gather(*(connection.stop() for connection in list(self._live)))
        await self._server.wait_closed()

    async def __aenter__(self) -> "FaultEngine":
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    # what tests ask

    def next_fault(self, fault: str, *, path: str = "", times: int = 1) -> None:
        """The next requests (to `path`, if given) that name no fault themselves get this one."""
        with self._lock:
            self._queued.extend([(path, fault)] * times)

    def reset(self) -> None:
        with self._lock:
            self.requests.clear()
            self._queued.clear()

    def wait_for(
        self, wanted: Callable[[list[Received]], Any], deadline_s: float = DEADLINE_S
    ) -> Any:
        """The first true value of `wanted(requests)`. Not for use in the engine's own loop."""
        until = time.monotonic() + deadline_s
        while not (found := wanted(list(self.requests))):
            if time.monotonic() > until:
                last = [f"{r.target} {r.fault}" for r in self.requests[-3:]]
                raise AssertionError(f"not seen within {deadline_s} s; the last were {last}")
            time.sleep(0.005)
        return found

    async def seen(
        self, wanted: Callable[[list[Received]], Any], deadline_s: float = DEADLINE_S
    ) -> Any:
        """As wait_for, in any loop."""
        return await asyncio.to_thread(self.wait_for, wanted, deadline_s)

    def running(self) -> int:
        """Requests that have neither ended nor been left."""
        return sum(r.ended_at is None and r.closed_at is None for r in list(self.requests))

    # serving

    def _connect(self) -> Connection:
        self.connections_made += 1
        return Connection(self.connections_made, self._serve)

    async def _serve(self, connection: Connection) -> None:
        self._live.add(connection)
        self.connections_open += 1
        try:
            while (head := await connection.read_head()) is not None:
                connection.current = None
                if not await self._one(connection, head):
                    return
                connection.served += 1
        finally:
            self._live.discard(connection)
            self.connections_open -= 1

    async def _one(self, connection: Connection, head: Head) -> bool:
        """Answer one request; False ends the connection."""
        path = head.target.split("?")[0]
        if path.startswith("/__fake__/"):
            await self._control(connection, path, await connection.read_body(head))
            return True
        if head.method == "GET":
            await self._get(connection, path)
            return True
        if (queued := self._queued_fault(path)) == "early_refusal":
            await self._run(connection, head, path, b"", queued)
            return False
        body = await connection.read_body(head)
        await self._run(connection, head, path, body, queued)
        return head.get("connection") != "close"

    def _queued_fault(self, path: str) -> str:
        with self._lock:
            for index, (wanted, fault) in enumerate(self._queued):
                if wanted in {"", path}:
                    del self._queued[index]
                    return fault
        return ""

    async def _run(
        self, connection: Connection, head: Head, path: str, body: bytes, queued: str
    ) -> None:
        value = _parse(body)
        named = fault_named(value) or queued
        received = Received(
            number=next(self._numbers),
            connection=connection.number,
            method=head.method,
            target=head.target,
            version=head.version,
            headers=head.headers,
            body=body,
            json=value,
            fault=named,
            started_at=time.monotonic(),
        )
        self.requests.append(received)
        connection.current = received
        name, _, argument = named.partition(":")
        operation = OPERATIONS.get(path)
        token_s = value.get("token_s", self.token_s) if isinstance(value, dict) else 0.0
        call = Call(
            connection,
            received,
            operation or "",
            value if isinstance(value, dict) else {},
            self.model,
            argument,
            self.usage_on_every or name == "usage_on_every",
            token_s,
            self.gate,
        )
        if self.api_key is not None and head.get("authorization") != f"Bearer {self.api_key}":
            await call.error("401 Unauthorized", {"error": "Unauthorized"})
        elif operation is None:
            await call.error("404 Not Found", {"detail": "Not Found"})
        elif not isinstance(value, dict) and name != "early_refusal":
            await call.error("400 Bad Request", {"error": {"message": "not an object"}})
        elif name in {"", "usage_on_every"}:
            await call.honest()
        else:
            await FAULTS[name](call)
        received.ended_at = time.monotonic()

    async def _get(self, connection: Connection, path: str) -> None:
        if path == "/v1/models":
            card = {"id": self.model, "object": "model", "created": CREATED_S, "owned_by": "fake"}
            value: object = {"object": "list", "data": [{**card, "max_model_len": 4096}]}
        elif path in {"/health", "/ping"}:
            value = {"status": "ok"}
        else:
            await _send_json(connection, "404 Not Found", {"detail": "Not Found"})
            return
        await _send_json(connection, "200 OK", value)

    async def _control(self, connection: Connection, path: str, body: bytes) -> None:
        value: object = {}
        if path == "/__fake__/requests":
            value = [_plain(received) for received in self.requests]
        elif path == "/__fake__/counts":
            value = {
                "requests": len(self.requests),
                "running": self.running(),
                "left": sum(r.closed_at is not None for r in self.requests),
                "connections": self.connections_open,
            }
        elif path == "/__fake__/reset":
            self.reset()
            self.gate.clear()
        elif path == "/__fake__/open":
            self.gate.set()
        elif path == "/__fake__/fault":
            asked = json.loads(body)
            self.next_fault(asked["fault"], path=asked.get("path", ""), times=asked.get("times", 1))
        await _send_json(connection, "200 OK", value)


def fault_named(body: Any) -> str:
    """The fault a request's body asks for, "" for none."""
    if not isinstance(body, dict):
        return ""
    if isinstance(body.get("fault"), str):
        return str(body["fault"])
    metadata = body.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get("fault"), str):
        return str(metadata["fault"])
    for user in (body.get("user"), (metadata or {}).get("user_id") if metadata else None):
        if isinstance(user, str) and user.startswith("fault:"):
            return user.removeprefix("fault:")
    return ""


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _plain(received: Received) -> dict[str, Any]:
    value = dataclasses.asdict(received)
    del value["json"]
    value["body"] = received.body.decode("latin-1")
    return value


async def _send_json(connection: Connection, status: str, value: object) -> None:
    data = json.dumps(value).encode()
    await connection.head(status, JSON_TYPE, ("Content-Length", str(len(data))))
    await connection.send(data)


class EngineProcess:
    """The engine as a process of its own, spoken to through its control paths."""

    def __init__(self, url: str) -> None:
        self.url = url

    def control(self, name: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"{self.url}/__fake__/{name}", data, DEADLINE_S) as answer:
            return json.loads(answer.read())

    def requests(self) -> list[dict[str, Any]]:
        """What Received holds, as JSON."""
        found: list[dict[str, Any]] = self.control("requests")
        return found

    def counts(self) -> dict[str, int]:
        found: dict[str, int] = self.control("counts")
        return found


@contextlib.contextmanager
def engine_as_process(*arguments: str) -> Iterator[EngineProcess]:
    """`python -m tests.fakes.engine`, ended with the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.engine", *arguments],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert process.stdout
        line = process.stdout.readline().decode()
        if not line.startswith("ready "):
            raise AssertionError("the fault engine did not start")
        yield EngineProcess(line.split()[1])
    finally:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()


@contextlib.contextmanager
def engine_in_thread(engine: FaultEngine | None = None) -> Iterator[FaultEngine]:
    """The engine on a loop of its own thread, for clients that block."""
    engine = engine or FaultEngine()
    started = threading.Event()
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        stop = asyncio.Event()
        async with engine:
            loops.append((asyncio.get_running_loop(), stop))
            started.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="fault engine")
    thread.start()
    try:
        if not started.wait(DEADLINE_S):
            raise AssertionError("the fault engine did not start")
        yield engine
    finally:
        if loops:
            loop, stop = loops[0]
            loop.call_soon_threadsafe(stop.set)
        thread.join(DEADLINE_S)


async def _main(arguments: argparse.Namespace) -> None:
    engine = FaultEngine(
        arguments.model,
        api_key=arguments.api_key,
        usage_on_every=arguments.usage_on_every,
        token_s=arguments.token_s,
    )
    await engine.start(arguments.port)
    sys.stdout.write(f"ready {engine.url}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--model", default="fault")
    parser.add_argument("--api-key")
    parser.add_argument("--usage-on-every", action="store_true")
    parser.add_argument("--token-s", type=float, default=0.0, help="seconds between two tokens")
    with contextlib.suppress(KeyboardInterrupt, ClientGone):
        asyncio.run(_main(parser.parse_args()))
