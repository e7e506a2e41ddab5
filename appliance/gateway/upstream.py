"""Connections to engines: an asyncio.Protocol that carries one request at a time."""

import asyncio
import socket
from typing import Final, Protocol, cast

from appliance.gateway.answer_head import HEAD_BYTES_MAX, AnswerHead, BadHead, Framing, parse
from appliance.gateway.chunks import BadChunk, Dechunker, whole_chunks

# Of one answer that is not streamed. The largest honest ones are embeddings of many texts.
BODY_BYTES_MAX: Final = 64 * 1024 * 1024
_EVENT_STREAM: Final = b"text/event-stream"


class Receiver(Protocol):
    """Who waits for an answer. None of these may raise: the transport calls them."""

    def answered(self, head: AnswerHead, body: bytes) -> None:
        """The whole answer; the connection is free again."""
        ...

    def streams(self) -> None:
        """A stream of events has begun (status 200)."""
        ...

    def payload(self, data: bytes, framed: bytes | None) -> None:
        """A piece of the stream. `framed` are the bytes as received, if they are whole chunks."""
        ...

    def ended(self) -> None:
        """The stream ended as its framing says; the connection is free again."""
        ...

    def lost(self, reason: str, *, unused: bool) -> None:
        """The connection broke. `unused`: a kept one, closed before a byte of answer came."""
        ...


class Home(Protocol):
    """Where connections go between requests."""

    def put(self, connection: "Connection") -> None: ...

    def linger(self, connection: "Connection") -> None: ...

    def forget(self, connection: "Connection") -> None: ...


class Connection(asyncio.Protocol):
    """One connection to an engine. Every answer ends in one call of its receiver: `answered`,
    `ended` or `lost`, unless the receiver let go before (`release`, `abort`).
    """

    __slots__ = (
        "_body",
        "_buffer",
        "_dechunker",
        "_head",
        "_home",
        "_left",
        "_lingers",
        "_paused",
        "_receiver",
        "_served",
        "_streams",
        "_transport",
        "closed",
        "since_s",
    )

    def __init__(self, home: Home) -> None:
        self._home = home
        self._transport: asyncio.Transport | None = None
        self._receiver: Receiver | None = None
        self._served = False  # an answer has come on it before
        self._lingers = False  # the receiver has all it needs, the end of the body is missing
        self._paused = False
        self._buffer = b""  # of a head that has not ended
        self._head: AnswerHead | None = None
        self._streams = False
        self._dechunker: Dechunker | None = None
        self._left = 0  # to come, of a body whose length or limit is known
        self._body: list[bytes] = []
        self.closed = False
        self.since_s = 0.0  # idle or lingering

    @property
    def peer_host(self) -> str:
        """The address at the other end, "" when there is none."""
        peer = None if self._transport is None else self._transport.get_extra_info("peername")
        return str(peer[0]) if isinstance(peer, tuple) else ""

    @property
    def socket(self) -> socket.socket | None:
        """For its options; None when the connection is gone."""
        return None if self._transport is None else self._transport.get_extra_info("socket")

    # The receiver calls these.

    def send(self, receiver: Receiver, request: bytes) -> None:
        """Send a request and hear its answer. The connection is idle."""
        assert self._transport is not None  # connections are handed out when they are made
        self._receiver = receiver
        self._head = None
        self._transport.write(request)

    def release(self) -> None:
        """The last event is in: leave the connection to wait for the end of the body."""
        if self._receiver is not None:
            self._receiver = None
            self._lingers = True
            self.resume_reading()
            self._home.linger(self)

    def abort(self) -> None:
        """Close at once: the engine stops generating."""
        self._receiver = None
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def pause_reading(self) -> None:
        if not self._paused and not self.closed and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._paused and not self.closed and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    # The transport calls these.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._transport = None
        self._home.forget(self)
        receiver, self._receiver = self._receiver, None
        if receiver is None:
            return
        if exc is None and self._head is not None and self._head.framing is Framing.CLOSE:
            self._hand_over(receiver, self._head)
            return
        unused = self._served and self._head is None and not self._buffer
        receiver.lost("the connection was closed", unused=unused)

    def data_received(self, data: bytes) -> None:
        receiver = self._receiver
        if receiver is None and not self._lingers:
            self.abort()  # nobody asked
            return
        if self._streams and self._dechunker is not None and self._dechunker.between:
            # By far the most common case: a read is a chunk or some, a chunk is an event.
            payload = whole_chunks(data)
            if payload is not None and receiver is not None:
                receiver.payload(payload, data)
                return
        try:
            if self._head is None:
                self._read_head(data)
            else:
                self._read_body(data)
        except (BadHead, BadChunk) as error:
            self.abort()
            if receiver is not None:
                receiver.lost(str(error), unused=False)

    def _read_head(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        end = data.find(b"\r\n\r\n")
        if end < 0 or end > HEAD_BYTES_MAX:
            if len(data) > HEAD_BYTES_MAX:
                raise BadHead("a head that does not end")
            self._buffer = data
            return
        self._buffer = b""
        head = parse(data[:end])
        rest = data[end + 4 :]
        if head.informational:
            if rest:
                self._read_head(rest)
            return
        self._begin_body(head)
        if rest or (head.framing is Framing.LENGTH and not head.length):
            self._read_body(rest)

    def _begin_body(self, head: AnswerHead) -> None:
        self._head = head
        self._served = True
        self._body = []
        self._streams = head.status == 200 and head.content_type == _EVENT_STREAM
        self._dechunker = Dechunker() if head.framing is Framing.CHUNKED else None
        self._left = head.length if head.framing is Framing.LENGTH else BODY_BYTES_MAX
        if self._left > BODY_BYTES_MAX and not self._streams:
            raise BadHead("an answer that is too large")
        if self._streams and self._receiver is not None:
            self._receiver.streams()

    def _read_body(self, data: bytes) -> None:
        framed: bytes | None = None
        rest = b""
        ended = False
        dechunker = self._dechunker
        if dechunker is not None:
            clean = dechunker.between
            payload = dechunker.feed(data)
            ended = dechunker.ended
            rest = dechunker.rest
            if clean and dechunker.between and dechunker.broken is None:
                framed = data
        elif self._head is not None and self._head.framing is Framing.LENGTH:
            payload = data[: self._left]
            rest = data[self._left :]
            self._left -= len(payload)
            ended = self._left == 0
        else:
            payload = data
        if payload:
            self._take(payload, framed)
        if dechunker is not None and dechunker.broken is not None and not self.closed:
            raise dechunker.broken
        if ended:
            self._body_ended(rest)

    def _take(self, payload: bytes, framed: bytes | None) -> None:
        receiver = self._receiver
        if receiver is None:
            if payload.strip():
                self.abort()  # more events behind the last one
        elif self._streams:
            receiver.payload(payload, framed)
        else:
            self._body.append(payload)
            if self._head is not None and self._head.framing is not Framing.LENGTH:
                self._left -= len(payload)
                if self._left < 0:
                    raise BadHead("an answer that is too large")

    def _body_ended(self, rest: bytes) -> None:
        if self.closed:
            return
        receiver, self._receiver = self._receiver, None
        head = self._head
        assert head is not None  # a body follows a head
        self._head = None
        self._lingers = False
        self._dechunker = None
        still_writing = self._transport is not None and self._transport.get_write_buffer_size() > 0
        if rest or still_writing or not head.keep_alive:
            self.abort()
        else:
            self.resume_reading()
            self._home.put(self)
        if receiver is not None:
            self._hand_over(receiver, head)

    def _hand_over(self, receiver: Receiver, head: AnswerHead) -> None:
        if self._streams:
            receiver.ended()
            return
        body, self._body = self._body, []
        try:
            receiver.answered(head, body[0] if len(body) == 1 else b"".join(body))
        except BaseException:
            # A fault of ours must not leave its client waiting.
            receiver.lost("the answer could not be handled", unused=False)
            raise
