"""Errors in both envelopes, and the bytes of heads."""

import json

import pytest

from appliance.gateway import errors, head
from appliance.gateway.errors import Family, GatewayError
from appliance.limits.reservation import Gauge


def _all(base):
    for kind in base.__subclasses__():
        yield kind
        yield from _all(kind)


KINDS = sorted(set(_all(GatewayError)), key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_in_both_envelopes(kind):
    error = kind("What happened.", next_step="Do this.", param="model")
    body = json.loads(errors.envelope(error, Family.OPENAI, "req_1"))["error"]
    assert body == {
        "message": "What happened. Do this.",
        "type": kind.kind,
        "param": "model",
        "code": kind.code,
    }
    other = json.loads(errors.envelope(error, Family.ANTHROPIC, "req_1"))
    assert other["type"] == "error"
    assert other["request_id"] == "req_1"
    assert other["error"]["message"] == "What happened. Do this."
    status = errors.http_status(error, Family.ANTHROPIC)
    assert status == (529 if kind.status == 503 else kind.status)
    assert (other["error"]["type"] == "api_error") == (
        kind.status >= 500 and status not in {504, 529}
    )


def test_codes_are_unique_and_in_the_tree():
    own = [kind for kind in KINDS if "code" in vars(kind)]
    assert len({kind.code for kind in own}) == len(own)
    for kind in KINDS:
        assert kind.__name__ in (errors.__doc__ or ""), kind


def test_headers_of_errors():
    assert b"Retry-After: 7\r\n" in errors.headers(errors.Overloaded("x", retry_after_s=7))
    assert b"x-should-retry: false\r\n" in errors.headers(errors.InsufficientQuota("x"))
    assert b"WWW-Authenticate: Bearer\r\n" in errors.headers(errors.InvalidApiKey("x"))


def test_an_error_in_a_stream():
    error = errors.EngineError("x")
    assert errors.event(error, Family.OPENAI, "r").startswith(b'data: {"error":')
    assert errors.event(error, Family.ANTHROPIC, "r").startswith(
        b'event: error\ndata: {"type":"error"'
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, b"0ms"),
        (-1.0, b"0ms"),
        (0.0114, b"12ms"),
        (0.9991, b"1s"),
        (7.0, b"7s"),
        (59.2, b"1m0s"),
        (90.0, b"1m30s"),
        (3600.0, b"1h0m0s"),
        (7205.0, b"2h0m5s"),
    ],
)
def test_durations(seconds, text):
    assert head.duration(seconds) == text


def test_rate_limit_lines():
    lines = head.rate_limits(Gauge(10, 3, 1.5), None)
    assert lines == (
        b"x-ratelimit-limit-requests: 10\r\nx-ratelimit-remaining-requests: 3\r\n"
        b"x-ratelimit-reset-requests: 2s\r\n"
    )
    assert head.rate_limits(None, None) == b""


@pytest.mark.parametrize("text", ["a", "req-1_x.Y", "a" * 128])
def test_request_ids_that_may_be_echoed(text):
    assert head.sane_request_id(text)


@pytest.mark.parametrize("text", ["", "a b", "a\r\nb", "é", "a" * 129, "a;b", None])
def test_request_ids_that_may_not(text):
    assert not head.sane_request_id(text)


def test_the_date_is_rendered_once_a_second():
    dater = head.Dater()
    first = dater.line(1_700_000_000_000_000_000)
    assert first == b"Date: Tue, 14 Nov 2023 22:13:20 GMT\r\n"
    assert dater.line(1_700_000_000_900_000_000) is first
    assert dater.line(1_700_000_001_000_000_000) != first
