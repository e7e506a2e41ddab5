"""openai-python, synchronous: every call an application makes, over both engines."""

import json
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionChunk

from tests.fakes.engine import FaultEngine
from tests.fakes.engine_answers import EMBEDDING_WIDTH
from tests.fakes.site import Key, Site

MESSAGES: list[Any] = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "Say something about the river and the stone."},
]
ENGINES = ["fault", "tiny"]


def traced(request_id: str) -> dict[str, str]:
    return {"x-request-id": request_id}


@pytest.mark.parametrize("model", ENGINES)
def test_chat(client: openai.OpenAI, metered: Any, request_id: str, model: str) -> None:
    answer = client.chat.completions.create(
        model=model, messages=MESSAGES, max_tokens=6, extra_headers=traced(request_id)
    )
    assert answer._request_id == request_id
    assert answer.model == model
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.usage
    assert answer.usage.completion_tokens <= 6
    metered.ok(request_id, answer.usage.prompt_tokens, answer.usage.completion_tokens)


def test_the_headers_of_an_answer(
    client: openai.OpenAI, site: Site, request_id: str, metered: Any
) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="fault", messages=MESSAGES, max_tokens=3, extra_headers=traced(request_id)
    )
    assert raw.headers["x-request-id"] == request_id
    record = metered.site.record(request_id)
    assert raw.headers["x-crosslogic-usage"] == record["record_id"]
    made = client.chat.completions.with_raw_response.create(
        model="fault", messages=MESSAGES, max_tokens=3
    )
    assert made.headers["x-request-id"].startswith("req_")
    assert metered.site.record(made.headers["x-request-id"])["status"] == "ok"


def collect(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


@pytest.mark.parametrize("model", ENGINES)
def test_a_stream_that_did_not_ask_for_usage_gets_none(
    client: openai.OpenAI, site: Site, request_id: str, model: str
) -> None:
    with client.chat.completions.create(
        model=model, messages=MESSAGES, max_tokens=6, stream=True, extra_headers=traced(request_id)
    ) as stream:
        chunks = list(stream)
    assert collect(chunks)
    assert all(chunk.usage is None for chunk in chunks)
    assert all(chunk.choices for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason in {"length", "stop"}
    record = site.record(request_id)
    assert record["status"] == "ok"
    assert record["measured"] == "engine"
    assert 0 < record["output_tokens"] <= 6
    assert record["input_tokens"] > 0


@pytest.mark.parametrize("model", ENGINES)
def test_a_stream_that_asked_for_usage_gets_it_once(
    client: openai.OpenAI, metered: Any, request_id: str, model: str
) -> None:
    with client.chat.completions.create(
        model=model,
        messages=MESSAGES,
        max_tokens=6,
        stream=True,
        stream_options={"include_usage": True},
        extra_headers=traced(request_id),
    ) as stream:
        chunks = list(stream)
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert all(chunk.choices for chunk in chunks[:-1])
    last = chunks[-1]
    assert last.choices == []
    assert last.usage
    metered.ok(request_id, last.usage.prompt_tokens, last.usage.completion_tokens)


def test_the_figures_of_the_engine_are_the_ledgers(
    client: openai.OpenAI, metered: Any, engine: FaultEngine, request_id: str
) -> None:
    client.chat.completions.create(
        model="fault", messages=MESSAGES, max_tokens=17, n=3, extra_headers=traced(request_id)
    )
    record = metered.honest(request_id, "chat", engine.requests[-1].json)
    assert record["output_tokens"] == 51
    assert record["cached_tokens"] > 0


def test_tools_are_passed_through(client: openai.OpenAI, engine: FaultEngine) -> None:
    tools: list[Any] = [
        {
            "type": "function",
            "function": {
                "name": "weather",
                "description": "Weather of a city",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
                "strict": True,
            },
        }
    ]
    answer = client.chat.completions.create(
        model="fault", messages=MESSAGES, tools=tools, tool_choice="auto", parallel_tool_calls=False
    )
    calls = answer.choices[0].message.tool_calls
    assert calls
    assert calls[0].type == "function"
    assert json.loads(calls[0].function.arguments) == {"city": "Bern"}
    received = engine.requests[-1].json
    assert received["tools"] == tools
    assert received["tool_choice"] == "auto"
    assert received["parallel_tool_calls"] is False


def test_json_mode_logprobs_and_unknown_fields_are_passed_through(
    client: openai.OpenAI, engine: FaultEngine
) -> None:
    schema: Any = {"name": "city", "strict": True, "schema": {"type": "object"}}
    answer = client.chat.completions.create(
        model="fault",
        messages=MESSAGES,
        response_format={"type": "json_schema", "json_schema": schema},
        logprobs=True,
        top_logprobs=2,
        max_tokens=4,
        extra_body={"guided_regex": "[a-z]+", "chat_template_kwargs": {"think": False}},
    )
    assert json.loads(answer.choices[0].message.content or "")["city"] == "Bern"
    assert answer.choices[0].logprobs
    assert len(answer.choices[0].logprobs.content or []) == 4
    received = engine.requests[-1].json
    assert received["response_format"]["json_schema"] == schema
    assert received["guided_regex"] == "[a-z]+"
    assert received["chat_template_kwargs"] == {"think": False}
    assert received["top_logprobs"] == 2


def test_a_real_engine_is_bound_by_a_grammar(client: openai.OpenAI) -> None:
    """A field that only the engine knows: without it the answer would be none of these words."""
    answer = client.chat.completions.create(
        model="tiny",
        messages=MESSAGES,
        max_tokens=8,
        extra_body={"grammar": 'root ::= "certainly" | "hardly"'},
    )
    assert answer.choices[0].message.content in {"certainly", "hardly"}
    assert answer.choices[0].finish_reason == "stop"


def test_choices_of_a_real_engine(client: openai.OpenAI, site: Site, request_id: str) -> None:
    """llama.cpp reports the tokens of one choice only; all that was generated is metered."""
    answer = client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_tokens=5, n=2, extra_headers=traced(request_id)
    )
    assert len(answer.choices) == 2
    finished = [choice.finish_reason for choice in answer.choices]
    record = site.record(request_id)
    assert record["output_tokens"] > 5
    if finished == ["length", "length"]:
        assert record["output_tokens"] == 10


def test_the_engine_learns_nothing_of_the_client(
    client: openai.OpenAI, engine: FaultEngine, key: Key
) -> None:
    client.chat.completions.create(
        model="fault",
        messages=MESSAGES,
        extra_headers={
            "x-request-id": "clean-headers",
            "Cookie": "session=1",
            "X-Forwarded-For": "6.6.6.6",
            "OpenAI-Organization": "org-1",
        },
    )
    received = engine.requests[-1]
    text = json.dumps(received.headers).lower()
    assert key.secret.lower() not in text
    for leaked in ("session=1", "6.6.6.6", "stainless", "org-1", "openai/python"):
        assert leaked not in text
    assert key.secret.encode() not in received.body
    # No tenant can probe another's prefix cache: the salt is the gateway's.
    assert received.json["cache_salt"]


def test_the_cache_salt_is_the_tenants_own(site: Site, engine: FaultEngine, key: Key) -> None:
    other = site.key()
    sibling = site.key(tenant=key.tenant, environment=key.environment)
    for each in (key, sibling, other):
        body = {"model": "fault", "messages": MESSAGES, "cache_salt": "chosen-by-client"}
        assert site.post("/chat/completions", body, each)[0] == 200
    salts = [received.json["cache_salt"] for received in engine.requests]
    assert salts[0] == salts[1] != salts[2]
    assert "chosen-by-client" not in salts


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings(
    client: openai.OpenAI, metered: Any, engine: FaultEngine, request_id: str, encoding: Any
) -> None:
    raw = client.embeddings.with_raw_response.create(
        model="fault",
        input=["the river", "and the stone"],
        encoding_format=encoding,
        extra_headers=traced(request_id),
    )
    answer = raw.parse()
    assert [item.index for item in answer.data] == [0, 1]
    if encoding == "float":
        assert answer.data[1].embedding == [1.0 + step / 8 for step in range(EMBEDDING_WIDTH)]
    else:
        assert isinstance(answer.data[1].embedding, str)
    record = metered.honest(request_id, "embeddings", engine.requests[-1].json)
    assert (record["input_tokens"], record["output_tokens"]) == (5, 0)


def test_embeddings_as_applications_ask_for_them(client: openai.OpenAI) -> None:
    # The client asks for base64 unless told, and unpacks it.
    answer = client.embeddings.create(model="fault", input="the river")
    assert answer.data[0].embedding == [step / 8 for step in range(EMBEDDING_WIDTH)]


def test_embeddings_of_a_real_engine(client: openai.OpenAI, metered: Any, request_id: str) -> None:
    answer = client.embeddings.create(
        model="tiny-vectors",
        input=["the river", "the stone and the lamp"],
        encoding_format="float",
        extra_headers=traced(request_id),
    )
    first, second = (item.embedding for item in answer.data)
    assert len(first) == len(second) == 64
    assert first != second
    metered.ok(request_id, answer.usage.prompt_tokens, 0)


@pytest.mark.parametrize("model", ENGINES)
def test_completions(client: openai.OpenAI, metered: Any, request_id: str, model: str) -> None:
    answer = client.completions.create(
        model=model, prompt="The river", max_tokens=5, extra_headers=traced(request_id)
    )
    assert answer.choices[0].text
    assert answer.usage
    metered.ok(request_id, answer.usage.prompt_tokens, answer.usage.completion_tokens)


@pytest.mark.parametrize("model", ENGINES)
def test_streamed_completions(
    client: openai.OpenAI, metered: Any, request_id: str, model: str
) -> None:
    with client.completions.create(
        model=model,
        prompt="The river",
        max_tokens=5,
        stream=True,
        stream_options={"include_usage": True},
        extra_headers=traced(request_id),
    ) as stream:
        chunks = list(stream)
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)
    usage = chunks[-1].usage
    assert usage
    metered.ok(request_id, usage.prompt_tokens, usage.completion_tokens)


@pytest.mark.parametrize("model", ENGINES)
def test_responses(client: openai.OpenAI, metered: Any, request_id: str, model: str) -> None:
    answer = client.responses.create(
        model=model,
        instructions="You are a helpful assistant.",
        input="Say something.",
        max_output_tokens=5,
        extra_headers=traced(request_id),
    )
    assert answer.output_text
    assert answer.usage
    record = metered.ok(request_id, answer.usage.input_tokens, answer.usage.output_tokens)
    assert record["operation"] == "responses"


@pytest.mark.parametrize("model", ENGINES)
def test_streamed_responses(
    client: openai.OpenAI, metered: Any, request_id: str, model: str
) -> None:
    with client.responses.create(
        model=model,
        input="Say something.",
        max_output_tokens=5,
        stream=True,
        extra_headers=traced(request_id),
    ) as stream:
        events = list(stream)
    kinds = [event.type for event in events]
    assert kinds[0] == "response.created"
    assert "response.output_text.delta" in kinds
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.usage
    usage = last.response.usage
    metered.ok(request_id, usage.input_tokens, usage.output_tokens)


def test_models(client: openai.OpenAI) -> None:
    models = {model.id: model for model in client.models.list()}
    assert {"fault", "tiny", "tiny-vectors"} <= set(models)
    one = client.models.retrieve("tiny")
    assert one.id == "tiny"
    assert one.object == "model"
    assert one.owned_by
    assert one.created > 0


def test_models_are_those_of_the_environment(site: Site, key: Key) -> None:
    narrow = site.environment(key.tenant, "narrow", models=["tiny"])
    only = site.key(tenant=key.tenant, environment=narrow)
    with openai.OpenAI(base_url=site.base_url, api_key=only.secret, max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["tiny"]
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("fault")
        with pytest.raises(openai.PermissionDeniedError) as refused:
            client.chat.completions.create(model="fault", messages=MESSAGES)
        assert refused.value.code == "model_not_allowed"


def test_leaving_a_stream_early_is_metered_as_it_was(
    client: openai.OpenAI, site: Site, engine: FaultEngine, request_id: str
) -> None:
    with client.chat.completions.create(
        model="fault",
        messages=MESSAGES,
        max_tokens=500,
        stream=True,
        extra_body={"token_s": 0.02},
        extra_headers=traced(request_id),
    ) as stream:
        for number, _ in enumerate(stream):
            if number == 5:
                break
    record = site.record(request_id)
    sent = engine.requests[-1].tokens_sent
    assert record["status"] == "aborted"
    assert record["http_status"] == 499
    assert 5 <= record["output_tokens"] <= sent < 100
    assert record["input_tokens"] > 0
