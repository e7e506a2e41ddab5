"""Answers that are not streamed, from engines that fail: one envelope, one truthful record."""

from typing import Any

import pytest

from tests.fakes.engine import FaultEngine
from tests.fakes.site import Key, Site

ENGINE_ERROR = [
    "bad_chunk_end",
    "bad_chunk_size",
    "bad_header_bytes",
    "bad_json_body",
    "bad_status_line",
    "close_after_head",
    "close_before_head",
    "close_in_head",
    "close_mid_body",
    "empty_body",
    "endless_chunk_extension",
    "endless_head",
    "error_with_200",
    "huge_chunk_size",
    "length_and_chunked",
    "length_long",
    "length_short",
    "list_body",
    "negative_chunk_size",
    "not_http",
    "redirect",
    "redirect:http://127.0.0.1:1/v1/chat/completions",
    "reset_after_head",
    "reset_before_head",
    "reset_mid_body",
    "status:500",
    "status:501",
    "status:502",
    "status:599",
    "status_empty:500",
    "status_html:502",
    "status_html:404",
    "status:204",
    "switching",
    "two_lengths",
    "unauthorized",
    "wrong_type",
]


@pytest.mark.parametrize("fault", ENGINE_ERROR)
def test_an_engine_that_fails(ask: Any, fault: str) -> None:
    outcome = ask(fault=fault)
    assert outcome.status == 502
    assert outcome.error_code == "engine_error"
    assert outcome.json["error"]["message"]
    record = outcome.record
    assert record["status"] == "failed"
    assert record["error_code"] == "engine_error"
    assert record["output_tokens"] == 0


SILENT = ["hang_before_head", "hang_after_head", "hang_mid_body", "trickled_head"]


@pytest.mark.parametrize("fault", [*SILENT, "endless_informational"])
def test_an_engine_that_is_silent(ask: Any, engine: FaultEngine, fault: str) -> None:
    outcome = ask(fault=fault)
    assert outcome.status == 504
    assert outcome.error_code == "engine_timeout"
    assert outcome.record["status"] == "failed"
    assert outcome.record["error_code"] == "engine_timeout"
    assert outcome.record["output_tokens"] == 0
    assert 700 <= outcome.record["latency_ms"] <= 4_000
    # The engine is not left at work for nobody.
    engine.wait_for(lambda requests: requests[-1].closed_at, 1.0)


@pytest.mark.parametrize("fault", ["status:503", "status:429"])
def test_an_engine_that_is_overloaded(ask: Any, fault: str) -> None:
    outcome = ask(fault=fault)
    assert (outcome.status, outcome.error_code) in {(503, "overloaded"), (502, "engine_error")}
    assert outcome.record["status"] == "failed"
    assert outcome.record["output_tokens"] == 0


@pytest.mark.parametrize("fault", ["context_vllm", "context_llamacpp"])
@pytest.mark.parametrize("operation", ["chat", "completions", "responses", "embeddings"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_does_not_fit(ask: Any, fault: str, operation: str, *, stream: bool) -> None:
    if operation == "embeddings" and stream:
        pytest.skip("embeddings are never streamed")
    outcome = ask(operation, fault=fault, **({"stream": True} if stream else {}))
    assert outcome.status == 400
    assert outcome.error_code == "context_length_exceeded"
    assert outcome.json["error"]["type"] == "invalid_request_error"
    assert outcome.record["output_tokens"] == 0


def test_what_an_engine_refuses(ask: Any) -> None:
    outcome = ask(fault="bad_request")
    assert outcome.status == 400
    assert "temperature must be non-negative" in outcome.json["error"]["message"]
    assert set(outcome.json["error"]) == {"message", "type", "param", "code"}
    assert isinstance(outcome.error_code, str)


def test_an_engine_that_refuses_before_it_has_read(ask: Any, engine: FaultEngine) -> None:
    engine.next_fault("early_refusal")
    outcome = ask()
    assert outcome.status in {400, 413, 502}
    assert isinstance(outcome.error_code, str)
    assert outcome.record["output_tokens"] == 0


@pytest.mark.parametrize(
    "fault", ["close_before_head", "status:500", "bad_json_body", "hang_before_head", "wrong_type"]
)
def test_failures_in_anthropics_envelope(ask: Any, fault: str) -> None:
    outcome = ask("messages", fault=fault)
    assert outcome.status == (504 if fault == "hang_before_head" else 502)
    assert outcome.json["type"] == "error"
    assert outcome.json["error"]["type"] in {"api_error", "timeout_error"}
    assert outcome.headers["request-id"]
    assert outcome.record["status"] == "failed"


@pytest.mark.parametrize("operation", ["completions", "responses", "embeddings"])
@pytest.mark.parametrize("fault", ["close_mid_body", "status:500", "bad_json_body"])
def test_failures_of_other_operations(ask: Any, operation: str, fault: str) -> None:
    outcome = ask(operation, fault=fault)
    assert (outcome.status, outcome.error_code) == (502, "engine_error")
    assert outcome.record["status"] == "failed"


@pytest.mark.parametrize(
    ("fault", "wanted"), [("extra_answer", 6), ("extra_answer_later", 6), ("length_short", None)]
)
def test_bytes_nobody_asked_for_reach_nobody(
    ask: Any, engine: FaultEngine, fault: str, wanted: int | None
) -> None:
    first = ask(fault=fault)
    assert first.status == (502 if wanted is None else 200)
    # Until all of it is sent: what comes on an idle connection can be told from an answer.
    engine.wait_for(lambda requests: requests[0].ended_at)
    for _ in range(3):
        following = ask()
        assert following.status == 200
        assert "forged" not in following.json
        assert following.record["output_tokens"] == 6
    used = [request.connection for request in engine.requests]
    assert used[0] not in used[1:]


def test_headers_of_the_engine_stop_at_the_gateway(ask: Any) -> None:
    for stream in (False, True):
        outcome = ask(fault="injected_headers", stream=stream)
        assert outcome.status == 200
        for name in ("set-cookie", "via", "location", "x-secret", "retry-after"):
            assert name not in outcome.headers
        assert "vllm" not in outcome.headers.get("server", "")
        assert outcome.headers.get("x-ratelimit-limit-requests") != "999999"
        assert outcome.headers.get("x-crosslogic-usage") in {None, outcome.record["record_id"]}


def test_a_compressed_answer_is_metered_or_refused(ask: Any) -> None:
    outcome = ask(fault="gzipped")
    if outcome.status == 200:
        assert outcome.record["measured"] == "engine"
        assert outcome.json["choices"]
    else:
        assert (outcome.status, outcome.error_code) == (502, "engine_error")


def test_a_stale_kept_alive_connection_is_no_failure(ask: Any) -> None:
    """The engine closed an idle connection: the request had not begun, so it is sent again."""
    for _ in range(3):
        assert ask(fault="close_on_reuse").status == 200


def test_an_engine_that_is_gone(site: Site, key: Key) -> None:
    request_id = site.new_request_id()
    site.deployment("nowhere", "http://127.0.0.1:9", wait=False)
    body = {"model": "nowhere", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}

    def known() -> bool:
        return site.post("/chat/completions", body, key)[0] != 404

    site.until(known, 5, "the deployment to be known")
    status, _, answer = site.post("/chat/completions", body, key, {"X-Request-Id": request_id})
    assert status in {502, 503}
    assert b"127.0.0.1" not in answer


def test_a_giant_answer_does_not_fill_the_memory(ask: Any, site: Site) -> None:
    outcome = ask(fault="giant_body:67108864")
    assert outcome.status in {200, 502}
    assert site.memory_bytes() < 200 * 1024 * 1024
