"""Replicas that are real llama.cpp processes: killed, frozen, and queued for.

A process stopped with SIGSTOP is the hung engine of the field: its sockets still accept.
"""

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import sse
from tests.fakes.raw_client import RawClient, request
from tests.fakes.site import Key, Site, running_site
from tests.fakes.tiny_gguf import write_tiny_gguf

FIRST_TOKEN_S = 4.0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    settings = {
        "CIC_TIMEOUTS_FIRST_TOKEN_S": str(FIRST_TOKEN_S),
        "CIC_TIMEOUTS_TOKEN_GAP_S": "2",
        "CIC_SCHEDULER_QUEUE_WAIT_S": "8",
        "CIC_SCHEDULER_EJECT_AFTER_FAILURES": "1",
        "CIC_SCHEDULER_EJECT_S": "30",
    }
    model = write_tiny_gguf(tmp_path_factory.mktemp("models") / "tiny.gguf")
    with running_site(settings=settings, with_agent=True) as running:
        body = {"engine": "llamacpp", "model": str(model), "context_tokens": 2048}
        for name, replicas in (("pair", 2), ("single", 1)):
            more = {"name": name, "replicas": replicas, "parallel": 1}
            running.admin("POST", "/v1/deployments", body | more)
        for name in ("pair", "single"):
            running.wait_ready(name, 60)
        yield running


@pytest.fixture(scope="module")
def key(site: Site) -> Key:
    return site.key()


def body_of(model: str, tokens: int, **more: Any) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": "river stone"}],
        "max_tokens": tokens,
        **more,
    }


def begin(site: Site, key: Key, request_id: str, body: dict[str, Any]) -> RawClient:
    client = RawClient(site.address, 20)
    headers = {**key.bearer, "X-Request-Id": request_id}
    client.send(request("POST", "/v1/chat/completions", json.dumps(body).encode(), headers))
    return client


def ready_replicas(site: Site, name: str) -> list[dict[str, Any]]:
    row = site.admin("GET", f"/v1/deployments/{name}")
    return [replica for replica in row["replicas"] if replica["state"] == "ready"]


def running_pid(site: Site, name: str) -> int:
    """The engine process that works on the one request of the deployment."""

    def found() -> int | None:
        busy = [r["pid"] for r in ready_replicas(site, name) if r["requests_running"]]
        return busy[0] if busy else None

    return site.until(found, 5, "a busy replica")


def test_a_killed_engine_ends_the_stream_and_is_started_again(site: Site, key: Key) -> None:
    site.until(lambda: len(ready_replicas(site, "pair")) == 2, 60, "two replicas")
    request_id = site.new_request_id()
    with begin(site, key, request_id, body_of("pair", 1_900, stream=True)) as client:
        pid = running_pid(site, "pair")
        client.socket.recv(1_000)
        os.kill(pid, signal.SIGKILL)
        events = sse.parse(b"\n\n" + client.body_until_last_chunk())
    assert events[-1].json["error"]["code"] == "engine_error"
    assert not any(event.done for event in events)
    record = site.record(request_id)
    assert (record["status"], record["error_code"]) == ("failed", "engine_error")
    assert record["output_tokens"] > 0
    # The other replica serves on at once, and the dead one comes back.
    for _ in range(5):
        assert site.post("/chat/completions", body_of("pair", 3), key)[0] == 200
    site.until(lambda: len(ready_replicas(site, "pair")) == 2, 30, "the replica to come back")
    assert Path(f"/proc/{pid}").exists() is False


def test_a_frozen_engine_fails_no_request(site: Site, key: Key) -> None:

    def alive() -> list[int]:
        """Their processes; a report may be a heartbeat older than the death of one."""
        pids = [replica["pid"] for replica in ready_replicas(site, "pair")]
        return [pid for pid in pids if Path(f"/proc/{pid}").exists()]

    site.until(lambda: len(alive()) == 2, 60, "two replicas")
    frozen = alive()[0]
    os.kill(frozen, signal.SIGSTOP)
    try:
        ids = [site.new_request_id() for _ in range(6)]
        with ThreadPoolExecutor(6) as pool:
            answers = list(
                pool.map(
                    lambda one: site.post(
                        "/chat/completions", body_of("pair", 3), key, {"X-Request-Id": one}
                    ),
                    ids,
                )
            )
        # The one that met it waited for the first token's deadline, and was replaced.
        assert [status for status, _, _ in answers] == [200] * 6
        # It is ejected now: nobody meets it again until its time is over.
        begun = time.monotonic()
        for _ in range(5):
            assert site.post("/chat/completions", body_of("pair", 3), key)[0] == 200
        assert time.monotonic() - begun < FIRST_TOKEN_S
    finally:
        os.kill(frozen, signal.SIGCONT)
    for one in ids:
        record = site.record(one)
        assert (record["status"], record["output_tokens"]) == ("ok", 3)


def test_what_an_engine_cannot_do_is_no_step_towards_ejection(site: Site, key: Key) -> None:
    """llama.cpp answers an image to a text model with a sound 500: no tenant may eject by it."""
    picture = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
    body = {**body_of("single", 3), "messages": [{"role": "user", "content": picture}]}
    for _ in range(4):
        assert site.post("/chat/completions", body, key)[0] in {400, 502}
    (replica,) = site.admin("GET", "/v1/deployments/single")["replicas"]
    assert (replica["state"], replica["reason"]) == ("ready", "")
    assert site.post("/chat/completions", body_of("single", 3), key)[0] == 200


def test_leaving_the_queue(site: Site, key: Key) -> None:
    """The one slot is taken: a client that waits and leaves gives its place up at once."""
    engine = ready_replicas(site, "single")[0]["pid"]
    os.kill(engine, signal.SIGSTOP)
    try:
        first_id, second_id = site.new_request_id(), site.new_request_id()
        with begin(site, key, first_id, body_of("single", 3)) as first:
            site.until(lambda: site.status()["requests_running"] == 1, 10, "the first to run")
            with begin(site, key, second_id, body_of("single", 3)):
                site.until(lambda: site.status()["requests_queued"] == 1, 10, "the second to wait")
            site.until(lambda: site.status()["requests_queued"] == 0, 5, "its place")
            os.kill(engine, signal.SIGCONT)
            assert first.answer().status == 200
    finally:
        os.kill(engine, signal.SIGCONT)
    record = site.record(second_id)
    assert (record["status"], record["http_status"]) == ("aborted", 499)
    assert (record["input_tokens"], record["output_tokens"]) == (0, 0)
    assert site.record(first_id)["status"] == "ok"


def test_a_queued_stream_hears_comments_and_then_its_answer(site: Site, key: Key) -> None:
    engine = ready_replicas(site, "single")[0]["pid"]
    os.kill(engine, signal.SIGSTOP)
    try:
        with (
            begin(site, key, site.new_request_id(), body_of("single", 3)) as first,
            begin(site, key, site.new_request_id(), body_of("single", 3, stream=True)) as second,
        ):
            site.until(lambda: site.status()["requests_queued"] == 1, 2, "the second to wait")
            head = second.socket.recv(4_096)
            assert b" 200 " in head.split(b"\r\n")[0]
            assert b"text/event-stream" in head
            if b"\r\n\r\n" in head and head.endswith(b"\r\n\r\n"):
                head += second.socket.recv(4_096)
            assert b"\r\n:" in head
            os.kill(engine, signal.SIGCONT)
            assert first.answer().status == 200
            assert b"[DONE]" in second.body_until_last_chunk()
    finally:
        os.kill(engine, signal.SIGCONT)
