"""One HTTP request as the gateway holds it, and the way back to its client."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from aiohttp.http import HttpVersion11, RawRequestMessage
from aiohttp.streams import StreamReader
from multidict import CIMultiDictProxy

from appliance.gateway import errors, head
from appliance.gateway.errors import Family, GatewayError
from appliance.gateway.routes import family

if TYPE_CHECKING:
    from appliance.gateway.connection import ClientConnection


class Written:
    """What a handler returns: the bytes are on their way, aiohttp has nothing left to write."""

    __slots__ = ("keep_alive",)

    def __init__(self, *, keep_alive: bool) -> None:
        self.keep_alive = keep_alive

    async def prepare(self, _request: object) -> None:
        return None

    async def write_eof(self) -> None:
        return None


KEPT: Final = Written(keep_alive=True)
CLOSED: Final = Written(keep_alive=False)


class Call:
    """Made by the server for each request in place of aiohttp's own Request, which costs more than
    everything it would be asked here.
    """

    __slots__ = (
        "_payload",
        "_task",
        "common",
        "connection",
        "family",
        "headers",
        "keep_alive",
        "method",
        "path",
        "request_id",
        "stream_begun",
        "version",
        "version11",
    )

    def __init__(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        connection: "ClientConnection",
        task: "asyncio.Task[None]",
        new_id: Callable[[str], str],
        date: bytes,
    ) -> None:
        self.connection = connection
        self.headers: CIMultiDictProxy[str] = message.headers
        self.method = message.method
        self.path = message.path.partition("?")[0]
        self.version = message.version
        self.version11 = message.version == HttpVersion11
        self.keep_alive = not (message.should_close or message.upgrade)
        self.family = family(self.path)
        given = message.headers.get("x-request-id")
        self.request_id = (
            given if given is not None and head.sane_request_id(given) else new_id("request")
        )
        # Header lines of every answer.
        echo = self.request_id.encode()
        self.common = b"%bx-request-id: %b\r\n" % (date, echo)
        if self.family is Family.ANTHROPIC:
            self.common += b"request-id: %b\r\n" % echo
        self.stream_begun = False
        self._payload = payload
        self._task: asyncio.Task[None] | None = task

    # What aiohttp's RequestHandler asks of a request.

    def _finish(self) -> None:
        return None

    def _cancel(self, error: BaseException) -> None:
        self._payload.set_exception(error)

    # The body.

    @property
    def payload(self) -> StreamReader:
        return self._payload

    @property
    def unread(self) -> bool:
        """Whether some of the body has not come yet."""
        return not self._payload.is_eof()

    # The way back. Writing to a client that has left does nothing.

    def write(self, data: bytes) -> None:
        self.connection.write(data)

    def answer(self, status: int, body: bytes, lines: bytes = b"", **kind: bytes) -> None:
        """A whole answer in one write."""
        self._stop_reading()
        self.write(
            head.whole(
                status,
                body,
                self.common + lines,
                keep_alive=self.keep_alive,
                bodyless=self.method == "HEAD",
                **kind,
            )
        )

    def fail(self, error: GatewayError, lines: bytes = b"") -> None:
        """An error: as an answer, or as the last event of a stream that has begun."""
        if self.stream_begun:
            self.end_stream(errors.event(error, self.family, self.request_id))
            return
        if error.closes:
            self.keep_alive = False
        status = errors.http_status(error, self.family)
        body = errors.envelope(error, self.family, self.request_id)
        self.answer(status, body, lines + errors.headers(error))

    def begin_stream(self, lines: bytes, first: bytes) -> None:
        """The head of a stream together with its first bytes, framed already."""
        self.stream_begun = True
        self.write(
            head.stream(self.common + lines, keep_alive=self.chunked_end, chunked=self.version11)
            + first
        )

    def end_stream(self, last: bytes) -> None:
        """The last bytes of a stream, not framed, and the end of the body."""
        if self.version11:
            self.write((head.chunk(last) if last else b"") + head.LAST_CHUNK)
        elif last:
            self.write(last)

    @property
    def chunked_end(self) -> bool:
        """Whether the connection outlives a stream: only chunks have an end of their own."""
        if not self.version11:
            self.keep_alive = False
        return self.keep_alive

    def framed(self, data: bytes) -> bytes:
        return head.chunk(data) if self.version11 else data

    def _stop_reading(self) -> None:
        """A body that nobody will read makes the connection useless after this answer."""
        if self.unread:
            self.keep_alive = False
            self.connection.leave_unread()

    @property
    def written(self) -> Written:
        return KEPT if self.keep_alive else CLOSED
