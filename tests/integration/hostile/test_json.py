"""Bodies that are JSON to some parsers: one meaning, or a 400 with a code."""

import json
from typing import Any

import pytest

from tests.fakes.engine import FaultEngine
from tests.fakes.site import Key, Site

START = b'{"model":"fault","max_tokens":2,'
MESSAGES = b'"messages":[{"role":"user","content":"hi"}]'


def nested(depth: int, opening: bytes, closing: bytes) -> bytes:
    return START + MESSAGES + b',"deep":' + opening * depth + b"1" + closing * depth + b"}"


BAD: dict[str, bytes] = {
    "empty": b"",
    "not JSON": b"hello",
    "cut short": START + MESSAGES,
    "two values": START + MESSAGES + b"}{}",
    "a comma at the end": START + MESSAGES + b",}",
    "a comment": START + b"/* x */" + MESSAGES + b"}",
    "single quotes": START.replace(b'"', b"'") + MESSAGES + b"}",
    "a byte order mark": b"\xef\xbb\xbf" + START + MESSAGES + b"}",
    "UTF-16": (START + MESSAGES + b"}").decode().encode("utf-16"),
    "a list": b"[1]",
    "a number": b"1",
    "null": b"null",
    "a string": b'"model"',
    "a key twice": START + b'"model":"other",' + MESSAGES + b"}",
    "a key twice, once escaped": START + rb'"mod\u0065l":"other",' + MESSAGES + b"}",
    "a key twice, deeper": START + MESSAGES + b',"metadata":{"a":1,"a":2}}',
    "a key twice in a message": START
    + b'"messages":[{"role":"user","content":"a","content":"b"}]}',
    "NaN": START + MESSAGES + b',"temperature":NaN}',
    "Infinity": START + MESSAGES + b',"temperature":Infinity}',
    "-Infinity": START + MESSAGES + b',"temperature":-Infinity}',
    "a number beyond all": START + MESSAGES + b',"temperature":1e999}',
    "a leading zero": START + MESSAGES + b',"temperature":01}',
    "a plus": START + MESSAGES + b',"temperature":+1}',
    "invalid UTF-8": START + b'"messages":[{"role":"user","content":"\xff\xfe"}]}',
    "overlong UTF-8": START + b'"messages":[{"role":"user","content":"\xc0\xaf"}]}',
    "an encoded surrogate": START + b'"messages":[{"role":"user","content":"\xed\xa0\x80"}]}',
    "a control character": START + b'"messages":[{"role":"user","content":"a\x01b"}]}',
    "a raw line feed": START + b'"messages":[{"role":"user","content":"a\nb"}]}',
    "lists too deep": nested(100, b"[", b"]"),
    "objects too deep": nested(100, b'{"a":', b"}"),
    "lists far too deep": nested(100_000, b"[", b"]"),
    "opened and never closed": START + MESSAGES + b',"deep":' + b"[" * 1_000_000,
    "objects opened and never closed": b'{"a":' * 500_000,
    "no model": b"{" + MESSAGES + b"}",
    "a model that is a number": b'{"model":1,' + MESSAGES + b"}",
    "a model that is null": b'{"model":null,' + MESSAGES + b"}",
    "no messages": b'{"model":"fault"}',
    "messages that are text": b'{"model":"fault","messages":"hi"}',
    "stream that is text": START + MESSAGES + b',"stream":"yes"}',
    "stream_options that are a list": START + MESSAGES + b',"stream":true,"stream_options":[]}',
    "a negative max_tokens": b'{"model":"fault","max_tokens":-1,' + MESSAGES + b"}",
    "a huge max_tokens": b'{"model":"fault","max_tokens":1%s,%s}' % (b"0" * 40, MESSAGES),
    "a max_tokens that is text": b'{"model":"fault","max_tokens":"many",' + MESSAGES + b"}",
    "a fractional n": START + MESSAGES + b',"n":1.5}',
    "a huge n": START + MESSAGES + b',"n":1000000000000}',
    "4,097 messages": START
    + b'"messages":['
    + b",".join([b'{"role":"user","content":"a"}'] * 4_097)
    + b"]}",
}


@pytest.mark.parametrize("shape", BAD)
def test_a_bad_body_is_a_400_with_a_code(
    site: Site, key: Key, engine: FaultEngine, shape: str
) -> None:
    engine.reset()
    status, headers, body = site.call("POST", "/chat/completions", BAD[shape], key)
    assert status == 400, body
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert isinstance(error["code"], str)
    assert error["message"]
    assert len(body) < 2_000
    assert headers["x-request-id"]
    assert not engine.requests


GOOD: dict[str, bytes] = {
    "64 levels": nested(62, b"[", b"]"),
    "4,096 messages": START
    + b'"messages":['
    + b",".join([b'{"role":"user","content":"a"}'] * 4_096)
    + b"]}",
    "brackets in a text": START
    + b'"messages":[{"role":"user","content":"'
    + b"[{" * 10_000
    + b'"}]}',
    "large numbers": START + MESSAGES + b',"seed":18446744073709551615,"temperature":1e-300}',
    "escapes": START + rb'"messages":[{"role":"user","content":"\u00e9\ud83d\ude00\n\\\""}]}',
    "white space": b" \r\n\t" + START + b"\n" + MESSAGES + b" }\r\n ",
    "a large text": START
    + b'"messages":[{"role":"user","content":"'
    + b"word " * 400_000
    + b'"}]}',
}


@pytest.mark.parametrize("shape", GOOD)
def test_unusual_and_yet_right(site: Site, key: Key, engine: FaultEngine, shape: str) -> None:
    engine.reset()
    status, _, body = site.call("POST", "/chat/completions", GOOD[shape], key)
    assert status == 200, body[:500]
    sent = json.loads(GOOD[shape])
    received: dict[str, Any] = engine.requests[-1].json
    assert {name: received[name] for name in sent} == sent


def test_a_lone_surrogate_has_one_meaning(site: Site, key: Key, engine: FaultEngine) -> None:
    """RFC 8259 lets parsers differ on it: refused, or passed on to the byte."""
    engine.reset()
    lone = START + rb'"messages":[{"role":"user","content":"a\ud800b"}]}'
    status, _, body = site.call("POST", "/chat/completions", lone, key)
    if status == 200:
        assert rb"a\ud800b" in engine.requests[-1].body
    else:
        assert status == 400, body
        assert isinstance(json.loads(body)["error"]["code"], str)


def test_names_with_escapes_mean_what_they_say(site: Site, key: Key, engine: FaultEngine) -> None:
    """`str\\u0065am` is `stream`: the gateway and the engine must agree on it."""
    engine.reset()
    body = START + rb'"str\u0065am":true,' + MESSAGES + b"}"
    status, headers, answer = site.call("POST", "/chat/completions", body, key)
    assert status == 200
    assert headers["content-type"].startswith("text/event-stream")
    assert answer.rstrip().endswith(b"data: [DONE]")
    assert b'"usage":{' not in answer


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "identity, gzip", "x"])
def test_an_encoded_body_is_refused(site: Site, key: Key, encoding: str) -> None:
    status, _, body = site.call(
        "POST", "/chat/completions", b"\x1f\x8b" + b"\0" * 50, key, {"Content-Encoding": encoding}
    )
    assert status == 415, body
    assert isinstance(json.loads(body)["error"]["code"], str)


def test_a_body_over_the_limit(site: Site, key: Key) -> None:
    body = START + b'"messages":[{"role":"user","content":"' + b"a" * (16 * 1024 * 1024) + b'"}]}'
    status, _, answer = site.call("POST", "/chat/completions", body[: 16 * 1024 * 1024 + 1], key)
    assert status == 413, answer
    assert isinstance(json.loads(answer)["error"]["code"], str)


@pytest.mark.parametrize("path", ["/messages", "/responses", "/embeddings", "/completions"])
@pytest.mark.parametrize("body", [b"{", b"[]", b'{"model":"fault","model":"x"}', b'{"model":NaN}'])
def test_other_operations_are_as_strict(site: Site, key: Key, path: str, body: bytes) -> None:
    status, _, answer = site.call("POST", path, body, key)
    assert status == 400, answer
    error = json.loads(answer)["error"]
    assert error["type"] == "invalid_request_error"
