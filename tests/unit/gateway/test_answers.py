"""What engines answer in one piece: heads, figures, refusals."""

import json

import pytest

from appliance.gateway import answer_head, answers, usage
from appliance.gateway.answer_head import BadHead, Framing
from appliance.gateway.errors import BadRequest, ContextLengthExceeded, EngineError
from appliance.gateway.routes import CHAT, TRANSCRIPTIONS
from appliance.metering.accounting import Figures

JSON_HEAD = answer_head.parse(
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json; x\r\nContent-Length: 2"
)


@pytest.mark.parametrize(
    ("lines", "framing", "length", "keep_alive"),
    [
        (b"Content-Length: 5", Framing.LENGTH, 5, True),
        (b"content-length:5\r\nCONTENT-LENGTH: 5 ", Framing.LENGTH, 5, True),
        (b"Content-Length: 5\r\nConnection: close", Framing.LENGTH, 5, False),
        (b"Transfer-Encoding: Chunked", Framing.CHUNKED, 0, True),
        (b"X-A: 1", Framing.CLOSE, 0, False),
        (b"X-A:\r\nContent-Encoding: identity\r\nContent-Length: 0", Framing.LENGTH, 0, True),
    ],
)
def test_how_a_body_ends(lines, framing, length, keep_alive):
    head = answer_head.parse(b"HTTP/1.1 200 OK\r\n" + lines)
    assert (head.framing, head.length, head.keep_alive) == (framing, length, keep_alive)


@pytest.mark.parametrize(
    "head",
    [
        b"ICY 200 OK",
        b"HTTP/2 200 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6",
        b"HTTP/1.1 200 OK\r\nContent-Length: +5",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: gzip",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip",
        b"HTTP/1.1 200 OK\r\nBad Name: 1",
        b"HTTP/1.1 200 OK\r\n folded",
        b"HTTP/1.1 200 OK\r\nX: a\rY: b",
        b"HTTP/1.1 200 OK\r\nX: \x00",
        b"HTTP/1.1 200 OK\r\nno colon",
        b"HTTP/1.1 101 Switching Protocols",
    ],
)
def test_a_head_that_is_none(head):
    with pytest.raises(BadHead):
        answer_head.parse(head)


@pytest.mark.parametrize(
    ("raw", "figures"),
    [
        (b'{"prompt_tokens":5,"completion_tokens":3}', Figures(5, 3)),
        (b'{"prompt_tokens":5,"total_tokens":5}', Figures(5, None)),
        (
            b'{"prompt_tokens":5,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":2}}',
            Figures(5, 3, 2),
        ),
        (b'{"prompt_tokens":5,"completion_tokens":3,"prompt_tokens_details":null}', Figures(5, 3)),
        (
            b'{"input_tokens":5,"output_tokens":3,"input_tokens_details":{"cached_tokens":2}}',
            Figures(5, 3, 2),
        ),
        (
            b'{"input_tokens":3,"cache_read_input_tokens":2,"cache_creation_input_tokens":1,'
            b'"output_tokens":3}',
            Figures(6, 3, 2),
        ),
        (b"null", None),
        (b"", None),
        (b"[1]", None),
        (b'{"prompt_tokens":"5"}', None),
        (b'{"prompt_tokens":5.5}', None),
    ],
)
def test_usage_in_every_dialect(raw, figures):
    assert usage.read(raw) == figures


@pytest.mark.parametrize(
    "body",
    [b"", b"[1]", b"{", b'{"error":{"message":"x"}}', b'{"object":"error"}', b'{"x":"\xff"}'],
)
def test_a_success_that_is_none(body):
    with pytest.raises(answers.Unusable):
        answers.read(JSON_HEAD, body, CHAT)


def test_another_content_type():
    html = answer_head.parse(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2")
    with pytest.raises(answers.Unusable):
        answers.read(html, b"{}", CHAT)
    assert answers.read(html, b"some text", TRANSCRIPTIONS) is None


def test_the_text_that_was_generated():
    chat = {"choices": [{"message": {"content": "éa"}}, {"message": {"content": None}}]}
    for body, size in (
        (chat, 3),
        ({"choices": [{"text": "abcd"}]}, 4),
        ({"content": [{"type": "text", "text": "abc"}]}, 3),
        ({"output": [{"content": [{"text": "ab"}]}]}, 2),
        ({"choices": [{"message": {"tool_calls": [{"a": 1}]}}]}, 9),
    ):
        data = json.dumps(body, separators=(",", ":")).encode()
        assert answers.text_bytes(data) == size


OVERFLOWS = [
    {"error": {"message": "too long", "type": "exceed_context_size_error", "code": 400}},
    {"error": {"message": "too long", "code": "context_length_exceeded"}},
    {"error": {"message": "This model's maximum context length is 4096 tokens."}},
    {"object": "error", "message": "This model's maximum context length is 4096 tokens."},
]


@pytest.mark.parametrize("body", OVERFLOWS)
def test_a_prompt_that_does_not_fit(body):
    error = answers.refused(400, json.dumps(body).encode())
    assert isinstance(error, ContextLengthExceeded)


def test_whose_fault_a_status_is():
    assert isinstance(answers.refused(400, b'{"error":"temperature is negative"}'), BadRequest)
    assert answers.refused(422, b'{"detail":"no"}').message == "no"
    for status in (401, 403, 404, 405, 501):
        assert isinstance(answers.refused(status, b"{}"), EngineError)
        assert not answers.retried(status)
    for status in (301, 408, 429, 500, 502, 503):
        assert answers.retried(status)


@pytest.mark.parametrize(
    "secret",
    [
        "10.0.0.7:8000",
        "10.0.0.7",
        "http://node-3.internal:8000/v1",
        "node-3.internal:29501",
        "localhost:8000",
        "[fd00::1:2]:8000",
        "/var/lib/crosslogic/models/x.gguf",
    ],
)
def test_a_message_tells_nothing_of_the_inside(secret):
    body = json.dumps({"error": {"message": f"bad value, see {secret} for more"}}).encode()
    error = answers.refused(400, body)
    assert error.message.startswith("bad value, see ")
    assert secret not in error.message
    assert "node-3" not in error.message


def test_a_message_has_an_end_and_no_control_characters():
    body = json.dumps({"error": {"message": "a\r\nb" + "x" * 5_000}}).encode()
    message = answers.refused(400, body).message
    assert len(message) <= 500
    assert message.isprintable()
