"""HTTP/1.1 at the level of bytes, so that an engine can misbehave in every one of them."""

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

HEAD_BYTES_MAX = 256 * 1024


class ClientGone(Exception):
    """The other side closed the connection while the engine was at work."""


@dataclass(slots=True)
class Received:
    """One request as it came in, and what became of it. Times are CLOCK_MONOTONIC seconds."""

    number: int
    connection: int
    method: str
    target: str
    version: str
    headers: list[tuple[str, str]]
    body: bytes
    json: Any
    fault: str
    started_at: float
    sent_at: float | None = None  # the first byte of the answer
    ended_at: float | None = None  # the answer is complete
    closed_at: float | None = None  # the client left before that
    tokens_sent: int = 0

    def header(self, name: str) -> str | None:
        return next((v for n, v in self.headers if n.lower() == name.lower()), None)


@dataclass(slots=True)
class Head:
    method: str
    target: str
    version: str
    headers: list[tuple[str, str]] = field(default_factory=list)

    def get(self, name: str) -> str | None:
        return next((v for n, v in self.headers if n.lower() == name), None)


class Connection(asyncio.Protocol):
    """One client connection: reads requests, writes whatever it is told, knows when it is left."""

    def __init__(self, number: int, serve: Callable[["Connection"], Awaitable[None]]) -> None:
        self.number = number
        self.served = 0  # requests answered on this connection
        self.current: Received | None = None
        self._serve = serve
        self._buffer = bytearray()
        self._changed = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._gone = False
        self._gone_at = 0.0
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._task = asyncio.get_running_loop().create_task(self._run())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._changed.set()

    def eof_received(self) -> bool:
        self._leave()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _leave(self) -> None:
        if not self._gone:
            self._gone = True
            self._gone_at = time.monotonic()
        self._changed.set()

    async def _run(self) -> None:
        try:
            await self._serve(self)
        except ClientGone:
            if self.current is not None and self.current.ended_at is None:
                self.current.closed_at = self._gone_at
        finally:
            self.close()

    async def stop(self) -> None:
        """End what runs on this connection and close it."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._transport is not None:
            self._transport.abort()

    # reading

    async def read_head(self) -> Head | None:
        """The next request's head, or None when the client closed between two requests."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if self._gone:
                return None
            if len(self._buffer) > HEAD_BYTES_MAX:
                raise ClientGone
            await self._more()
        lines = self._buffer[:end].decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        method, target, version = lines[0].split(" ", 2)
        head = Head(method, target, version)
        for line in lines[1:]:
            name, _, value = line.partition(":")
            head.headers.append((name, value.strip()))
        return head

    async def read_body(self, head: Head) -> bytes:
        if (length := head.get("content-length")) is not None:
            return await self._take(int(length))
        if head.get("transfer-encoding") == "chunked":
            body = bytearray()
            while size := int((await self._line()).split(b";")[0], 16):
                body += await self._take(size)
                await self._line()
            while await self._line():
                pass
            return bytes(body)
        return b""

    async def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            if self._gone:
                raise ClientGone
            await self._more()
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    async def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if self._gone:
                raise ClientGone
            await self._more()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    async def _more(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    # writing

    async def send(self, data: bytes) -> None:
        """Write and wait for room. Raises ClientGone once the client has left."""
        if self._gone or self._transport is None:
            raise ClientGone
        if self.current is not None and self.current.sent_at is None:
            self.current.sent_at = time.monotonic()
        self._transport.write(data)
        if not self._writable.is_set():
            await self._writable.wait()
            if self._gone:
                raise ClientGone

    async def head(self, status: str, *headers: tuple[str, str]) -> None:
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers)]
        await self.send("\r\n".join([*lines, "", ""]).encode("latin-1"))

    async def chunk(self, data: bytes) -> None:
        await self.send(b"%x\r\n%s\r\n" % (len(data), data))

    async def last_chunk(self) -> None:
        await self.send(b"0\r\n\r\n")

    async def pause(self, seconds: float) -> None:
        """Wait, or raise ClientGone as soon as the client leaves."""
        until = time.monotonic() + seconds
        while not self._gone:
            self._changed.clear()
            try:
                async with asyncio.timeout(max(0.0, until - time.monotonic())):
                    await self._changed.wait()
            except TimeoutError:
                return
        raise ClientGone

    async def hang(self) -> None:
        """Do nothing until the client leaves."""
        await self.pause(3600)

    def close(self) -> None:
        """An ordinary end: what was written is sent, then FIN."""
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """An RST, as from a killed process with unread data."""
        assert self._transport is not None
        sock: socket.socket = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()
