"""The head of an engine's answer, parsed strictly (RFC 9112): what is ambiguous is an error."""

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

HEAD_BYTES_MAX: Final = 32 * 1024

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [^\r\n\x00]*)?")
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
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


def parse(head: bytes) -> AnswerHead:
    """`head` is everything before the empty line, without its last CRLF."""
    status_line, *lines = head.split(b"\r\n")
    found = _STATUS_LINE.fullmatch(status_line)
    if found is None:
        raise BadHead("not an HTTP status line")
    status = int(found[2])
    keep_alive = found[1] == b"1"
    length: int | None = None
    chunked = False
    content_type = b""
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or _TOKEN.fullmatch(name) is None or b"\r" in value or b"\n" in value:
            raise BadHead("a header line that is none")
        name = name.lower()
        value = value.strip(b" \t")
        if name == b"content-length":
            if _LENGTH.fullmatch(value) is None or length not in {None, int(value)}:
                raise BadHead("a Content-Length that is no number, or two of them")
            length = int(value)
        elif name == b"transfer-encoding":
            if chunked or value.lower() != b"chunked":
                raise BadHead("a Transfer-Encoding other than chunked")
            chunked = True
        elif name == b"content-type":
            content_type = value.partition(b";")[0].rstrip(b" \t").lower()
        elif name == b"connection":
            keep_alive = keep_alive and b"close" not in value.lower()
        elif name == b"content-encoding" and value.lower() not in {b"", b"identity"}:
            raise BadHead("a Content-Encoding that was not asked for")
    if chunked and length is not None:
        raise BadHead("both Content-Length and Transfer-Encoding")
    if status == 101:
        raise BadHead("a change of protocol that was not asked for")
    if chunked:
        return AnswerHead(status, Framing.CHUNKED, 0, keep_alive, content_type)
    if length is not None or status in {204, 304} or status < 200:
        return AnswerHead(status, Framing.LENGTH, length or 0, keep_alive, content_type)
    return AnswerHead(status, Framing.CLOSE, 0, keep_alive=False, content_type=content_type)
