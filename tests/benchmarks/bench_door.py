"""What a node's door costs: time added to a request, CPU time of a request and of a streamed event.

    python -m tests.benchmarks.bench_door

Not a test: it prints figures and judges nothing. Client, door and engine share this machine, so the
client's own TLS is in the times; the CPU time is the door's alone.
"""

import asyncio
import json
import os
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import uvloop

from agent import host
from agent.door import OPEN_FILE, PLAN_FILE, Opened, Plan, Route
from agent.durable import read_message, write_message
from appliance.domain.ids import NodeId, ReplicaId
from appliance.domain.tls_names import replica_name
from tests.benchmarks.__main__ import build
from tests.fakes.certificates import Authority

REQUESTS: Final = 2_000
HANDSHAKES: Final = 200
STREAMS: Final = 64
EVENTS: Final = 256
STEP_US: Final = 20_000
BULK_BYTES: Final = 256 * 1024 * 1024
NODE: Final = NodeId("nod_0123456789abcdef01234567")
ENGINE: Final = replica_name(ReplicaId("rep_1"), NODE)
BULK: Final = replica_name(ReplicaId("rep_2"), NODE)
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


class Way:
    """How the engine is reached: straight, or through the door."""

    def __init__(self, port: int, tls: ssl.SSLContext | None, name: str | None) -> None:
        self._port, self._tls, self._name = port, tls, name

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(
            "127.0.0.1", self._port, ssl=self._tls, server_hostname=self._name, limit=2**22
        )


def request(**fields: object) -> bytes:
    body = json.dumps({"model": "m", **fields}, separators=(",", ":")).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: e\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def answer(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    await reader.readexactly(length)


async def requests_us(way: Way) -> list[float]:
    """One after the other on one connection."""
    reader, writer = await way.connect()
    times, question = [], request(max_tokens=64)
    for _ in range(REQUESTS):
        began = time.perf_counter()
        writer.write(question)
        await answer(reader)
        times.append((time.perf_counter() - began) * 1e6)
    writer.transport.abort()
    return times


async def connections_us(way: Way) -> list[float]:
    """A new connection and one answer on it."""
    times, question = [], request(max_tokens=64)
    for _ in range(HANDSHAKES):
        began = time.perf_counter()
        reader, writer = await way.connect()
        writer.write(question)
        await answer(reader)
        times.append((time.perf_counter() - began) * 1e6)
        writer.transport.abort()
    return times


async def stream(way: Way) -> None:
    reader, writer = await way.connect()
    writer.write(request(stream=True, max_tokens=EVENTS))
    await reader.readuntil(b"[DONE]")
    writer.transport.abort()


async def bulk_s(way: Way) -> float:
    reader, writer = await way.connect()
    began, left = time.perf_counter(), BULK_BYTES
    while left > 0:
        left -= len(await reader.read(2**20))
    writer.transport.abort()
    return time.perf_counter() - began


def cpu_s(pid: int) -> float:
    stat = host.process_stat(pid)
    assert stat is not None
    return stat.cpu_ticks / TICKS_PER_S


@contextmanager
def bulk_server() -> Iterator[int]:
    """Sends zeros to whoever comes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        piece = bytes(2**20)
        while True:
            try:
                guest, _ = listener.accept()
            except OSError:
                return
            with guest:
                for _ in range(BULK_BYTES // len(piece)):
                    guest.sendall(piece)

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@contextmanager
def native_engine(folder: Path) -> Iterator[int]:
    program = build(folder)["engine"]
    with subprocess.Popen([program, "0", str(STEP_US)], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        yield int(run.stdout.readline())
        run.kill()


@contextmanager
def door(folder: Path, authority: Authority, engines: dict[str, int]) -> Iterator[Opened]:
    folder.mkdir()
    file = str(authority.node(NODE).file)
    routes = {name: Route(host="127.0.0.1", port=port) for name, port in engines.items()}
    plan = Plan(
        address="127.0.0.1",
        port=None,
        certificate_file=file,
        key_file=file,
        ca_file=str(authority.file),
        routes=routes,
    )
    write_message(folder / PLAN_FILE, plan)
    with subprocess.Popen([sys.executable, "-m", "agent.door", str(folder)]) as run:
        while (opened := read_message(folder / OPEN_FILE, Opened)) is None:
            time.sleep(0.02)
        yield opened
        run.kill()


def told(name: str, straight: list[float], through: list[float]) -> None:
    for figure, pick in (("p50", 50), ("p99", 99)):
        a, b = (statistics.quantiles(times, n=100)[pick - 1] for times in (straight, through))
        print(f"{name:34} {figure}  {a:9.0f} µs  {b:9.0f} µs  {b - a:+9.0f} µs")


async def measure(straight: Way, through: Way, bulk: tuple[Way, Way], pid: int) -> None:
    print(f"{'':38} {'straight':>12} {'door':>12} {'more':>12}")
    before = cpu_s(pid)
    told("request on a kept connection", await requests_us(straight), await requests_us(through))
    request_us = (cpu_s(pid) - before) / REQUESTS * 1e6
    before = cpu_s(pid)
    told("request on a new one", await connections_us(straight), await connections_us(through))
    handshake_us = (cpu_s(pid) - before) / HANDSHAKES * 1e6
    before = cpu_s(pid)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(STREAMS):
            tasks.create_task(stream(through))
    event_us = (cpu_s(pid) - before) / (STREAMS * EVENTS) * 1e6
    a, b = await bulk_s(bulk[0]), await bulk_s(bulk[1])
    print(f"{'bytes in bulk':38} {BULK_BYTES / a / 1e6:7.0f} MB/s {BULK_BYTES / b / 1e6:7.0f} MB/s")
    print(f"CPU of the door: {request_us:.0f} µs a request, {handshake_us:.0f} µs a connection,")
    print(f"  {event_us:.1f} µs an event ({STREAMS} streams, 50 events a second each)")
    status = Path(f"/proc/{pid}/status").read_text()  # noqa: ASYNC240 - made by the kernel
    rss_kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    print(f"memory of the door: {int(rss_kib) // 1024} MiB")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        authority = Authority(folder)
        tls = authority.appliance().client()
        with (
            native_engine(folder) as engine,
            bulk_server() as bulk,
            door(folder / "door", authority, {ENGINE: engine, BULK: bulk}) as opened,
        ):
            ways = Way(engine, None, None), Way(opened.port, tls, ENGINE)
            bulks = Way(bulk, None, None), Way(opened.port, tls, BULK)
            uvloop.run(measure(*ways, bulks, opened.pid))


if __name__ == "__main__":
    main()
