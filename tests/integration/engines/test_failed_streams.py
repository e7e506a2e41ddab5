"""Streams from engines that fail: before the first byte an answer, after it an error event.

Never `[DONE]` after a failure, and the record counts what had been generated.
"""

from typing import Any

import pytest

from tests.fakes import sse
from tests.fakes.engine import FaultEngine
from tests.fakes.engine_answers import tokens
from tests.fakes.site import Site

BEFORE = [
    "bad_header_bytes",
    "bad_status_line",
    "close_after_head",
    "close_before_head",
    "close_in_head",
    "endless_head",
    "error_first",
    "error_with_200",
    "json_for_stream",
    "length_and_chunked",
    "no_events",
    "not_http",
    "redirect",
    "reset_after_head",
    "reset_before_head",
    "status:500",
    "status_html:500",
    "switching",
    "two_lengths",
    "wrong_type",
]


@pytest.mark.parametrize("fault", BEFORE)
def test_a_failure_before_the_first_byte(ask: Any, fault: str) -> None:
    outcome = ask(fault=fault, stream=True)
    assert outcome.status == 502
    assert outcome.error_code == "engine_error"
    assert not outcome.streamed
    assert outcome.record["status"] == "failed"
    assert outcome.record["error_code"] == "engine_error"
    assert outcome.record["output_tokens"] == 0


@pytest.mark.parametrize("fault", ["hang_before_head", "hang_after_head", "comments_only"])
def test_silence_before_the_first_byte(ask: Any, engine: FaultEngine, fault: str) -> None:
    """Comments are no tokens: a hung engine that sends them is a hung engine."""
    outcome = ask(fault=fault, stream=True)
    if not outcome.streamed:
        assert outcome.status == 504
    assert outcome.error_code == "engine_timeout"
    assert b"[DONE]" not in outcome.body
    assert outcome.record["status"] == "failed"
    assert outcome.record["error_code"] == "engine_timeout"
    assert outcome.record["output_tokens"] == 0
    assert outcome.record["latency_ms"] < 4_000
    engine.wait_for(lambda requests: requests[-1].closed_at, 1.0)


AFTER = [
    "bad_chunk_end",
    "bad_chunk_size",
    "bad_json_event",
    "bad_sse",
    "bad_utf8_event",
    "close_mid_event",
    "close_mid_stream",
    "endless_chunk_extension",
    "eof_without_done",
    "error_then_done",
    "huge_chunk_size",
    "negative_chunk_size",
    "reset_mid_stream",
    "scalar_event",
]


def assert_ends_in_an_error(outcome: Any, code: str, generated: int) -> None:
    assert outcome.status == 200
    assert outcome.streamed
    assert b"[DONE]" not in outcome.body
    *events, last = outcome.events
    assert set(last.json) == {"error"}
    assert set(last.json["error"]) == {"message", "type", "param", "code"}
    assert last.json["error"]["code"] == code
    assert sse.text(events) == "".join(tokens({}, 6)[:generated])
    assert not any("error" in event.json for event in events)
    record = outcome.record
    assert (record["status"], record["error_code"]) == ("failed", code)
    assert record["output_tokens"] == generated
    assert record["input_tokens"] > 0
    assert record["measured"] in {"counted", "estimated"}


@pytest.mark.parametrize("fault", AFTER)
@pytest.mark.parametrize("include_usage", [False, True])
def test_a_failure_after_the_first_byte(ask: Any, fault: str, *, include_usage: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if include_usage else {}
    outcome = ask(fault=fault, stream=True, **options)
    assert_ends_in_an_error(outcome, "engine_error", 2)


@pytest.mark.parametrize("fault", AFTER)
def test_tokens_and_the_failure_in_one_piece(ask: Any, fault: str) -> None:
    """Nothing may have been sent yet, then it is an answer; what was sent is what is recorded."""
    outcome = ask(fault=fault, stream=True, breathless=True)
    assert outcome.error_code == "engine_error"
    assert b"[DONE]" not in outcome.body
    assert (outcome.record["status"], outcome.record["error_code"]) == ("failed", "engine_error")
    if outcome.status == 200:
        said = sse.text(outcome.events[:-1])
        assert outcome.record["output_tokens"] == len(said.split())
    else:
        assert outcome.status == 502
        assert outcome.record["output_tokens"] == 0


@pytest.mark.parametrize("fault", ["hang_mid_stream", "comments_mid_stream", "trickled_event"])
def test_silence_after_the_first_byte(ask: Any, engine: FaultEngine, fault: str) -> None:
    outcome = ask(fault=fault, stream=True)
    assert_ends_in_an_error(outcome, "engine_timeout", 2)
    engine.wait_for(lambda requests: requests[-1].closed_at, 1.0)


def test_all_was_said_and_the_end_never_comes(ask: Any) -> None:
    """The engine's usage came, so the record has it, whatever the stream's end is called."""
    outcome = ask(fault="hang_before_done", stream=True)
    assert sse.text([e for e in outcome.events if "choices" in e.data]) == "".join(tokens({}, 6))
    assert (outcome.record["input_tokens"], outcome.record["output_tokens"]) == (5, 6)
    if outcome.record["status"] == "failed":
        assert b"[DONE]" not in outcome.body
        assert outcome.error_code == "engine_timeout"


def test_done_and_nothing_else(ask: Any) -> None:
    outcome = ask(fault="done_at_once", stream=True)
    assert outcome.record["output_tokens"] == 0
    assert outcome.record["status"] == "failed"
    assert b"[DONE]" not in outcome.body


@pytest.mark.parametrize("fault", ["done_twice", "events_after_done"])
def test_what_comes_after_the_end_is_not_passed_on(ask: Any, fault: str) -> None:
    outcome = ask(fault=fault, stream=True)
    assert outcome.body.count(b"[DONE]") == 1
    assert outcome.events[-1].done
    assert outcome.record["status"] == "ok"
    assert outcome.record["output_tokens"] == 6
    assert ask().status == 200


@pytest.mark.parametrize("size", [2_000_000, 67_108_864])
def test_a_giant_event_is_held_in_no_memory(ask: Any, site: Site, size: int) -> None:
    outcome = ask(fault=f"giant_event:{size}", stream=True)
    assert site.memory_bytes() < 200 * 1024 * 1024
    if outcome.record["status"] == "failed":
        assert_ends_in_an_error(outcome, "engine_error", 2)


@pytest.mark.parametrize("operation", ["completions", "responses", "messages"])
@pytest.mark.parametrize(
    "fault",
    [
        "close_mid_stream",
        "reset_mid_stream",
        "bad_json_event",
        "error_then_done",
        "eof_without_done",
    ],
)
def test_streams_of_other_dialects(ask: Any, operation: str, fault: str) -> None:
    outcome = ask(operation, fault=fault, stream=True)
    assert b"[DONE]" not in outcome.body
    last = outcome.events[-1]
    if operation == "messages":
        assert last.event == "error"
        assert last.json["type"] == "error"
        assert last.json["error"]["type"] == "api_error"
    elif operation == "responses":
        # The stream's own form: a bare error event is what its clients raise on.
        assert "error" in last.data
        assert "response.completed" not in outcome.body.decode()
    else:
        assert last.json["error"]["code"] == "engine_error"
    assert outcome.record["status"] == "failed"
    assert outcome.record["output_tokens"] == 2
    assert outcome.record["input_tokens"] > 0


@pytest.mark.parametrize("operation", ["chat", "completions", "responses", "messages"])
def test_a_gap_in_other_dialects(ask: Any, operation: str) -> None:
    outcome = ask(operation, fault="hang_mid_stream:3", stream=True)
    assert outcome.record["status"] == "failed"
    assert outcome.record["error_code"] == "engine_timeout"
    assert outcome.record["output_tokens"] == 3
