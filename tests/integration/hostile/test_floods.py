"""Thousands of connections at once: the endpoint stays up, and honest clients are answered."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.fakes.raw_client import request
from tests.fakes.site import Key, Site

pytestmark = pytest.mark.serial

FLOOD = 3_000
BODY = {"model": "fault", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}


@contextlib.contextmanager
def flood(address: tuple[str, int], count: int, data: bytes) -> Iterator[list[socket.socket]]:
    """Connections that have all sent `data`; those that were refused are left out."""
    made: list[socket.socket] = []
    try:
        for _ in range(count):
            one = socket.socket()
            one.settimeout(5.0)
            try:
                one.connect(address)
                if data:
                    one.sendall(data)
            except OSError:
                one.close()
                continue
            made.append(one)
        yield made
    finally:
        for one in made:
            one.close()


SHAPES = {
    "silent": b"",
    "half a head": b"GET /v1/mo",
    "half of a huge head": b"GET /v1/models HTTP/1.1\r\nX-A: " + b"a" * 30_000,
    "half of many headers": b"GET /v1/models HTTP/1.1\r\n" + b"X-A: b\r\n" * 3_000,
    "half a body": b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 99\r\n\r\n{",
}


@pytest.mark.parametrize("data", SHAPES.values(), ids=SHAPES)
def test_a_flood_of_connections(site: Site, key: Key, data: bytes) -> None:
    idle = site.sockets_open()
    with flood(site.address, FLOOD, data):
        begun = time.monotonic()
        status, _, answer = site.post("/chat/completions", BODY, key)
        assert status == 200, answer
        assert time.monotonic() - begun < 5.0
        assert site.memory_bytes() < 200 * 1024 * 1024
    until = time.monotonic() + 10
    while site.sockets_open() > idle + 10:
        assert time.monotonic() < until, "connections of clients that left are still open"
        time.sleep(0.05)


def test_a_flood_of_large_bodies(site: Site, key: Key) -> None:
    """Whole, valid and as large as allowed, forty at once: some are told to come again."""
    text = b"word " * 3_000_000
    body = (
        b'{"model":"fault","messages":[{"role":"user","content":"' + text + b'"}],"max_tokens":1}'
    )
    statuses: list[int] = []
    peaks: list[int] = []

    def send() -> None:
        # Closed by the server within the sending, after a refusal: that is an answer as well.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            status, headers, _ = site.call("POST", "/chat/completions", body, key)
            statuses.append(status)
            assert status == 200 or (status == 503 and float(headers["retry-after"]) > 0)

    threads = [threading.Thread(target=send) for _ in range(40)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        peaks.append(site.memory_bytes())
        time.sleep(0.01)
    assert 200 in statuses
    assert set(statuses) <= {200, 503}
    assert max(peaks) < 200 * 1024 * 1024


def test_a_storm_of_connects_and_resets(site: Site, key: Key) -> None:
    whole = request("GET", "/v1/models", None, key.bearer)
    for round_number in range(1_000):
        one = socket.create_connection(site.address, timeout=5)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        if round_number % 2:
            one.sendall(whole[: round_number % len(whole)])
        one.close()
    assert site.post("/chat/completions", BODY, key)[0] == 200


def test_refused_keys_do_not_pile_up(site: Site, key: Key) -> None:
    before = site.memory_bytes()
    stranger = request("GET", "/v1/models", None, {"Authorization": "Bearer clsk_live_" + "b" * 36})
    with socket.create_connection(site.address, timeout=5) as one:
        for _ in range(500):
            one.sendall(stranger)
            assert one.recv(65_536).startswith(b"HTTP/1.1 401")
    assert site.memory_bytes() - before < 8 * 1024 * 1024
