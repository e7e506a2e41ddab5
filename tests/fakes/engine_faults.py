"""Everything an engine can do wrong, by name: `name`, or `name:argument`.

Each fault is an async function `(call) -> None` that speaks on the connection itself. Where a fault
strikes in a stream its argument is the number of tokens sent before it (2 unless told).
Sources: ENGINES.md observations of vLLM and llama.cpp (error followed by [DONE], overflow bodies,
force-include-usage, hung engines); the rest are shapes of RFC 9112 turned wrong on purpose.
"""

import asyncio
import gzip
import itertools
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.fakes.engine_answers import DONE, Event, answer, events, usage
from tests.fakes.engine_wire import Connection, Received

JSON_TYPE = ("Content-Type", "application/json")
SSE_TYPE = ("Content-Type", "text/event-stream; charset=utf-8")
CHUNKED = ("Transfer-Encoding", "chunked")
BREATH_S = 0.03


@dataclass(frozen=True, slots=True)
class Call:
    """One request at work."""

    connection: Connection
    received: Received
    operation: str
    body: dict[str, Any]
    model: str
    argument: str
    usage_on_every: bool
    token_s: float  # between two tokens
    gate: asyncio.Event  # see the fault `gated`

    @property
    def streamed(self) -> bool:
        return bool(self.body.get("stream"))

    def number(self, default: int) -> int:
        return int(self.argument) if self.argument else default

    def seconds(self, default: float) -> float:
        return float(self.argument) if self.argument else default

    def events(self) -> Iterator[Event]:
        return events(self.operation, self.body, self.model, usage_on_every=self.usage_on_every)

    def second_event(self) -> Event:
        return next(itertools.islice(self.events(), 1, None))

    def answer(self) -> bytes:
        return json.dumps(answer(self.operation, self.body, self.model)).encode()

    async def begin_stream(self) -> None:
        await self.connection.head("200 OK", SSE_TYPE, CHUNKED)

    async def tokens(self, count: int) -> None:
        """The head of a stream and its events up to and with the given number of tokens.

        Then a breath, so that what comes next is not read together with them; a request with
        `breathless` has it in one piece.
        """
        await self.begin_stream()
        for event in self.events():
            if (event.token and self.received.tokens_sent == count) or event.data == DONE:
                break
            await self.event(event)
        if not self.body.get("breathless"):
            await self.connection.pause(BREATH_S)

    async def event(self, event: Event) -> None:
        if event.token:
            if self.token_s:
                await self.connection.pause(self.token_s)
            self.received.tokens_sent += 1
        await self.connection.chunk(event.data)

    async def whole(self, body: bytes, *headers: tuple[str, str], status: str = "200 OK") -> None:
        await self.connection.head(status, *headers, ("Content-Length", str(len(body))))
        await self.connection.send(body)

    async def honest(self) -> None:
        if self.streamed:
            await self.begin_stream()
            for event in self.events():
                await self.event(event)
            await self.connection.last_chunk()
        else:
            if self.token_s:
                await self.connection.pause(self.token_s)
            await self.whole(self.answer(), JSON_TYPE)

    async def error(self, status: str, value: object) -> None:
        await self.whole(json.dumps(value).encode(), JSON_TYPE, status=status)


Fault = Callable[[Call], Awaitable[None]]
FAULTS: dict[str, Fault] = {}


def fault(act: Fault) -> Fault:
    FAULTS[act.__name__] = act
    return act


# --- silence -------------------------------------------------------------------------------------


@fault
async def hang_before_head(call: Call) -> None:
    await call.connection.hang()


@fault
async def hang_after_head(call: Call) -> None:
    if call.streamed:
        await call.begin_stream()
    else:
        await call.connection.head("200 OK", JSON_TYPE, ("Content-Length", "1000"))
    await call.connection.hang()


@fault
async def hang_mid_stream(call: Call) -> None:
    await call.tokens(call.number(2))
    await call.connection.hang()


@fault
async def hang_before_done(call: Call) -> None:
    """All tokens and the usage, but the stream never ends."""
    await call.begin_stream()
    for event in call.events():
        if event.data != DONE:
            await call.event(event)
    await call.connection.hang()


@fault
async def hang_mid_body(call: Call) -> None:
    body = call.answer()
    await call.connection.head("200 OK", JSON_TYPE, ("Content-Length", str(len(body))))
    await call.connection.send(body[: len(body) // 2])
    await call.connection.hang()


@fault
async def comments_only(call: Call) -> None:
    """A hung vLLM with --sse-keep-alive-interval: comments for ever and no token."""
    await call.begin_stream()
    while True:
        await call.connection.chunk(b": keep-alive\n\n")
        await call.connection.pause(call.seconds(0.1))


@fault
async def comments_mid_stream(call: Call) -> None:
    await call.tokens(2)
    while True:
        await call.connection.chunk(b": keep-alive\n\n")
        await call.connection.pause(call.seconds(0.1))


@fault
async def trickled_event(call: Call) -> None:
    """An event that never ends, a byte at a time: each resets a naive timer."""
    await call.tokens(2)
    await call.connection.chunk(b'data: {"choices":[{"index":0,"delta":{"content":"')
    while True:
        await call.connection.chunk(b"x")
        await call.connection.pause(0.1)


@fault
async def trickled_body(call: Call) -> None:
    await call.connection.head("200 OK", JSON_TYPE, ("Content-Length", "100000"))
    while True:
        await call.connection.send(b" ")
        await call.connection.pause(0.1)


@fault
async def endless_head(call: Call) -> None:
    await call.connection.send(b"HTTP/1.1 200 OK\r\n")
    number = 0
    while True:
        await call.connection.send(b"X-Filler-%d: %s\r\n" % (number, b"x" * 1000))
        number += 1
        await call.connection.pause(0.001)


@fault
async def trickled_head(call: Call) -> None:
    """A byte of head at a time: each resets a naive timer."""
    for byte in b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Slow: " + b"x" * 10_000:
        await call.connection.send(bytes([byte]))
        await call.connection.pause(0.1)


# --- ends of the connection ----------------------------------------------------------------------


@fault
async def close_before_head(call: Call) -> None:
    call.connection.close()


@fault
async def reset_before_head(call: Call) -> None:
    call.connection.reset()


@fault
async def close_in_head(call: Call) -> None:
    await call.connection.send(b"HTTP/1.1 200 OK\r\nContent-Ty")
    call.connection.close()


@fault
async def reset_after_head(call: Call) -> None:
    if call.streamed:
        await call.begin_stream()
    else:
        await call.connection.head("200 OK", JSON_TYPE, ("Content-Length", "1000"))
    await call.connection.pause(0.05)
    call.connection.reset()


@fault
async def close_after_head(call: Call) -> None:
    if call.streamed:
        await call.begin_stream()
    else:
        await call.connection.head("200 OK", JSON_TYPE, ("Content-Length", "1000"))
    call.connection.close()


@fault
async def reset_mid_stream(call: Call) -> None:
    await call.tokens(call.number(2))  # its pause lets the tokens out: an RST takes what waits
    call.connection.reset()


@fault
async def close_mid_stream(call: Call) -> None:
    await call.tokens(call.number(2))
    call.connection.close()


@fault
async def close_mid_event(call: Call) -> None:
    await call.tokens(call.number(2))
    data = call.second_event().data
    await call.connection.chunk(data[: len(data) // 2])
    call.connection.close()


@fault
async def reset_mid_body(call: Call) -> None:
    body = call.answer()
    await call.connection.head("200 OK", JSON_TYPE, ("Content-Length", str(len(body))))
    await call.connection.send(body[: len(body) // 2])
    await call.connection.pause(0.05)
    call.connection.reset()


@fault
async def close_mid_body(call: Call) -> None:
    body = call.answer()
    await call.connection.head("200 OK", JSON_TYPE, ("Content-Length", str(len(body))))
    await call.connection.send(body[: len(body) // 2])
    call.connection.close()


@fault
async def length_long(call: Call) -> None:
    """Content-Length promises more than comes; the connection then closes."""
    body = call.answer()
    await call.connection.head("200 OK", JSON_TYPE, ("Content-Length", str(len(body) + 50)))
    await call.connection.send(body)
    call.connection.close()


@fault
async def length_short(call: Call) -> None:
    """More bytes than Content-Length promised: the rest would be the next answer's head."""
    body = call.answer()
    await call.connection.head("200 OK", JSON_TYPE, ("Content-Length", str(len(body) - 20)))
    await call.connection.send(body)


@fault
async def extra_answer(call: Call) -> None:
    """A whole answer, then another one nobody asked for on the same connection."""
    await call.honest()
    forged = json.dumps({"object": "chat.completion", "choices": [], "forged": True}).encode()
    await call.whole(forged, JSON_TYPE)


@fault
async def extra_answer_later(call: Call) -> None:
    await call.honest()
    await call.connection.pause(0.2)
    await call.whole(b'{"forged": true}', JSON_TYPE)


@fault
async def close_on_reuse(call: Call) -> None:
    """A stale kept-alive connection: the second request on it is met with a close."""
    if call.connection.served == 0:
        await call.honest()
    else:
        call.connection.close()


@fault
async def early_refusal(call: Call) -> None:
    """Answered as soon as the head is read, then closed; the body is never read."""
    await call.error("413 Content Too Large", {"error": {"message": "too large", "code": 413}})
    call.connection.close()


# --- framing -------------------------------------------------------------------------------------


async def _framing(call: Call, data: bytes) -> None:
    if call.streamed:
        await call.tokens(call.number(2))
    else:
        await call.connection.head("200 OK", JSON_TYPE, CHUNKED)
    await call.connection.send(data)
    await call.connection.hang()


@fault
async def bad_chunk_size(call: Call) -> None:
    await _framing(call, b"zz\r\nabc\r\n")


@fault
async def negative_chunk_size(call: Call) -> None:
    await _framing(call, b"-5\r\nabcde\r\n")


@fault
async def huge_chunk_size(call: Call) -> None:
    await _framing(call, b"f" * 40 + b"\r\n")


@fault
async def bad_chunk_end(call: Call) -> None:
    await _framing(call, b"3\r\nabcdefgh\r\n0\r\n\r\n")


@fault
async def endless_chunk_extension(call: Call) -> None:
    if call.streamed:
        await call.tokens(2)
    else:
        await call.connection.head("200 OK", JSON_TYPE, CHUNKED)
    await call.connection.send(b"5")
    while True:
        await call.connection.send(b";x=" + b"y" * 1000)
        await call.connection.pause(0.001)


@fault
async def bad_status_line(call: Call) -> None:
    await call.connection.send(b"ICY 200 OK\r\nContent-Length: 2\r\n\r\nhi")


@fault
async def not_http(call: Call) -> None:
    await call.connection.send(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")


@fault
async def two_lengths(call: Call) -> None:
    body = call.answer()
    lengths = (("Content-Length", str(len(body))), ("Content-Length", "5"))
    await call.connection.head("200 OK", JSON_TYPE, *lengths)
    await call.connection.send(body)


@fault
async def length_and_chunked(call: Call) -> None:
    body = call.answer()
    await call.connection.head("200 OK", JSON_TYPE, ("Content-Length", "5"), CHUNKED)
    await call.connection.chunk(body)
    await call.connection.last_chunk()


@fault
async def until_close(call: Call) -> None:
    """Neither length nor chunks: the body ends with the connection, as HTTP/1.0 does it."""
    await call.connection.head("200 OK", JSON_TYPE, ("Connection", "close"))
    await call.connection.send(call.answer())
    call.connection.close()


@fault
async def informational(call: Call) -> None:
    await call.connection.head("100 Continue")
    await call.connection.head("103 Early Hints", ("Link", "</style.css>; rel=preload"))
    await call.honest()


@fault
async def endless_informational(call: Call) -> None:
    while True:
        await call.connection.head("102 Processing")
        await call.connection.pause(0.05)


@fault
async def switching(call: Call) -> None:
    await call.connection.head("101 Switching Protocols", ("Upgrade", "websocket"))
    await call.connection.hang()


@fault
async def redirect(call: Call) -> None:
    place = call.argument or "http://169.254.169.254/latest/meta-data/"
    await call.connection.head(
        "307 Temporary Redirect", ("Location", place), ("Content-Length", "0")
    )


@fault
async def gzipped(call: Call) -> None:
    body = gzip.compress(call.answer())
    await call.whole(body, JSON_TYPE, ("Content-Encoding", "gzip"))


@fault
async def injected_headers(call: Call) -> None:
    """Headers an engine has no business to set towards a client."""
    headers = (
        JSON_TYPE,
        ("Set-Cookie", "engine=1"),
        ("X-Request-Id", "forged-by-engine"),
        ("X-Crosslogic-Usage", "rec_forged"),
        ("X-Ratelimit-Limit-Requests", "999999"),
        ("Retry-After", "1"),
        ("Server", "vllm-10-0-0-7.internal"),
        ("Via", "1.1 gpu-node-3"),
        ("Location", "http://10.0.0.7/"),
        ("Access-Control-Allow-Origin", "*"),
        ("Connection", "X-Secret"),
        ("X-Secret", "node-address-10.0.0.7"),
    )
    if call.streamed:
        await call.connection.head("200 OK", *((SSE_TYPE, *headers[1:], CHUNKED)))
        for event in call.events():
            await call.event(event)
        await call.connection.last_chunk()
    else:
        await call.whole(call.answer(), *headers)


@fault
async def bad_header_bytes(call: Call) -> None:
    await call.connection.send(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Evil: a\rSet-Cookie: b=1\x00\r\n"
        b"Bad Name : 1\r\nContent-Length: 2\r\n\r\n{}"
    )


# --- statuses ------------------------------------------------------------------------------------


@fault
async def status(call: Call) -> None:
    """`status:503`: an error in the engine's own JSON."""
    code = call.number(500)
    message = "EngineCore encountered an issue at 10.0.0.7:29501, see /var/log/vllm.log"
    value = {"error": {"message": message, "type": "InternalServerError", "code": code}}
    await call.error(f"{code} Something", value)


@fault
async def status_html(call: Call) -> None:
    page = b"<html><body>nginx/1.2 at gpu-node-3.internal: Bad Gateway</body></html>"
    await call.whole(page, ("Content-Type", "text/html"), status=f"{call.number(500)} Oh")


@fault
async def status_empty(call: Call) -> None:
    await call.connection.head(f"{call.number(500)} Oh", ("Content-Length", "0"))


@fault
async def context_vllm(call: Call) -> None:
    """vLLM's 400 for a prompt that does not fit."""
    message = (
        "This model's maximum context length is 4096 tokens. However, you requested 5000 output "
        "tokens and your prompt contains 10 input tokens, for a total of 5010 tokens. Please "
        "reduce the length of the input prompt or the number of requested output tokens. "
        "(parameter=max_tokens, value=5000)"
    )
    value = {"message": message, "type": "BadRequestError", "param": "max_tokens", "code": 400}
    await call.error("400 Bad Request", {"error": value})


@fault
async def context_llamacpp(call: Call) -> None:
    """llama.cpp's 400 for the same."""
    value = {
        "code": 400,
        "message": "request (5010 tokens) exceeds the available context size (4096 tokens), try "
        "increasing it",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": 5010,
        "n_ctx": 4096,
    }
    await call.error("400 Bad Request", {"error": value})


@fault
async def bad_request(call: Call) -> None:
    """vLLM's older error shape, without the outer object."""
    value = {
        "object": "error",
        "message": "temperature must be non-negative, got -1.",
        "type": "BadRequestError",
        "param": None,
        "code": 400,
    }
    await call.error("400 Bad Request", value)


@fault
async def unauthorized(call: Call) -> None:
    """The engine refuses *our* key: never the client's fault."""
    await call.error("401 Unauthorized", {"error": "Unauthorized"})


@fault
async def wrong_type(call: Call) -> None:
    await call.whole(b"<html>It works!</html>", ("Content-Type", "text/html"))


@fault
async def json_for_stream(call: Call) -> None:
    """Asked for a stream, answers a whole JSON body."""
    body = json.dumps(answer(call.operation, {**call.body, "stream": False}, call.model)).encode()
    await call.whole(body, JSON_TYPE)


@fault
async def error_with_200(call: Call) -> None:
    await call.error("200 OK", {"error": {"message": "engine is dead", "code": 500}})


# --- bodies and events ---------------------------------------------------------------------------


@fault
async def bad_json_body(call: Call) -> None:
    await call.whole(b'{"id": "x", "choices": [oops', JSON_TYPE)


@fault
async def empty_body(call: Call) -> None:
    await call.whole(b"", JSON_TYPE)


@fault
async def list_body(call: Call) -> None:
    await call.whole(b"[1, 2, 3]", JSON_TYPE)


async def _after_tokens(call: Call, *pieces: bytes) -> None:
    await call.tokens(call.number(2))
    for piece in pieces:
        await call.connection.chunk(piece)
    await call.connection.last_chunk()


@fault
async def bad_sse(call: Call) -> None:
    await _after_tokens(call, b"<html>502 Bad Gateway</html>\n\n", DONE)


@fault
async def bad_json_event(call: Call) -> None:
    await _after_tokens(call, b'data: {"choices": [oops\n\n', DONE)


@fault
async def bad_utf8_event(call: Call) -> None:
    await _after_tokens(call, b'data: {"choices":[{"delta":{"content":"\xff\xfe"}}]}\n\n', DONE)


@fault
async def scalar_event(call: Call) -> None:
    await _after_tokens(call, b"data: 42\n\n", DONE)


@fault
async def error_then_done(call: Call) -> None:
    """vLLM's engine died in mid-stream: an error frame, and [DONE] as if all were well."""
    value = {"error": {"message": "EngineCore died at 10.0.0.7", "type": "x", "code": 500}}
    if call.operation == "messages":
        frame = (
            b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"x"}}\n\n'
        )
    elif call.operation == "responses":
        frame = b'event: error\ndata: {"type":"error","code":"server_error","message":"x"}\n\n'
    else:
        frame = b"data: " + json.dumps(value).encode() + b"\n\n"
    await _after_tokens(call, frame, DONE)


@fault
async def error_first(call: Call) -> None:
    """The very first event is an error: nothing was generated yet."""
    await call.begin_stream()
    frame = b'data: {"error": {"message": "EngineCore died at 10.0.0.7", "code": 500}}\n\n'
    await call.connection.chunk(frame + DONE)
    await call.connection.last_chunk()


@fault
async def eof_without_done(call: Call) -> None:
    await _after_tokens(call)


@fault
async def done_at_once(call: Call) -> None:
    await call.begin_stream()
    await call.connection.chunk(DONE)
    await call.connection.last_chunk()


@fault
async def no_events(call: Call) -> None:
    await call.begin_stream()
    await call.connection.last_chunk()


@fault
async def done_twice(call: Call) -> None:
    await call.begin_stream()
    for event in call.events():
        await call.event(event)
    await call.connection.chunk(DONE)
    await call.connection.last_chunk()


@fault
async def events_after_done(call: Call) -> None:
    await call.begin_stream()
    for event in call.events():
        await call.event(event)
    await call.connection.chunk(call.second_event().data)
    await call.connection.last_chunk()


@fault
async def giant_event(call: Call) -> None:
    """One event of as many bytes (64 MiB unless told)."""
    await call.tokens(2)
    rest = call.number(64 * 1024 * 1024)
    await call.connection.chunk(b'data: {"choices":[{"index":0,"delta":{"content":"')
    while rest > 0:
        await call.connection.chunk(b"x" * min(rest, 65_536))
        rest -= 65_536
    await call.connection.chunk(b'"}}]}\n\n' + DONE)
    await call.connection.last_chunk()


@fault
async def giant_body(call: Call) -> None:
    size = call.number(64 * 1024 * 1024)
    start = b'{"object":"chat.completion","choices":[{"message":{"content":"'
    length = str(len(start) + size)
    await call.connection.head("200 OK", JSON_TYPE, ("Content-Length", length))
    await call.connection.send(start)
    while size > 0:
        await call.connection.send(b"x" * min(size, 65_536))
        size -= 65_536


# --- usage ---------------------------------------------------------------------------------------

ABSURD: dict[str, Any] = {
    "negative": {"prompt_tokens": -5, "completion_tokens": -7, "total_tokens": -12},
    "huge": {"prompt_tokens": 10**15, "completion_tokens": 10**15, "total_tokens": 2 * 10**15},
    "beyond": {"prompt_tokens": 10**30, "completion_tokens": 10**30, "total_tokens": 10**30},
    "string": {"prompt_tokens": "5", "completion_tokens": "7", "total_tokens": "12"},
    "float": {"prompt_tokens": 5.5, "completion_tokens": 7.25, "total_tokens": 12.75},
    "bool": {"prompt_tokens": True, "completion_tokens": True, "total_tokens": True},
    "null": {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None},
    "list": [1, 2, 3],
    "text": "many",
    "empty": {},
    "cached": {
        "prompt_tokens": 5,
        "completion_tokens": 3,
        "total_tokens": 8,
        "prompt_tokens_details": {"cached_tokens": 999_999},
    },
    "more_than_asked": {"prompt_tokens": 5, "completion_tokens": 500_000, "total_tokens": 500_005},
}


def _in_dialect(operation: str, absurd: Any) -> Any:
    if operation not in {"responses", "messages"} or not isinstance(absurd, dict):
        return absurd
    names = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens"}
    return {names.get(name, name): value for name, value in absurd.items()}


async def _with_usage(call: Call, wrong: Any) -> None:
    """The honest answer with its usage replaced, or taken out where `wrong` is None."""
    usages = re.compile(rb'("usage":)(\{(?:[^{}]|\{[^{}]*\})*\})')
    replaced = json.dumps(_in_dialect(call.operation, wrong), separators=(",", ":")).encode()
    if not call.streamed:
        whole = answer(call.operation, call.body, call.model)
        if wrong is None:
            whole.pop("usage", None)
        else:
            whole["usage"] = _in_dialect(call.operation, wrong)
        await call.whole(json.dumps(whole).encode(), JSON_TYPE)
        return
    await call.begin_stream()
    for event in call.events():
        data = event.data
        if wrong is None and b'"choices":[],"usage"' in data:
            continue
        if wrong is None:
            data = usages.sub(rb"\1null", data)
        else:
            data = usages.sub(lambda found: found[1] + replaced, data)
        await call.event(Event(data, event.token))
    await call.connection.last_chunk()


@fault
async def absurd_usage(call: Call) -> None:
    """`absurd_usage:negative` and so on: the names are those of ABSURD."""
    await _with_usage(call, ABSURD[call.argument])


@fault
async def no_usage(call: Call) -> None:
    await _with_usage(call, None)


@fault
async def usage_on_finish(call: Call) -> None:
    """Usage on the chunk that carries the last token, and no closing usage chunk."""
    whole = usage(call.operation, call.body)
    await call.begin_stream()
    for event in call.events():
        if b'"choices":[]' in event.data:
            continue
        data = event.data
        if b'"finish_reason":"length"' in data:
            value = json.loads(data.removeprefix(b"data: "))
            value["usage"] = whole
            data = b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"
        await call.event(Event(data, event.token))
    await call.connection.last_chunk()


# --- odd, and yet allowed ------------------------------------------------------------------------


@fault
async def slow_head(call: Call) -> None:
    await call.connection.pause(call.seconds(0.5))
    await call.honest()


@fault
async def late_start(call: Call) -> None:
    """The head at once, the first event late."""
    await call.begin_stream()
    await call.connection.pause(call.seconds(0.5))
    for event in call.events():
        await call.event(event)
    await call.connection.last_chunk()


@fault
async def gated(call: Call) -> None:
    """Two tokens, then the rest when the gate is opened: many streams at the same point."""
    await call.begin_stream()
    for event in call.events():
        if event.token and call.received.tokens_sent == 2:
            while not call.gate.is_set():
                await call.connection.pause(0.05)
        await call.event(event)
    await call.connection.last_chunk()


async def _resent(call: Call, data: bytes, size: int) -> None:
    await call.begin_stream()
    for start in range(0, len(data), size):
        await call.connection.chunk(data[start : start + size])
    call.received.tokens_sent = sum(event.token for event in call.events())
    await call.connection.last_chunk()


@fault
async def split(call: Call) -> None:
    """`split:7`: chunks of 7 bytes, so events are cut anywhere."""
    await _resent(call, b"".join(event.data for event in call.events()), call.number(7))


@fault
async def trickled(call: Call) -> None:
    """A byte per write, chunk framing included."""
    await call.begin_stream()
    for event in call.events():
        for byte in b"%x\r\n%s\r\n" % (len(event.data), event.data):
            await call.connection.send(bytes([byte]))
            await call.connection.pause(0)
        call.received.tokens_sent += event.token
    await call.connection.last_chunk()


@fault
async def coalesced(call: Call) -> None:
    data = b"".join(event.data for event in call.events())
    await _resent(call, data, len(data))


@fault
async def crlf_events(call: Call) -> None:
    data = b"".join(event.data.replace(b"\n", b"\r\n") for event in call.events())
    await _resent(call, data, 100)


@fault
async def no_space(call: Call) -> None:
    """`data:{…}`: the space is optional."""
    data = b"".join(event.data.replace(b"data: ", b"data:") for event in call.events())
    await _resent(call, data, 1000)


@fault
async def commented(call: Call) -> None:
    data = b"".join(b": ping\n\n" + event.data for event in call.events())
    await _resent(call, b"retry: 3000\n\n" + data, 1000)


@fault
async def chunk_extensions(call: Call) -> None:
    await call.begin_stream()
    for event in call.events():
        await call.connection.send(b"%x;a=b\r\n%s\r\n" % (len(event.data), event.data))
        call.received.tokens_sent += event.token
    await call.connection.send(b"0\r\nX-Trailer: 1\r\n\r\n")


@fault
async def closing(call: Call) -> None:
    """Connection: close on an honest answer."""
    await call.whole(call.answer(), JSON_TYPE, ("Connection", "close"))
    call.connection.close()
