"""Requests that would take more than their part of the site: of its memory, time, room or keys."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.engine import FaultEngine
from tests.fakes.raw_client import RawClient, request
from tests.fakes.site import Key, Site

Connect = Callable[[], RawClient]
START = b'{"model":"fault","max_tokens":2,"messages":[{"role":"user","content":"hi"}]'
BODY = {"model": "fault", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
LARGEST_BYTES = 16 * 1024 * 1024
SIZE = 15_000_000
MANY: dict[str, bytes] = {
    "messages": b'{"model":"fault","messages":[' + b"1," * (SIZE // 2) + b"1]}",
    "token ids": START + b',"prompt":[' + b"1," * (SIZE // 2) + b"1]}",
    "strings": START + b',"x":[' + b'"",' * (SIZE // 3) + b'""]}',
    "objects": START + b',"x":[' + b"{}," * (SIZE // 3) + b"{}]}",
    "keys": START + b',"x":{' + b'"":1,' * (SIZE // 5) + b'"a":1}}',
}


def peak_bytes(site: Site) -> int:
    """The most that was ever resident."""
    status = Path(f"/proc/{site.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


@pytest.mark.parametrize("shape", MANY)
def test_a_body_of_millions_of_parts(site: Site, key: Key, shape: str) -> None:
    statuses: list[int] = []

    def send() -> None:
        status, _, body = site.call("POST", "/chat/completions", MANY[shape], key)
        statuses.append(status)
        assert json.loads(body)["error"]["code"] in {"invalid_request_error", "overloaded"}

    senders = [threading.Thread(target=send) for _ in range(3)]
    for sender in senders:
        sender.start()
    slowest = 0.0
    while any(sender.is_alive() for sender in senders):
        begun = time.monotonic()
        assert site.get("/models", key)[0] == 200
        slowest = max(slowest, time.monotonic() - begun)
        time.sleep(0.01)
    assert 400 in statuses
    assert set(statuses) <= {400, 503}
    assert slowest < 1.5
    assert peak_bytes(site) < 200 * 1024 * 1024


def test_slow_bodies_of_one_key_shut_nobody_out(site: Site, key: Key, connect: Connect) -> None:
    greedy = site.key()
    head = request(
        "POST", "/v1/chat/completions", None, {**greedy.bearer, "Content-Length": "16777216"}
    )
    for _ in range(4):
        connect().send(head + b" " * 1_000_000)
    assert site.post("/chat/completions", BODY, key)[0] == 200
    assert site.post("/chat/completions", BODY, greedy)[0] == 200
    large = START + b',"x":"' + b"a" * (LARGEST_BYTES - 200) + b'"}'
    assert site.call("POST", "/chat/completions", large, key)[0] == 200


def test_two_keys_of_anthropics_kind(site: Site, key: Key, engine: FaultEngine) -> None:
    other = site.key()
    engine.reset()
    body = json.dumps(BODY).encode()
    twice = f"POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    for lines in (
        f"x-api-key: {key.secret}\r\nx-api-key: {other.secret}\r\n",
        f"Authorization: Bearer {key.secret}\r\nx-api-key: {other.secret}\r\n",
    ):
        client = RawClient(site.address)
        client.send(f"{twice}{lines}\r\n".encode() + body)
        assert client.answer().status == 401
        client.close()
    assert not engine.requests


@pytest.mark.parametrize("name", ["n_predict", "max_new_tokens", "max_completion_tokens"])
def test_a_length_by_another_name(site: Site, engine: FaultEngine, name: str) -> None:
    limited = site.key(limits={"tokens_per_min": 5_000})
    assert site.post("/chat/completions", BODY, limited)[0] == 200
    engine.reset()
    status, _, body = site.post("/chat/completions", {**BODY, name: 1_000_000}, limited)
    assert (status, json.loads(body)["error"]["code"]) == (429, "rate_limit_exceeded")
    status, _, body = site.post("/chat/completions", {**BODY, name: -1}, limited)
    assert (status, json.loads(body)["error"]["param"]) == (400, name)
    assert not engine.requests
