"""A client's connection: aiohttp's protocol with the deadlines and bounds that it lacks."""

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from appliance.gateway import errors, head
from appliance.gateway.call import Call, Written
from appliance.gateway.errors import (
    Family,
    GatewayError,
    HeadTooLarge,
    InternalError,
    MalformedHttp,
    RequestTimeout,
)

if TYPE_CHECKING:
    from appliance.gateway.clients import Clients

# Above this many bytes not taken by the client, the engine is not read any more.
_WRITE_HIGH_BYTES: Final = 16 * 1024
# What a client may send ahead of the answer it waits for.
_AHEAD_BYTES_MAX: Final = 64 * 1024

_log = logging.getLogger("appliance.gateway")


class Flow(Protocol):
    """Who feeds the client and has to stop when it takes nothing."""

    def client_full(self) -> None: ...

    def client_drained(self) -> None: ...


class ClientConnection(RequestHandler):
    """Refuses what comes too slowly, too large or too often, before any handler sees it."""

    __slots__ = (
        "_accepted",
        "_ahead_bytes",
        "_clients",
        "_head_bytes",
        "_head_since_s",
        "_lost_track",
        "_requested",
        "_stuck_bytes",
        "_stuck_since_s",
        "_unread_bytes",
        "_wire",
        "flow",
        "peer",
    )

    def __init__(self, clients: "Clients", loop: asyncio.AbstractEventLoop, **options: Any) -> None:
        super().__init__(clients, loop=loop, **options)
        self._clients = clients
        self._accepted = False
        self._wire: asyncio.Transport | None = None  # also after aiohttp has let go of it
        self._head_since_s = 0.0  # 0: no head is under way
        self._head_bytes = 0
        self._unread_bytes = -1  # -1: no body is left unread
        self._stuck_since_s = 0.0  # 0: the client takes what it is sent
        self._stuck_bytes = 0
        self._requested = False  # a request has come
        self._lost_track = False  # of where requests begin and end
        self.flow: Flow | None = None
        self.peer = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        wire = cast(asyncio.Transport, transport)
        peer = wire.get_extra_info("peername")
        self.peer = str(peer[0]) if isinstance(peer, tuple) else ""
        if not self._clients.admit(self):
            wire.abort()
            return
        self._accepted = True
        self._wire = wire
        wire.set_write_buffer_limits(high=_WRITE_HIGH_BYTES)
        self._head_since_s = self._clients.now_s()
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._accepted:
            self._head_ended()
            self._clients.remove(self)
        self.flow = None
        self._wire = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._accepted or self._lost_track:
            return
        call = self._current_request
        if self._unread_bytes >= 0:
            self._unread_bytes += len(data)
            if self._unread_bytes > self._clients.unread_bytes_max:
                self.abort()
                return
        elif call is not None and data and not cast(Call, call).unread:
            self._ahead_bytes += len(data)
            if self._ahead_bytes > _AHEAD_BYTES_MAX:
                self.abort()
                return
        super().data_received(data)
        if not data:
            return
        if self._messages and not isinstance(self._messages[-1][0], RawRequestMessage):
            # aiohttp queues an error to answer. What follows can not be read as anything.
            self._lost_track = True
            self._pause_reading_for_buffer()
        self._requested = self._requested or bool(self._messages) or call is not None
        # Bytes of the opening may come before aiohttp's task waits: they end no head by that.
        between = self._requested and (self._waiter is None or self._waiter.done())
        if self._messages or call is not None or between:
            if self._head_since_s:
                self._head_ended()
            return
        # The bytes made no request and none is at work: they are a part of a head.
        if not self._head_since_s:
            self._head_since_s = self._clients.now_s()
        self._head_bytes += len(data)
        if not self._clients.hold_head(self._head_bytes, len(data)):
            self._refuse(HeadTooLarge("The head of the request is too large."))

    def _head_ended(self) -> None:
        self._clients.drop_head(self._head_bytes)
        self._head_since_s = 0.0
        self._head_bytes = 0

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stuck_since_s = self._clients.now_s()
        self._stuck_bytes = self._unsent()
        if self.flow is not None:
            self.flow.client_full()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stuck_since_s = 0.0
        if self.flow is not None:
            self.flow.client_drained()

    def write(self, data: bytes) -> None:
        """Send bytes; to a client that has left, do nothing.

        Writing to a closed transport would raise in the middle of an engine's connection.
        """
        transport = self.transport
        if transport is not None and not transport.is_closing():
            transport.write(data)

    def request_begins(self) -> None:
        """What was sent ahead is now being handled: count anew."""
        self._ahead_bytes = 0

    def leave_unread(self) -> None:
        """The answer is out and the rest of the body is wanted by nobody."""
        self._unread_bytes = 0

    async def drained(self) -> None:
        """Wait until the client has taken most of what was written."""
        if self._paused:
            await self._drain_helper()

    def abort(self) -> None:
        """Close without waiting for anything."""
        if self._wire is not None:
            self._wire.abort()

    @property
    def idle(self) -> bool:
        """Whether no request is at work or waiting."""
        return self._current_request is None and not self._messages

    def check(self, now_s: float, head_s: float, write_s: float) -> None:
        """Act on deadlines that have passed."""
        if self._head_since_s and now_s - self._head_since_s > head_s:
            if self._head_bytes:
                self._refuse(RequestTimeout("The head of the request did not come in time."))
            else:
                self.abort()
            return
        unsent = self._unsent()
        closing = self.transport is None
        if not unsent or not (self._stuck_since_s or closing):
            self._stuck_since_s = 0.0 if not self._paused else self._stuck_since_s
            return
        if not self._stuck_since_s or unsent < self._stuck_bytes:
            self._stuck_since_s = now_s
            self._stuck_bytes = unsent
        elif now_s - self._stuck_since_s > write_s:
            self.abort()

    def handle_error(
        self,
        request: Any,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  # aiohttp's words quote the request
    ) -> Any:
        """Answer what aiohttp could not parse, and what a handler did not expect."""
        call = cast(Call, request)
        if status >= 500:
            _log.error("request_failed", exc_info=exc, extra={"request_id": call.request_id})
            error: GatewayError = InternalError("The gateway failed to handle this request.")
        elif isinstance(exc, LineTooLong):
            error = HeadTooLarge("A line of the request's head is too long.")
        else:
            error = MalformedHttp("The request is not valid HTTP/1.1.")
        self._clients.refused(error, call.request_id)
        call.keep_alive = False
        call.fail(error)
        return Written(keep_alive=False)

    def _refuse(self, error: GatewayError) -> None:
        """Answer while there is no request to answer, and close."""
        request_id = self._clients.new_id("request")
        self._clients.refused(error, request_id)
        self._head_ended()
        lines = b"x-request-id: %b\r\n" % request_id.encode() + errors.headers(error)
        body = errors.envelope(error, Family.OPENAI, request_id)
        self.write(head.whole(error.status, body, lines, keep_alive=False))
        self.force_close()

    def _unsent(self) -> int:
        return 0 if self._wire is None else self._wire.get_write_buffer_size()
