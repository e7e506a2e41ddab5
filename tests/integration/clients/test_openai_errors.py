"""Errors as openai-python raises them: the class, the code, and whether it tries again."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import openai
import pytest

from tests.fakes.engine import FaultEngine
from tests.fakes.site import Key, Site

MESSAGES: list[Any] = [{"role": "user", "content": "five words are in here"}]
Counting = Callable[..., tuple[openai.OpenAI, list[str]]]


def chat(client: openai.OpenAI, **more: Any) -> Any:
    asked = {"model": "fault", "messages": MESSAGES, "max_tokens": 4, **more}
    return client.chat.completions.create(**asked)


def assert_error(error: openai.APIStatusError, status: int, code: str) -> None:
    assert error.status_code == status
    body: Any = error.body
    assert set(body) == {"message", "type", "param", "code"}
    assert body["code"] == code
    assert body["message"]
    assert isinstance(body["type"], str)
    assert error.request_id


def one_digit_off(secret: str) -> str:
    """A key with one character changed: its checksum no longer fits."""
    return secret[:15] + ("a" if secret[15] != "a" else "b") + secret[16:]


@pytest.mark.parametrize(
    "wrong", ["clsk_live_nonsense", "sk-12345", "", "Ä", "typing mistake", "deleted"]
)
def test_a_wrong_key(site: Site, key: Key, wrong: str) -> None:
    if wrong == "Ä":
        status, _, body = site.call(
            "POST", "/chat/completions", b"{}", None, {"Authorization": "Bearer \xc4"}
        )
        assert status == 401
        assert b'"invalid_api_key"' in body
        return
    secret = wrong
    if wrong == "typing mistake":
        secret = one_digit_off(key.secret)
    if wrong == "deleted":
        gone = site.key()
        secret = gone.secret
        site.admin("DELETE", f"/v1/keys/{gone.id}")
        site.until(lambda: site.get("/models", gone)[0] == 401, 5, "the key to be refused")
    if not secret:
        status, headers, body = site.call("GET", "/models", None, None)
        assert status == 401
        assert b'"invalid_api_key"' in body
        assert headers["www-authenticate"].startswith("Bearer")
        return
    with openai.OpenAI(base_url=site.base_url, api_key=secret, max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as refused:
            chat(client)
        assert_error(refused.value, 401, "invalid_api_key")
        assert secret not in str(refused.value)


def test_an_unknown_model(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        chat(client, model="gpt-99")
    assert_error(refused.value, 404, "model_not_found")
    assert "gpt-99" in str(refused.value)


def test_an_operation_the_engine_lacks(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.embeddings.create(model="tiny", input="x")
    assert_error(refused.value, 400, "unsupported_operation")
    assert "tiny" in str(refused.value)
    assert "chat" in str(refused.value)


@pytest.mark.parametrize("form", ["context_vllm", "context_llamacpp"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_does_not_fit(
    client: openai.OpenAI, site: Site, request_id: str, form: str, *, stream: bool
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        chat(
            client,
            stream=stream,
            extra_body={"fault": form},
            extra_headers={"x-request-id": request_id},
        )
    assert_error(refused.value, 400, "context_length_exceeded")
    record = site.record(request_id)
    assert (record["http_status"], record["output_tokens"]) == (400, 0)


def test_a_prompt_that_does_not_fit_a_real_engine(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        chat(client, model="tiny", messages=[{"role": "user", "content": "stone " * 900}])
    assert_error(refused.value, 400, "context_length_exceeded")


def test_what_the_engine_refuses_is_the_clients_to_read(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        chat(client, extra_body={"fault": "bad_request"})
    assert "temperature must be non-negative" in str(refused.value)
    assert isinstance(refused.value.code, str)


def test_a_limit_on_requests(site: Site, counting_client: Counting) -> None:
    key = site.key(limits={"requests_per_min": 2})
    client, sent = counting_client(key.secret, max_retries=0)
    raw = client.chat.completions.with_raw_response.create(
        model="fault", messages=MESSAGES, max_tokens=4
    )
    assert raw.headers["x-ratelimit-limit-requests"] == "2"
    assert raw.headers["x-ratelimit-remaining-requests"] == "1"
    chat(client)
    with pytest.raises(openai.RateLimitError) as refused:
        chat(client)
    assert_error(refused.value, 429, "rate_limit_exceeded")
    headers = refused.value.response.headers
    assert 0 < float(headers["retry-after"]) <= 60
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert headers["x-ratelimit-reset-requests"].endswith("s")
    assert len(sent) == 3


def test_a_limit_on_tokens_per_minute(site: Site, counting_client: Counting) -> None:
    key = site.key(limits={"tokens_per_min": 1_000})
    client, _ = counting_client(key.secret, max_retries=0)
    raw = client.chat.completions.with_raw_response.create(
        model="fault", messages=MESSAGES, max_tokens=700
    )
    assert raw.headers["x-ratelimit-limit-tokens"] == "1000"
    with pytest.raises(openai.RateLimitError) as refused:
        chat(client, max_tokens=700)
    assert_error(refused.value, 429, "rate_limit_exceeded")
    assert refused.value.response.headers.get("x-should-retry") != "false"
    # What was held for the refused request is free again: a small one fits.
    chat(client, max_tokens=10)


def test_a_spent_day_is_not_tried_again(site: Site, counting_client: Counting) -> None:
    key = site.key(limits={"tokens_per_day": 100})
    client, sent = counting_client(key.secret, max_retries=3)
    chat(client, max_tokens=90)
    with pytest.raises(openai.RateLimitError) as refused:
        chat(client, max_tokens=90)
    assert_error(refused.value, 429, "insufficient_quota")
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert len(sent) == 2


def test_a_limit_on_concurrency(site: Site, engine: FaultEngine, counting_client: Counting) -> None:
    key = site.key(limits={"concurrency": 1})
    client, _ = counting_client(key.secret, max_retries=0)
    with chat(client, stream=True, max_tokens=400, extra_body={"token_s": 0.05}) as stream:
        next(iter(stream))
        with pytest.raises(openai.RateLimitError) as refused:
            chat(client)
        assert_error(refused.value, 429, "rate_limit_exceeded")
    site.wait_idle()
    assert chat(client).choices


def test_a_short_trouble_is_outlived_by_a_retry(
    site: Site, key: Key, engine: FaultEngine, counting_client: Counting
) -> None:
    client, sent = counting_client(key.secret, max_retries=2)
    # As many as the gateway itself tries on the deployment's one replica, so that it gives up once.
    engine.next_fault("status:500", path="/v1/chat/completions")
    assert chat(client).choices
    assert len(sent) == 2


@pytest.mark.parametrize(
    ("action", "status", "code"),
    [
        ("tenants", 403, "tenant_suspended"),
        ("environments", 403, "environment_suspended"),
        ("keys", 403, "key_suspended"),
    ],
)
def test_suspension_and_return(site: Site, action: str, status: int, code: str) -> None:
    key = site.key()
    path = {
        "tenants": f"/v1/tenants/{key.tenant}",
        "environments": f"/v1/environments/{key.environment}",
        "keys": f"/v1/keys/{key.id}",
    }[action]
    query = f"?tenant={key.tenant}" if action == "environments" else ""
    with openai.OpenAI(base_url=site.base_url, api_key=key.secret, max_retries=0) as client:
        site.admin("POST", f"{path}/suspend{query}")
        site.until(lambda: site.get("/models", key)[0] == status, 5, "the suspension")
        with pytest.raises(openai.PermissionDeniedError) as refused:
            chat(client)
        assert_error(refused.value, status, code)
        site.admin("POST", f"{path}/resume{query}")
        site.until(lambda: site.get("/models", key)[0] == 200, 5, "the return")
        assert chat(client).choices


def test_a_rotated_key_goes_on_for_its_overlap(site: Site) -> None:
    key = site.key()
    fresh = site.admin("POST", f"/v1/keys/{key.id}/rotate", {"overlap_s": 2})
    renewed = Key(fresh["id"], fresh["key"], fresh["name"], key.tenant, key.environment)
    site.until(lambda: site.get("/models", renewed)[0] == 200, 2, "the new secret")
    assert site.get("/models", key)[0] == 200
    site.until(lambda: site.get("/models", key)[0] == 401, 5, "the end of the old secret")
    assert site.get("/models", renewed)[0] == 200


def test_a_key_expires(site: Site) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=2)
    key = site.key(expires_at=soon.isoformat().replace("+00:00", "Z"))
    site.until(lambda: site.get("/models", key)[0] == 401, 5, "the end of the key")


def test_a_read_only_key_lists_and_runs_nothing(site: Site) -> None:
    key = site.key(role="read-only")
    with openai.OpenAI(base_url=site.base_url, api_key=key.secret, max_retries=0) as client:
        assert list(client.models.list())
        with pytest.raises(openai.PermissionDeniedError):
            chat(client)


def test_an_environment_of_another_region(site: Site) -> None:
    site.admin("POST", "/v1/regions", {"name": "mars", "multiplier_bp": 7000})
    tenant = site.tenant()
    environment = site.environment(tenant, "away", region="mars")
    key = site.key(tenant=tenant, environment=environment)
    with openai.OpenAI(base_url=site.base_url, api_key=key.secret, max_retries=0) as client:
        with pytest.raises(openai.PermissionDeniedError) as refused:
            chat(client)
        assert_error(refused.value, 403, "region_not_allowed")


def test_a_failure_within_a_stream_is_raised(
    client: openai.OpenAI, site: Site, request_id: str
) -> None:
    with (
        pytest.raises(openai.APIError) as failed,
        chat(
            client,
            stream=True,
            extra_body={"fault": "close_mid_stream:2"},
            extra_headers={"x-request-id": request_id},
        ) as stream,
    ):
        list(stream)
    assert failed.value.code == "engine_error"
    record = site.record(request_id)
    assert record["status"] == "failed"
    assert record["output_tokens"] == 2
