"""Idempotency-Key: a repeated call is answered again and is neither run nor metered again."""

import threading
from typing import Any

import pytest

from tests.fakes.engine import FaultEngine
from tests.fakes.site import Key, Site


def body_of(**more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "once and only once"}]
    return {"model": "fault", "messages": messages, "max_tokens": 3, **more}


@pytest.fixture
def again(site: Site) -> dict[str, str]:
    return {"Idempotency-Key": site.new_request_id()}


def test_a_repeated_call_is_answered_from_memory(
    site: Site, key: Key, engine: FaultEngine, again: dict[str, str]
) -> None:
    before = len(site.ledger())
    first = site.post("/chat/completions", body_of(), key, again)
    second = site.post("/chat/completions", body_of(), key, again)
    assert first[0] == second[0] == 200
    assert first[2] == second[2]
    assert first[1]["x-crosslogic-usage"] == second[1]["x-crosslogic-usage"]
    assert len(engine.requests) == 1
    assert len(site.ledger()) == before + 1


def test_another_body_is_refused(site: Site, key: Key, again: dict[str, str]) -> None:
    assert site.post("/chat/completions", body_of(), key, again)[0] == 200
    status, _, answer = site.post("/chat/completions", body_of(seed=7), key, again)
    assert status == 422, answer
    assert site.post("/completions", {"model": "fault", "prompt": "x"}, key, again)[0] == 422


def test_keys_of_callers_do_not_meet(
    site: Site, key: Key, engine: FaultEngine, again: dict[str, str]
) -> None:
    other = site.key()
    first = site.post("/chat/completions", body_of(say="mine"), key, again)
    second = site.post("/chat/completions", body_of(say="yours"), other, again)
    assert first[0] == second[0] == 200
    assert b"yours" in second[2]
    assert b"mine" not in second[2]
    assert len(engine.requests) == 2


def test_what_failed_is_run_again(
    site: Site, key: Key, engine: FaultEngine, again: dict[str, str]
) -> None:
    engine.next_fault("status:500", path="/v1/chat/completions")
    assert site.post("/chat/completions", body_of(), key, again)[0] == 502
    assert site.post("/chat/completions", body_of(), key, again)[0] == 200
    assert len(engine.requests) == 2


def test_streams_are_run_each_time(
    site: Site, key: Key, engine: FaultEngine, again: dict[str, str]
) -> None:
    for _ in range(2):
        status, headers, _ = site.post("/chat/completions", body_of(stream=True), key, again)
        assert status == 200
        assert headers["content-type"].startswith("text/event-stream")
    assert len(engine.requests) == 2


def test_two_at_once_run_once(
    site: Site, key: Key, engine: FaultEngine, again: dict[str, str]
) -> None:
    body = body_of(fault="slow_head:0.5")
    answers: list[tuple[int, dict[str, str], bytes]] = []
    first = threading.Thread(
        target=lambda: answers.append(site.post("/chat/completions", body, key, again))
    )
    first.start()
    engine.wait_for(lambda requests: requests)
    status, headers, _ = site.post("/chat/completions", body, key, again)
    first.join()
    assert answers[0][0] == 200
    assert status in {200, 409}
    if status == 409:
        assert float(headers["retry-after"]) > 0
    assert len(engine.requests) == 1


@pytest.mark.parametrize("wrong", ["", " ", "a" * 10_000, "é", 'a"b'])
def test_a_key_that_is_none(site: Site, key: Key, engine: FaultEngine, wrong: str) -> None:
    """Refused or passed over; never a failure, and never two answers mixed."""
    headers = {"Idempotency-Key": wrong}
    status, _, _ = site.post("/chat/completions", body_of(), key, headers)
    assert status in {200, 400, 431}
