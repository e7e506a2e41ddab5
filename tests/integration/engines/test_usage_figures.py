"""What engines say about usage, believed only where it can be true."""

import json
from typing import Any

import pytest

from tests.fakes.engine_faults import ABSURD
from tests.fakes.outcome import assert_honest_figures

OPERATIONS = ["chat", "completions", "responses", "messages"]


def assert_sane(outcome: Any, *, exact: bool) -> None:
    """Five words in, six tokens out: what was counted or estimated lies near it."""
    record = outcome.record
    assert outcome.status == 200
    assert record["status"] == "ok"
    assert record["measured"] in {"counted", "estimated"}
    for name in ("input_tokens", "output_tokens", "cached_tokens"):
        assert type(record[name]) is int
    assert 1 <= record["input_tokens"] <= 1_000
    assert record["cached_tokens"] <= record["input_tokens"]
    if exact:
        assert record["output_tokens"] == 6
    else:
        assert 1 <= record["output_tokens"] <= 100


@pytest.mark.parametrize("absurd", [name for name in ABSURD if name != "cached"])
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("stream", [False, True])
def test_absurd_usage(ask: Any, absurd: str, operation: str, *, stream: bool) -> None:
    more = {"stream": True} if stream else {}
    outcome = ask(operation, fault=f"absurd_usage:{absurd}", **more)
    # Events are counted one by one; a whole text goes through the tokenizer or is estimated.
    assert_sane(outcome, exact=stream)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("stream", [False, True])
def test_no_usage(ask: Any, operation: str, *, stream: bool) -> None:
    more = {"stream": True} if stream else {}
    outcome = ask(operation, fault="no_usage", **more)
    assert_sane(outcome, exact=stream)
    if stream and operation in {"chat", "completions"}:
        assert outcome.events[-1].done


def test_no_usage_of_embeddings(ask: Any) -> None:
    outcome = ask("embeddings", fault="no_usage")
    assert outcome.record["output_tokens"] == 0
    assert outcome.record["input_tokens"] > 0
    assert outcome.record["measured"] in {"counted", "estimated"}


@pytest.mark.parametrize("stream", [False, True])
def test_more_cached_than_there_were(ask: Any, *, stream: bool) -> None:
    outcome = ask(fault="absurd_usage:cached", stream=stream)
    assert outcome.record["status"] == "ok"
    assert outcome.record["cached_tokens"] <= outcome.record["input_tokens"]
    assert outcome.record["input_tokens"] <= 100


@pytest.mark.parametrize("operation", OPERATIONS)
def test_engines_that_put_usage_where_it_was_not_asked_for(ask: Any, operation: str) -> None:
    """vLLM with --enable-force-include-usage: usage on every chunk, asked or not."""
    outcome = ask(operation, fault="usage_on_every", stream=True)
    assert_honest_figures(outcome)
    if operation in {"chat", "completions"}:
        for event in outcome.events[:-1]:
            assert event.json.get("usage") is None
            assert event.json["choices"]


def test_usage_on_every_chunk_when_it_was_asked_for(ask: Any) -> None:
    outcome = ask(fault="usage_on_every", stream=True, stream_options={"include_usage": True})
    assert_honest_figures(outcome)
    *chunks, closing, done = outcome.events
    assert done.done
    assert closing.json["choices"] == []
    assert closing.json["usage"]["completion_tokens"] == 6
    assert all(chunk.json["usage"] is None for chunk in chunks)


def test_the_form_of_a_stream_with_usage(ask: Any) -> None:
    outcome = ask(stream=True, stream_options={"include_usage": True})
    assert_honest_figures(outcome)
    *chunks, closing, done = outcome.events
    assert done.done
    assert closing.json["choices"] == []
    assert closing.json["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 6,
        "total_tokens": 11,
        "prompt_tokens_details": {"cached_tokens": 1},
    }
    assert all(chunk.json["usage"] is None for chunk in chunks)


@pytest.mark.parametrize("options", [{}, {"include_usage": False}, None])
def test_the_form_of_a_stream_without_usage(ask: Any, options: Any) -> None:
    outcome = ask(stream=True, stream_options=options)
    assert_honest_figures(outcome)
    for event in outcome.events[:-1]:
        assert event.json.get("usage") is None
        assert event.json["choices"]


@pytest.mark.parametrize("include_usage", [False, True])
def test_usage_on_the_last_token(ask: Any, *, include_usage: bool) -> None:
    """Some engines send no closing usage chunk and put it on the chunk that finishes."""
    outcome = ask(
        fault="usage_on_finish", stream=True, stream_options={"include_usage": include_usage}
    )
    assert_honest_figures(outcome)
    with_usage = [
        event.json for event in outcome.events[:-1] if event.json.get("usage") is not None
    ]
    if not include_usage:
        assert not with_usage
    else:
        assert len(with_usage) == 1
        assert with_usage[0]["usage"]["completion_tokens"] == 6


def test_choices_are_counted_all(ask: Any) -> None:
    assert_honest_figures(ask(n=3))
    assert_honest_figures(ask(n=3, stream=True))
    assert_honest_figures(ask("completions", prompt=["a b", "c d e"], n=2))


def test_other_stream_options_are_kept(ask: Any, engine: Any) -> None:
    ask(stream=True, stream_options={"continuous_usage_stats": False, "x": [1]})
    options = json.loads(engine.requests[-1].body)["stream_options"]
    assert options == {"continuous_usage_stats": False, "x": [1], "include_usage": True}
