"""The head of an engine's answer, parsed strictly (RFC 9112): what is ambiguous is an error."""

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

HEAD_BYTES_MAX: Final = 32 * 1024

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [^\r\n\x00]*)?")
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FORBIDDEN: Final = re.compile(rb"[\r\n\x00]")
_LENGTH: Final = re.compile(rb"[0-9]{1,15}")


class BadHead(ValueError):
    """Not an HTTP/1.1 answer that can be understood in one way only."""


class Framing(Enum):
    """How the end of the body is found."""

    LENGTH = auto()
    CHUNKED = auto()
    CLOSE = auto()  # with the end of the connection


@dataclass(frozen=True, slots=True)
class AnswerHead:
    status: int
    framing: Framing
    length: int
    keep_alive: bool
    content_type: bytes  # lower case, without parameters

    @property
    def informational(self) -> bool:
        return self.status < 200


class _Fields:
    """What the lines of a head said."""

    __slots__ = ("chunked", "content_type", "keep_alive", "length")

    def __init__(self, *, keep_alive: bool) -> None:
        self.keep_alive = keep_alive
        self.length: int | None = None
        self.chunked = False
        self.content_type = b""

    def take(self, name: bytes, value: bytes) -> None:
        if name == b"content-length":
            if _LENGTH.fullmatch(value) is None or self.length not in {None, int(value)}:
                raise BadHead("a Content-Length that is no number, or two of them")
            self.length = int(value)
        elif name == b"transfer-encoding":
            if self.chunked or value.lower() != b"chunked":
                raise BadHead("a Transfer-Encoding other than chunked")
            self.chunked = True
        elif name == b"content-type":
            self.content_type = value.partition(b";")[0].rstrip(b" \t").lower()
        elif name == b"connection":
            self.keep_alive = self.keep_alive and b"close" not in value.lower()
        elif name == b"content-encoding" and value.lower() not in {b"", b"identity"}:
            raise BadHead("a Content-Encoding that was not asked for")


def parse(head: bytes) -> AnswerHead:
    """`head` is everything before the empty line, without its last CRLF."""
    status_line, *lines = head.split(b"\r\n")
    found = _STATUS_LINE.fullmatch(status_line)
    if found is None:
        raise BadHead("not an HTTP status line")
    status = int(found[2])
    if status == 101:
        raise BadHead("a change of protocol that was not asked for")
    fields = _Fields(keep_alive=found[1] == b"1")
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or _TOKEN.fullmatch(name) is None or _FORBIDDEN.search(value) is not None:
            raise BadHead("a header line that is none")
        fields.take(name.lower(), value.strip(b" \t"))
    length = fields.length
    if fields.chunked and length is not None:
        raise BadHead("both Content-Length and Transfer-Encoding")
    if fields.chunked:
        framing = Framing.CHUNKED
    elif length is not None or status in {204, 304} or status < 200:
        framing = Framing.LENGTH
    else:
        framing = Framing.CLOSE
    keep_alive = fields.keep_alive and framing is not Framing.CLOSE
    return AnswerHead(status, framing, length or 0, keep_alive, fields.content_type)
