"""anthropic: messages, streams, token counts and errors in Anthropic's own envelope."""

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from tests.fakes.engine import FaultEngine
from tests.fakes.site import Key, Site

MESSAGES: list[Any] = [{"role": "user", "content": "Say something about the river."}]
SYSTEM = "You are a helpful assistant."
ENGINES = ["fault", "tiny"]


@pytest.fixture
def client(site: Site, key: Key) -> Iterator[anthropic.Anthropic]:
    # Anthropic's clients name the host and add /v1/messages themselves.
    with anthropic.Anthropic(
        base_url=site.base_url.removesuffix("/v1"), api_key=key.secret, max_retries=0, timeout=30
    ) as made:
        yield made


@pytest.mark.parametrize("model", ENGINES)
def test_messages(client: anthropic.Anthropic, site: Site, request_id: str, model: str) -> None:
    answer = client.messages.create(
        model=model,
        system=SYSTEM,
        messages=MESSAGES,
        max_tokens=6,
        extra_headers={"x-request-id": request_id},
    )
    assert answer._request_id == request_id
    assert answer.role == "assistant"
    assert answer.content[0].type == "text"
    assert answer.content[0].text
    record = site.record(request_id)
    assert (record["status"], record["operation"]) == ("ok", "messages")
    assert record["output_tokens"] == answer.usage.output_tokens
    # Anthropic's dialect counts cached tokens beside the others; a record counts them among them.
    cached = answer.usage.cache_read_input_tokens or 0
    assert record["input_tokens"] == answer.usage.input_tokens + cached
    assert record["cached_tokens"] == cached


@pytest.mark.parametrize("model", ENGINES)
def test_streamed_messages(
    client: anthropic.Anthropic, site: Site, request_id: str, model: str
) -> None:
    with client.messages.stream(
        model=model,
        messages=MESSAGES,
        max_tokens=6,
        extra_headers={"x-request-id": request_id},
    ) as stream:
        text = "".join(stream.text_stream)
        whole = stream.get_final_message()
    assert text
    assert whole.stop_reason in {"max_tokens", "end_turn"}
    record = site.record(request_id)
    assert (record["status"], record["measured"]) == ("ok", "engine")
    assert record["output_tokens"] == whole.usage.output_tokens
    assert record["input_tokens"] == whole.usage.input_tokens + (
        whole.usage.cache_read_input_tokens or 0
    )


def test_the_key_as_a_bearer_token(site: Site, key: Key) -> None:
    with anthropic.Anthropic(
        base_url=site.base_url.removesuffix("/v1"), auth_token=key.secret, max_retries=0
    ) as client:
        assert client.messages.create(model="fault", messages=MESSAGES, max_tokens=2).content


def test_counting_tokens(client: anthropic.Anthropic) -> None:
    count = client.messages.count_tokens(model="fault", system=SYSTEM, messages=MESSAGES)
    assert count.input_tokens == 10


def envelope(error: anthropic.APIStatusError, status: int, kind: str) -> None:
    assert error.status_code == status
    body: Any = error.body
    assert body["type"] == "error"
    assert body["error"]["type"] == kind
    assert body["error"]["message"]
    assert error.response.headers["request-id"]


def test_errors(client: anthropic.Anthropic, site: Site) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        client.messages.create(model="claude-99", messages=MESSAGES, max_tokens=2)
    envelope(missing.value, 404, "not_found_error")
    with anthropic.Anthropic(
        base_url=site.base_url.removesuffix("/v1"), api_key="sk-ant-wrong", max_retries=0
    ) as stranger:
        with pytest.raises(anthropic.AuthenticationError) as refused:
            stranger.messages.create(model="fault", messages=MESSAGES, max_tokens=2)
        envelope(refused.value, 401, "authentication_error")
    limited = site.key(limits={"requests_per_min": 1})
    with anthropic.Anthropic(
        base_url=site.base_url.removesuffix("/v1"), api_key=limited.secret, max_retries=0
    ) as hasty:
        hasty.messages.create(model="fault", messages=MESSAGES, max_tokens=2)
        with pytest.raises(anthropic.RateLimitError) as slower:
            hasty.messages.create(model="fault", messages=MESSAGES, max_tokens=2)
        envelope(slower.value, 429, "rate_limit_error")
        assert 0 < float(slower.value.response.headers["retry-after"]) <= 60


def test_an_engine_that_fails(client: anthropic.Anthropic, engine: FaultEngine) -> None:
    with pytest.raises(anthropic.InternalServerError) as failed:
        client.messages.create(
            model="fault", messages=MESSAGES, max_tokens=2, extra_body={"fault": "status:500"}
        )
    envelope(failed.value, 502, "api_error")


def test_an_engine_that_dies_within_a_stream(
    client: anthropic.Anthropic, site: Site, request_id: str
) -> None:
    with (
        pytest.raises(anthropic.APIStatusError) as failed,
        client.messages.stream(
            model="fault",
            messages=MESSAGES,
            max_tokens=9,
            extra_body={"fault": "reset_mid_stream:3"},
            extra_headers={"x-request-id": request_id},
        ) as stream,
    ):
        list(stream.text_stream)
    body: Any = failed.value.body
    assert body["type"] == "error"
    assert body["error"]["type"] == "api_error"
    record = site.record(request_id)
    assert (record["status"], record["output_tokens"]) == ("failed", 3)
