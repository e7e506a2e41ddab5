"""What a request may use and did use, however it says so: reserved whole, and billed whole."""

import json

import pytest

from appliance.domain.limits import Layer, LayerLimits, Limits
from appliance.domain.usage import Measured
from tests.fakes.endpoint import chat, endpoint, target
from tests.fakes.engine import FaultEngine

TEXT = "word " * 100
PER_MINUTE = (LayerLimits(Layer.KEY, "key_1", Limits(tokens_per_min=20_000)),)


@pytest.mark.parametrize("name", ["n_predict", "max_new_tokens", "max_completion_tokens"])
async def test_the_largest_length_is_reserved(name):
    async with FaultEngine() as engine, endpoint(target(engine.port), layers=PER_MINUTE) as site:
        site.change_entry(context_tokens=None)
        answer = await site.ask(chat(max_tokens=1, **{name: 5}))
        assert 19_000 < int(answer.headers["x-ratelimit-remaining-tokens"]) < 20_000
        answer = await site.ask(chat(max_tokens=1, **{name: 30_000}))
        assert (answer.status, answer.code) == (429, "rate_limit_exceeded")
        assert len(engine.requests) == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": [TEXT] * 40}),
        ("/v1/embeddings", {"input": [[7] * 100] * 40}),
        ("/v1/rerank", {"query": "q", "documents": [TEXT] * 40}),
    ],
)
async def test_many_inputs_are_not_one_context(path, body):
    """A context is 256 tokens here, and what an engine counts for forty texts is more."""
    async with FaultEngine() as engine, endpoint(target(engine.port)) as site:
        site.change_entry(context_tokens=256)
        answer = await site.ask({"model": "fault", **body}, path)
        assert answer.status == 200, answer
        record = site.ledger.only()
        assert record.measured is Measured.ENGINE
        assert record.tokens.input >= 4_000
        assert record.opening.prompt_estimate > 256  # of all of them, not of one context


async def test_many_inputs_are_reserved_whole():
    async with FaultEngine() as engine, endpoint(target(engine.port), layers=PER_MINUTE) as site:
        site.change_entry(context_tokens=256)
        small = {"model": "fault", "input": "w"}
        assert (await site.ask(small, "/v1/embeddings")).status == 200
        answer = await site.ask({"model": "fault", "input": ["w" * 255] * 100}, "/v1/embeddings")
        assert (answer.status, answer.code) == (429, "rate_limit_exceeded")
        assert len(engine.requests) == 1


async def test_one_prompt_in_a_request_where_the_engine_counts_one():
    async with FaultEngine() as engine, endpoint(target(engine.port)) as site:
        site.change_entry(engine="llamacpp")
        for prompt in (["a", "b"], [[1], [2]], [{"prompt_string": "a"}] * 2, [1, "a"]):
            answer = await site.ask({"model": "fault", "prompt": prompt}, "/v1/completions")
            assert (answer.status, answer.code) == (400, "unsupported_operation")
            assert answer.json["error"]["param"] == "prompt"
        assert not engine.requests
        for prompt in ("a", ["a"], [1, 2], [[1, 2]]):
            answer = await site.ask({"model": "fault", "prompt": prompt}, "/v1/completions")
            assert answer.status == 200


PAD = "x" * 70_000
TWICE_A_MINUTE = (LayerLimits(Layer.KEY, "key_1", Limits(requests_per_min=2)),)


@pytest.mark.parametrize("chunked", [False, True])
async def test_large_bodies_count_before_they_are_requests(chunked):
    """What is refused for its body was read all the same: it takes its place in the limit."""
    async with FaultEngine() as engine, endpoint(target(engine.port), layers=TWICE_A_MINUTE) as s:
        body = json.dumps(chat(pad=PAD, n="no")).encode()
        headers = None
        if chunked:
            headers = {"Transfer-Encoding": "chunked", "Content-Length": ""}
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        for status in (400, 400, 429, 429):
            assert (await s.ask(body, headers=headers)).status == status
        assert not engine.requests


async def test_a_large_request_counts_once():
    async with FaultEngine() as engine, endpoint(target(engine.port), layers=TWICE_A_MINUTE) as s:
        for status, left in ((200, "1"), (200, "0"), (429, "0")):
            answer = await s.ask(chat(pad=PAD))
            assert (answer.status, answer.headers["x-ratelimit-remaining-requests"]) == (
                status,
                left,
            )
        assert len(engine.requests) == 2


async def test_nothing_of_a_response_is_kept():
    async with FaultEngine() as engine, endpoint(target(engine.port)) as site:
        for kept in (
            {"background": True},
            {"store": True},
            {"previous_response_id": "resp_1"},
            {"conversation": "conv_1"},
        ):
            answer = await site.ask({"model": "fault", "input": "a", **kept}, "/v1/responses")
            assert (answer.status, answer.code) == (400, "unsupported_operation")
            assert answer.json["error"]["param"] in kept
        assert not engine.requests
        body = {"model": "fault", "input": "a", "store": False, "background": False}
        assert (await site.ask(body, "/v1/responses")).status == 200
        assert json.loads(engine.requests[-1].body)["store"] is False
