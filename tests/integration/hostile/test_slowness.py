"""Slow heads, slow bodies, huge promises, idle and endless connections: closed in time."""

import signal
import time
from collections.abc import Callable

import pytest

from tests.fakes.engine import FaultEngine
from tests.fakes.raw_client import Closed, RawClient, request
from tests.fakes.site import Key, Site

Connect = Callable[[], RawClient]
HEAD_S, BODY_S, KEEPALIVE_S, WRITE_S = 1.0, 1.5, 2.0, 3.0
SLACK_S = 1.5
CHAT = b'{"model":"fault","messages":[{"role":"user","content":"hi"}],"max_tokens":2}'


def bearer(key: Key) -> dict[str, str]:
    return {"Authorization": f"Bearer {key.secret}"}


def assert_ends(client: RawClient, begun: float, deadline_s: float, statuses: set[int]) -> None:
    """Answered with one of the statuses and closed, or closed, and neither early nor late."""
    try:
        answer = client.answer()
        assert answer.status in statuses, answer
        assert isinstance(answer.json["error"]["code"], str)
    except Closed:
        pass
    else:
        assert client.closed_within(SLACK_S)
    took = time.monotonic() - begun
    assert deadline_s * 0.8 <= took <= deadline_s + SLACK_S


def test_a_connection_that_says_nothing(connect: Connect) -> None:
    client = connect()
    assert client.closed_within(KEEPALIVE_S + SLACK_S)


def test_a_head_that_never_ends(connect: Connect) -> None:
    client = connect()
    begun = time.monotonic()
    client.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n")
    assert_ends(client, begun, HEAD_S, {408})


def test_many_heads_in_part_that_come_with_their_connections(site: Site, connect: Connect) -> None:
    """Their first bytes are there before the server has had a turn for the connection."""
    site.signal(signal.SIGSTOP)
    try:
        clients = [connect() for _ in range(40)]
        for client in clients:
            client.send(b"POST /v1/ch")
    finally:
        site.signal(signal.SIGCONT)
    begun = time.monotonic()
    assert {client.answer().status for client in clients} == {
        408
    }  # the head's deadline, not another
    assert time.monotonic() - begun <= HEAD_S + SLACK_S


def test_a_head_that_trickles(connect: Connect) -> None:
    client = connect()
    begun = time.monotonic()
    # Each byte comes well before the deadline, so a timer that starts anew would never end it.
    sent = client.send_slowly(b"GET /v1/models HTTP/1.1\r\nX-Slow: " + b"a" * 400, 0.1)
    assert sent < 300
    assert time.monotonic() - begun <= HEAD_S + SLACK_S


def test_a_body_that_never_ends(connect: Connect, key: Key) -> None:
    client = connect()
    begun = time.monotonic()
    head = request("POST", "/v1/chat/completions", CHAT, bearer(key))
    client.send(head[:-10])
    assert_ends(client, begun, BODY_S, {408})


def test_a_body_that_trickles(connect: Connect, key: Key) -> None:
    client = connect()
    begun = time.monotonic()
    whole = request("POST", "/v1/chat/completions", CHAT, bearer(key))
    client.send(whole[: -len(CHAT)])
    assert client.send_slowly(CHAT, 0.1) < len(CHAT)
    assert time.monotonic() - begun <= BODY_S + SLACK_S


def test_a_chunked_body_that_trickles(connect: Connect, key: Key) -> None:
    client = connect()
    begun = time.monotonic()
    chunked = {**bearer(key), "Transfer-Encoding": "chunked"}
    client.send(request("POST", "/v1/chat/completions", b"", chunked))
    client.send_slowly(b"1\r\n{\r\n" * 50, 0.05)
    assert client.closed_within(SLACK_S)
    assert time.monotonic() - begun <= BODY_S + 2 * SLACK_S


def test_a_slow_second_request_on_a_kept_alive_connection(connect: Connect, key: Key) -> None:
    client = connect()
    client.send(request("POST", "/v1/chat/completions", CHAT, bearer(key)))
    assert client.answer().status == 200
    begun = time.monotonic()
    client.send(b"POST /v1/chat/comp")
    assert_ends(client, begun, HEAD_S, {408})


def test_a_slow_second_body_on_a_kept_alive_connection(connect: Connect, key: Key) -> None:
    client = connect()
    client.send(request("POST", "/v1/chat/completions", CHAT, bearer(key)))
    assert client.answer().status == 200
    begun = time.monotonic()
    client.send(request("POST", "/v1/chat/completions", CHAT, bearer(key))[:-5])
    assert_ends(client, begun, BODY_S, {408})


def test_a_kept_alive_connection_that_idles(connect: Connect, key: Key) -> None:
    client = connect()
    client.send(request("GET", "/v1/models", None, bearer(key)))
    assert client.answer().status == 200
    begun = time.monotonic()
    assert client.closed_within(KEEPALIVE_S + SLACK_S)
    assert time.monotonic() - begun >= KEEPALIVE_S * 0.8


@pytest.mark.parametrize("known", [True, False])
def test_ten_gigabytes_are_refused_unread(connect: Connect, key: Key, *, known: bool) -> None:
    client = connect()
    begun = time.monotonic()
    headers = {**(bearer(key) if known else {}), "Content-Length": str(10 * 1024**3)}
    client.send(request("POST", "/v1/chat/completions", b"", headers))
    answer = client.answer()
    assert answer.status == (413 if known else 401)
    assert time.monotonic() - begun < 1.0
    assert client.closed_within(BODY_S + SLACK_S)


def test_a_chunked_body_without_end_is_cut_at_the_limit(connect: Connect, key: Key) -> None:
    client = connect()
    chunked = {**bearer(key), "Transfer-Encoding": "chunked"}
    client.send(request("POST", "/v1/chat/completions", b"", chunked))
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    sent = 0
    try:
        while sent < 64 * 1024 * 1024:
            client.send(chunk)
            sent += 0x10000
    except (BrokenPipeError, ConnectionResetError):
        pass
    assert sent < 40 * 1024 * 1024


def test_the_key_is_checked_before_the_body_is_read(connect: Connect) -> None:
    client = connect()
    begun = time.monotonic()
    stranger = {"Authorization": "Bearer clsk_live_nobody", "Content-Length": "1000000"}
    client.send(request("POST", "/v1/chat/completions", b"", stranger))
    answer = client.answer()
    assert answer.status == 401
    assert answer.json["error"]["code"] == "invalid_api_key"
    assert time.monotonic() - begun < 0.5


def test_a_client_that_takes_nothing_is_left(
    site: Site, connect: Connect, key: Key, engine: FaultEngine
) -> None:
    """Neither the client nor the engine is held for longer than the deadline of a write."""
    engine.reset()
    client = connect()
    body = CHAT[:-1].replace(b'"max_tokens":2', b'"max_tokens":50000') + b',"stream":true,"say":"'
    whole = request(
        "POST",
        "/v1/chat/completions",
        body + b"x" * 2_000 + b'"}',
        {**bearer(key), "X-Request-Id": "takes-nothing"},
    )
    client.send(whole)
    left = engine.wait_for(lambda requests: requests and requests[-1].closed_at, WRITE_S + 8)
    assert left - engine.requests[-1].started_at >= WRITE_S * 0.8
    record = site.record("takes-nothing")
    assert record["status"] == "aborted"
    assert 0 < record["output_tokens"] <= engine.requests[-1].tokens_sent


def test_a_client_that_does_not_read(site: Site, connect: Connect, key: Key) -> None:
    """Backpressure: what the client does not take is not piled up in the gateway."""
    before = site.memory_bytes()
    clients = [connect() for _ in range(4)]
    body = (
        b'{"model":"fault","messages":[{"role":"user","content":"hi"}],"stream":true,'
        b'"fault":"giant_event:900000","max_tokens":50000,"say":"' + b"x" * 2000 + b'"}'
    )
    honest = body.replace(b'"fault":"giant_event:900000",', b"")
    for client in clients:
        client.send(request("POST", "/v1/chat/completions", honest, bearer(key)))
    peak = before
    until = time.monotonic() + 3
    while time.monotonic() < until:
        peak = max(peak, site.memory_bytes())
        time.sleep(0.05)
    assert peak - before < 32 * 1024 * 1024
    for client in clients:
        client.close()
    site.wait_idle()
