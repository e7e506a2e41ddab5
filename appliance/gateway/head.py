"""Answers as bytes: status line, headers and body in one write."""

import re
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from appliance.limits.reservation import Gauge

_REASONS: Final = {status.value: status.phrase for status in HTTPStatus} | {
    499: "Client Closed Request",
    529: "Overloaded",
}
_STATUS_LINES: Final = {
    status: f"HTTP/1.1 {status} {reason}\r\n".encode() for status, reason in _REASONS.items()
}
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


def sane_request_id(text: str | None) -> bool:
    """Whether a client's x-request-id may be echoed, logged and stored."""
    return text is not None and _REQUEST_ID.fullmatch(text) is not None


class Dater:
    """The Date header, rendered once a second."""

    __slots__ = ("_line", "_second")

    def __init__(self) -> None:
        self._second = -1
        self._line = b""

    def line(self, wall_ns: int) -> bytes:
        second = wall_ns // 1_000_000_000
        if second != self._second:
            self._second = second
            self._line = b"Date: %b\r\n" % formatdate(second, usegmt=True).encode()
        return self._line


def whole(
    status: int,
    body: bytes,
    lines: bytes,
    *,
    keep_alive: bool,
    content_type: bytes = b"application/json",
    bodyless: bool = False,
) -> bytes:
    """A complete answer. `lines` are more header lines, each with its CRLF.

    `bodyless` is the answer to HEAD: the length is told, the body kept.
    """
    return b"%bContent-Type: %b\r\nContent-Length: %d\r\n%b%b\r\n%b" % (
        _STATUS_LINES[status],
        content_type,
        len(body),
        lines,
        b"" if keep_alive else b"Connection: close\r\n",
        b"" if bodyless else body,
    )


def stream(lines: bytes, *, keep_alive: bool, chunked: bool) -> bytes:
    """The head of a stream of events. HTTP/1.0 has no chunks: the end of the connection ends it."""
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
        b"Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\n%b%b%b\r\n"
    ) % (
        lines,
        b"Transfer-Encoding: chunked\r\n" if chunked else b"",
        b"" if keep_alive else b"Connection: close\r\n",
    )


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body. `data` is not empty: an empty chunk would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def rate_limits(requests: Gauge | None, tokens: Gauge | None) -> bytes:
    """The x-ratelimit headers of the limits that apply."""
    lines = b""
    for noun, gauge in ((b"requests", requests), (b"tokens", tokens)):
        if gauge is not None:
            lines += (
                b"x-ratelimit-limit-%b: %d\r\nx-ratelimit-remaining-%b: %d\r\n"
                b"x-ratelimit-reset-%b: %b\r\n"
            ) % (noun, gauge.limit, noun, gauge.remaining, noun, duration(gauge.reset_s))
    return lines


def duration(seconds: float) -> bytes:
    """`12ms`, `7s`, `1m30s`, `2h0m5s`: rounded up, so that waiting this long is enough."""
    milliseconds = -int(-seconds * 1000 // 1)
    if milliseconds < 1000:
        return b"%dms" % max(milliseconds, 0)
    whole_s = -(-milliseconds // 1000)
    minutes, rest_s = divmod(whole_s, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return b"%dh%dm%ds" % (hours, minutes, rest_s)
    if minutes:
        return b"%dm%ds" % (minutes, rest_s)
    return b"%ds" % rest_s
