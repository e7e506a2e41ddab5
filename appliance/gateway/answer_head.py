"""The head of an engine's answer, parsed strictly (RFC 9112): what is ambiguous is an error."""

import re
from enum import Enum, auto
from typing import Final

import msgspec

HEAD_BYTES_MAX: Final = 32 * 1024

_HEAD: Final = re.compile(
    rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [^\r\n\x00]*)?"
    rb"(?:\r\n[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\x00]*)*"
)
_LENGTH: Final = re.compile(rb"[0-9]{1,15}")


class BadHead(ValueError):
    """Not an HTTP/1.1 answer that can be understood in one way only."""


class Framing(Enum):
    """How the end of the body is found."""

    LENGTH = auto()
    CHUNKED = auto()
    CLOSE = auto()  # with the end of the connection


class AnswerHead(msgspec.Struct, frozen=True, gc=False):
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
    found = _HEAD.fullmatch(head)
    if found is None:
        raise BadHead("not the head of an HTTP answer")
    status = int(found[2])
    if status == 101:
        raise BadHead("a change of protocol that was not asked for")
    lines = head.lower()
    coding = _value(lines, b"\r\ntransfer-encoding:")
    if coding is not None and coding != b"chunked":
        raise BadHead("a Transfer-Encoding other than chunked")
    length = _value(lines, b"\r\ncontent-length:")
    if length is not None and (coding is not None or _LENGTH.fullmatch(length) is None):
        raise BadHead("a Content-Length that is no number, or that contradicts")
    encoding = _value(lines, b"\r\ncontent-encoding:")
    if encoding not in {None, b"", b"identity"}:
        raise BadHead("a Content-Encoding that was not asked for")
    if coding is not None:
        framing = Framing.CHUNKED
    elif length is not None or status in {204, 304} or status < 200:
        framing = Framing.LENGTH
    else:
        framing = Framing.CLOSE
    connection = _value(lines, b"\r\nconnection:")
    keep_alive = (
        found[1] == b"1"
        and framing is not Framing.CLOSE
        and (connection is None or b"close" not in connection)
    )
    kind = _value(lines, b"\r\ncontent-type:") or b""
    return AnswerHead(
        status, framing, int(length or 0), keep_alive, kind.partition(b";")[0].rstrip(b" \t")
    )


def _value(lines: bytes, name: bytes) -> bytes | None:
    """The value of a field, or None. A second line of it must say the same."""
    at = lines.find(name)
    if at < 0:
        return None
    at += len(name)
    end = lines.find(b"\r\n", at)
    value = lines[at : end if end >= 0 else len(lines)].strip(b" \t")
    if end >= 0:
        second = lines.find(name, end)
        if second >= 0 and _value(lines[second:], name) != value:
            raise BadHead("a field twice, with two values")
    return value
