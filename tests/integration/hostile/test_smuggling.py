"""Requests that two parsers could read in two ways: refused and the connection closed.

Shapes: RFC 9112 sections 2.2, 5, 6.3, 7 and 11.2, and those that were found in real proxies.
"""

from collections.abc import Callable

import pytest

from tests.fakes.engine import FaultEngine
from tests.fakes.raw_client import Closed, RawClient
from tests.fakes.site import Key

Connect = Callable[[], RawClient]
CHAT = b'{"model":"fault","messages":[{"role":"user","content":"hi"}],"max_tokens":2}'
SECOND = b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX-Smuggled: yes\r\n\r\n"
SIZE = b"%d" % len(CHAT)
CHUNKED_CHAT = b"%x\r\n%s\r\n0\r\n\r\n" % (len(CHAT), CHAT)

# Header lines and body. None of these has one meaning only.
SHAPES: dict[str, tuple[bytes, bytes]] = {
    "length and chunked": (
        b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
        b"0\r\n\r\n" + SECOND,
    ),
    "chunked and length": (
        b"Transfer-Encoding: chunked\r\nContent-Length: " + SIZE + b"\r\n",
        CHUNKED_CHAT,
    ),
    "chunked twice": (
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        CHUNKED_CHAT,
    ),
    "chunked, chunked": (b"Transfer-Encoding: chunked, chunked\r\n", CHUNKED_CHAT),
    "chunked and identity": (
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        CHUNKED_CHAT,
    ),
    "identity": (b"Transfer-Encoding: identity\r\nContent-Length: " + SIZE + b"\r\n", CHAT),
    "xchunked": (b"Transfer-Encoding: xchunked\r\nContent-Length: 5\r\n", CHUNKED_CHAT),
    "chunked with a tab before": (
        b"Transfer-Encoding:\x0bchunked\r\nContent-Length: 5\r\n",
        CHUNKED_CHAT,
    ),
    "chunked in quotes": (b'Transfer-Encoding: "chunked"\r\nContent-Length: 5\r\n', CHUNKED_CHAT),
    "gzip, chunked": (b"Transfer-Encoding: gzip, chunked\r\n", CHUNKED_CHAT),
    "chunked, gzip": (b"Transfer-Encoding: chunked, gzip\r\n", CHUNKED_CHAT),
    "two lengths": (b"Content-Length: 5\r\nContent-Length: " + SIZE + b"\r\n", CHAT),
    "lengths in a list": (b"Content-Length: 5, " + SIZE + b"\r\n", CHAT),
    "length with a sign": (b"Content-Length: +" + SIZE + b"\r\n", CHAT),
    "negative length": (b"Content-Length: -1\r\n", CHAT),
    "hexadecimal length": (b"Content-Length: 0x10\r\n", CHAT),
    "length with an underscore": (b"Content-Length: 7_6\r\n", CHAT),
    "length that is no number": (b"Content-Length: ten\r\n", CHAT),
    "empty length": (b"Content-Length: \r\n", CHAT),
    "length beyond 64 bits": (b"Content-Length: 184467440737095516170\r\n", CHAT),
    "length in other digits": ("Content-Length: ٧٦\r\n".encode(), CHAT),
    "space before the colon": (b"Content-Length : " + SIZE + b"\r\n", CHAT),
    "space before the colon of chunked": (b"Transfer-Encoding : chunked\r\n", CHUNKED_CHAT),
    "folded line": (b"X-A: 1\r\n  2\r\nContent-Length: " + SIZE + b"\r\n", CHAT),
    "folded length": (b"Content-Length:\r\n " + SIZE + b"\r\n", CHAT),
    "first line folded": (b" X-A: 1\r\nContent-Length: " + SIZE + b"\r\n", CHAT),
    "a bare carriage return": (b"X-A: 1\rX-B: 2\r\nContent-Length: " + SIZE + b"\r\n", CHAT),
    "a NUL in a value": (b"X-A: a\x00b\r\nContent-Length: " + SIZE + b"\r\n", CHAT),
    "a NUL in a name": (b"X-\x00A: a\r\nContent-Length: " + SIZE + b"\r\n", CHAT),
    "a line without colon": (b"nonsense\r\nContent-Length: " + SIZE + b"\r\n", CHAT),
    "an empty name": (b": nothing\r\nContent-Length: " + SIZE + b"\r\n", CHAT),
    "a name with a space": (b"X A: 1\r\nContent-Length: " + SIZE + b"\r\n", CHAT),
    "a name in other letters": ("Xé: 1\r\n".encode() + b"Content-Length: " + SIZE + b"\r\n", CHAT),
    "two hosts": (b"Host: other\r\nContent-Length: " + SIZE + b"\r\n", CHAT),
}

CHUNKS: dict[str, bytes] = {
    "no hexadecimal size": b"zz\r\nhello\r\n0\r\n\r\n",
    "negative size": b"-5\r\nhello\r\n0\r\n\r\n",
    "size with a sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "size with a prefix": b"0x5\r\nhello\r\n0\r\n\r\n",
    "size with an underscore": b"1_0\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n",
    "size beyond 64 bits": b"1" + b"0" * 16 + b"5\r\nhello\r\n0\r\n\r\n",
    "empty size": b"\r\nhello\r\n0\r\n\r\n",
    "size with a space before": b" 5\r\nhello\r\n0\r\n\r\n",
    "no end of chunk": b"5\r\nhelloXX0\r\n\r\n",
    "more than the size": b"5\r\nhello world\r\n0\r\n\r\n",
    "bare line feeds": b"5\nhello\n0\n\n",
    "line feed in an extension": b"5;a=\nb\r\nhello\r\n0\r\n\r\n",
    "endless extension": b"5;" + b"x" * 100_000 + b"\r\nhello\r\n0\r\n\r\n",
    "a NUL in the size": b"5\x00\r\nhello\r\n0\r\n\r\n",
}


def assert_refused(client: RawClient) -> None:
    """One 400-class answer at most, then the end: nothing after it may be read as a request."""
    try:
        answer = client.answer()
    except Closed:
        return
    assert 400 <= answer.status < 500 or answer.status == 501, answer
    assert isinstance(answer.json["error"]["code"], str)
    assert client.closed_within(3.0)


@pytest.mark.parametrize("shape", SHAPES)
def test_two_ways_to_read_a_head(
    connect: Connect, key: Key, engine: FaultEngine, shape: str
) -> None:
    headers, body = SHAPES[shape]
    client = connect()
    engine.reset()
    client.send(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        + headers
        + f"Authorization: Bearer {key.secret}\r\n\r\n".encode()
        + body
    )
    assert_refused(client)
    assert not engine.requests


@pytest.mark.parametrize("shape", CHUNKS)
def test_two_ways_to_read_chunks(
    connect: Connect, key: Key, engine: FaultEngine, shape: str
) -> None:
    client = connect()
    engine.reset()
    client.send(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n"
        + f"Authorization: Bearer {key.secret}\r\n\r\n".encode()
        + CHUNKS[shape]
    )
    assert_refused(client)
    assert not engine.requests


GOOD_CHUNKS: dict[str, bytes] = {
    "one chunk": CHUNKED_CHAT,
    "a byte each": b"".join(b"1\r\n%c\r\n" % byte for byte in CHAT) + b"0\r\n\r\n",
    "an extension": CHUNKED_CHAT.replace(b"\r\n", b';a="b"\r\n', 1),
    "capital digits": (b"%X\r\n%s\r\n0\r\n\r\n" % (len(CHAT), CHAT)),
    "zeros before": b"000" + CHUNKED_CHAT,
    "a trailer": CHUNKED_CHAT[:-2] + b"X-Trailer: 1\r\n\r\n",
}


@pytest.mark.parametrize("shape", GOOD_CHUNKS)
def test_chunks_with_one_meaning_are_read(
    connect: Connect, key: Key, engine: FaultEngine, shape: str
) -> None:
    """And a second request follows on the same connection: the framing was understood."""
    client = connect()
    engine.reset()
    for _ in range(2):
        client.send(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n"
            + f"Authorization: Bearer {key.secret}\r\n\r\n".encode()
            + GOOD_CHUNKS[shape]
        )
        assert client.answer().status == 200
        assert engine.requests[-1].json["messages"][0]["content"] == "hi"


def test_bare_line_feeds_in_the_head(connect: Connect, key: Key) -> None:
    client = connect()
    client.send(
        b"GET /v1/models HTTP/1.1\nHost: x\n"
        + f"Authorization: Bearer {key.secret}\n\n".encode()
        + SECOND
    )
    assert_refused(client)


def test_what_follows_a_refusal_is_not_a_request(connect: Connect, engine: FaultEngine) -> None:
    """A refused body is never read as the next request on the connection."""
    client = connect()
    engine.reset()
    inner = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    client.send(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer wrong\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(inner), inner)
    )
    assert client.answer().status == 401
    try:
        follows = client.answer()
    except (Closed, TimeoutError):
        return
    pytest.fail(f"the body was read as a request: {follows}")
