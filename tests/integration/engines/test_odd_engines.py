"""Engines that are odd and within their rights: the client sees what it would from any other."""

from typing import Any

import pytest

from tests.fakes import sse
from tests.fakes.engine import FaultEngine, engine_in_thread
from tests.fakes.engine_answers import tokens
from tests.fakes.outcome import assert_honest_figures
from tests.fakes.site import Key, Site

STREAMS = [
    "chunk_extensions",
    "coalesced",
    "commented",
    "crlf_events",
    "informational",
    "late_start:0.4",
    "no_space",
    "slow_head:0.4",
    "split:1",
    "split:7",
    "split:1000",
    "trickled",
    "usage_on_every",
]


@pytest.mark.parametrize("fault", STREAMS)
@pytest.mark.parametrize("operation", ["chat", "completions", "responses", "messages"])
def test_streams(ask: Any, fault: str, operation: str) -> None:
    outcome = ask(operation, fault=fault, stream=True)
    assert outcome.status == 200
    assert sse.text(outcome.events) == "".join(tokens({}, 6))
    assert_honest_figures(outcome)
    if operation in {"chat", "completions"}:
        assert [event.done for event in outcome.events].count(True) == 1
        assert outcome.events[-1].done
        assert not any(event.json.get("usage") for event in outcome.events[:-1])


@pytest.mark.parametrize("fault", ["coalesced", "split:1", "split:7", "crlf_events", "no_space"])
def test_usage_that_was_asked_for_comes_through_any_framing(ask: Any, fault: str) -> None:
    outcome = ask(fault=fault, stream=True, stream_options={"include_usage": True})
    *_, closing, done = outcome.events
    assert done.done
    assert closing.json["choices"] == []
    assert closing.json["usage"]["completion_tokens"] == 6


@pytest.mark.parametrize("fault", ["closing", "informational", "slow_head:0.4", "until_close"])
@pytest.mark.parametrize("operation", ["chat", "embeddings"])
def test_answers(ask: Any, fault: str, operation: str) -> None:
    outcome = ask(operation, fault=fault)
    assert outcome.status == 200
    assert_honest_figures(outcome)


def test_the_engines_key_and_name_of_the_model(site: Site, key: Key) -> None:
    with engine_in_thread(FaultEngine("real-name", api_key="engine-secret")) as guarded:
        site.deployment("alias", guarded.url, api_key="engine-secret", upstream_model="real-name")
        body = {"model": "alias", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
        for stream in (False, True):
            status, _, answer = site.post("/chat/completions", {**body, "stream": stream}, key)
            assert status == 200, answer
            assert guarded.requests[-1].json["model"] == "real-name"
            assert guarded.requests[-1].header("authorization") == "Bearer engine-secret"
            assert b"engine-secret" not in answer
            # Clients are told the name that they know.
            assert b"real-name" not in answer
            assert b'"alias"' in answer
        site.admin("DELETE", "/v1/deployments/alias")


def test_a_url_with_a_path(site: Site, key: Key, engine: FaultEngine) -> None:
    """`--url` may end in /v1, as people copy it."""
    site.deployment("suffixed", engine.url + "/v1")
    body = {"model": "suffixed", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    status, _, answer = site.post("/chat/completions", body, key)
    assert status == 200, answer
    site.admin("DELETE", "/v1/deployments/suffixed")
