"""What an administrator changes while streams run, and deadlines that end what goes on for ever."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.engine import FaultEngine
from tests.fakes.outcome import body_of
from tests.fakes.raw_client import RawClient, request
from tests.fakes.site import Key, Site, running_site

TOTAL_S = 2.0


@pytest.fixture(scope="module")
def site(engine: FaultEngine) -> Iterator[Site]:
    settings = {"CIC_TIMEOUTS_TOTAL_S": str(TOTAL_S), "CIC_TIMEOUTS_TOKEN_GAP_S": "1"}
    with running_site(settings=settings) as running:
        yield running


@pytest.fixture(scope="module")
def key(site: Site) -> Key:
    return site.key()


@pytest.fixture
def model(site: Site, engine: FaultEngine) -> Iterator[str]:
    engine.reset()
    site.deployment("changing", engine.url)
    yield "changing"
    gone = [row["name"] for row in site.admin("GET", "/v1/deployments")]
    if "changing" in gone:
        site.admin("DELETE", "/v1/deployments/changing")


def begin(site: Site, key: Key, request_id: str, **more: Any) -> RawClient:
    body = {**body_of("chat", stream=True, **more), "model": "changing"}
    client = RawClient(site.address)
    headers = {**key.bearer, "X-Request-Id": request_id}
    client.send(request("POST", "/v1/chat/completions", json.dumps(body).encode(), headers))
    return client


@pytest.mark.parametrize("change", ["delete", "suspend", "delete key", "suspend tenant"])
def test_a_stream_that_was_admitted_is_finished(
    site: Site, engine: FaultEngine, model: str, change: str
) -> None:
    own = site.key()
    request_id = site.new_request_id()
    with begin(site, own, request_id, max_tokens=10, token_s=0.05) as client:
        engine.wait_for(lambda requests: requests and requests[-1].tokens_sent)
        if change == "delete":
            site.admin("DELETE", f"/v1/deployments/{model}")
        elif change == "suspend":
            site.admin("POST", f"/v1/deployments/{model}/suspend")
        elif change == "delete key":
            site.admin("DELETE", f"/v1/keys/{own.id}")
        else:
            site.admin("POST", f"/v1/tenants/{own.tenant}/suspend")
        assert b"[DONE]" in client.answer().body
    record = site.record(request_id)
    assert (record["status"], record["output_tokens"]) == ("ok", 10)


def test_a_suspended_deployment_says_so(site: Site, key: Key, model: str) -> None:
    body = {**body_of("chat"), "model": model}
    site.admin("POST", f"/v1/deployments/{model}/suspend")
    site.until(lambda: site.post("/chat/completions", body, key)[0] == 503, 5, "the suspension")
    status, _, answer = site.post("/chat/completions", body, key)
    assert status == 503
    assert json.loads(answer)["error"]["code"] == "deployment_suspended"
    site.admin("POST", f"/v1/deployments/{model}/resume")
    site.until(lambda: site.post("/chat/completions", body, key)[0] == 200, 5, "the return")


def test_a_deployment_that_was_deleted_is_unknown(site: Site, key: Key, model: str) -> None:
    site.admin("DELETE", f"/v1/deployments/{model}")
    body = {**body_of("chat"), "model": model}
    site.until(lambda: site.post("/chat/completions", body, key)[0] == 404, 5, "its end")


def test_a_stream_that_never_ends_is_ended(
    site: Site, key: Key, engine: FaultEngine, model: str
) -> None:
    request_id = site.new_request_id()
    with begin(site, key, request_id, max_tokens=100_000, token_s=0.02) as client:
        answer = client.answer().body
    assert b"[DONE]" not in answer
    assert b'"engine_timeout"' in answer
    record = site.record(request_id)
    assert (record["status"], record["error_code"]) == ("failed", "engine_timeout")
    assert 10 <= record["output_tokens"] <= engine.requests[-1].tokens_sent
    assert TOTAL_S * 900 <= record["latency_ms"] <= TOTAL_S * 1_000 + 1_500


def test_a_body_that_trickles_for_ever_is_ended(
    site: Site, key: Key, engine: FaultEngine, model: str
) -> None:
    request_id = site.new_request_id()
    body = {**body_of("chat", fault="trickled_body"), "model": model}
    status, _, answer = site.post("/chat/completions", body, key, {"X-Request-Id": request_id})
    assert status == 504
    assert json.loads(answer)["error"]["code"] == "engine_timeout"
    assert site.record(request_id)["latency_ms"] <= TOTAL_S * 1_000 + 1_500
    engine.wait_for(lambda requests: requests[-1].closed_at, 1.0)
