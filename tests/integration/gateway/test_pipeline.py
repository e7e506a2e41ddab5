"""The life of a request over real sockets: gateway, engine, client."""

import asyncio

import pytest

from appliance.domain.limits import Layer, LayerLimits, Limits
from appliance.domain.usage import Measured, Operation, Status
from appliance.metering.errors import LedgerUnavailable
from appliance.registry.snapshot import Role
from tests.fakes.endpoint import chat, endpoint, read_answer, settings, target
from tests.fakes.engine import FaultEngine

QUICK = {"first_token_s": 0.3, "token_gap_s": 0.3, "connect_s": 0.5}


def of_key(**limits):
    return (LayerLimits(Layer.KEY, "key_1", Limits(**limits)),)


async def until(condition, deadline_s=5.0):
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0.01)


def assert_nothing_held(site):
    """Idle again: no slot, no reservation, nothing running."""
    assert site.gateway.running == 0
    for view in site.scheduler.view(asyncio.get_running_loop().time()):
        assert view.queued == 0
        assert all(r.running == 0 and r.outstanding_tokens == 0 for r in view.replicas)


async def test_a_chat_is_answered_and_recorded():
    async with FaultEngine() as engine, endpoint(target(engine.port)) as site:
        answer = await site.ask(chat())
        assert answer.status == 200, answer
        assert answer.json["usage"]["completion_tokens"] == 5
        record = site.ledger.only()
        assert record.status is Status.OK
        assert record.measured is Measured.ENGINE
        assert (record.tokens.input, record.tokens.output, record.tokens.cached) == (4, 5, 1)
        assert answer.headers["x-crosslogic-usage"] == record.opening.record_id
        assert answer.headers["x-request-id"] == record.opening.request_id
        assert record.node_name == "node-7"
        assert_nothing_held(site)


@pytest.mark.parametrize("asked", [True, False])
async def test_a_stream_is_relayed_and_recorded(asked):
    async with FaultEngine() as engine, endpoint(target(engine.port)) as site:
        options = {"stream_options": {"include_usage": True}} if asked else {}
        answer = await site.ask(chat(stream=True, **options))
        assert answer.status == 200, answer
        *chunks, last = answer.events
        assert last == "[DONE]"
        if asked:
            *chunks, final = chunks
            assert final["choices"] == []
            assert final["usage"]["completion_tokens"] == 5
            assert all(chunk["usage"] is None for chunk in chunks)
        else:
            assert all("usage" not in chunk and chunk["choices"] for chunk in chunks)
        record = site.ledger.only()
        assert record.status is Status.OK
        assert (record.tokens.input, record.tokens.output, record.tokens.cached) == (4, 5, 1)
        assert_nothing_held(site)


async def test_no_byte_leaves_before_it_is_durable():
    """Not the first before the opening, not the last before the settlement."""
    async with FaultEngine(token_s=0.01) as engine, endpoint(target(engine.port)) as site:
        site.ledger.hold = True
        reader, writer = await site.connect()
        writer.write(site.request(chat(stream=True, max_tokens=40)))
        await until(lambda: engine.requests and engine.requests[0].tokens_sent >= 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.1)
        site.ledger.let_go()
        site.ledger.hold = True
        got = await reader.readuntil(b'"content":""')
        assert got.startswith(b"HTTP/1.1 200 ")
        await until(lambda: site.ledger.settlements)
        rest = asyncio.create_task(reader.readuntil(b"0\r\n\r\n"))
        await asyncio.sleep(0.1)
        assert not rest.done()
        site.ledger.let_go()
        assert b"[DONE]" in await rest
        writer.close()


@pytest.mark.parametrize("stream", [False, True])
async def test_nothing_is_served_unrecorded(stream):
    async with FaultEngine() as engine, endpoint(target(engine.port)) as site:
        site.ledger.failure = LedgerUnavailable("disk full")
        answer = await site.ask(chat(stream=stream))
        assert (answer.status, answer.code) == (503, "ledger_unavailable")
        assert answer.headers["retry-after"]
        site.ledger.failure = None
        assert (await site.ask(chat(stream=stream))).status == 200
        assert_nothing_held(site)


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"expires_at_ns": 1}, 401, "invalid_api_key"),
        ({"tenant_suspended": True}, 403, "tenant_suspended"),
        ({"environment_suspended": True}, 403, "environment_suspended"),
        ({"key_suspended": True}, 403, "key_suspended"),
        ({"role": Role.READ_ONLY}, 403, "key_read_only"),
        ({"models_allowed": frozenset({"other"})}, 403, "model_not_allowed"),
        ({"region": "mars"}, 403, "region_not_allowed"),
    ],
)
async def test_who_may_not(changes, status, code):
    async with FaultEngine() as engine, endpoint(target(engine.port)) as site:
        site.change(**changes)
        answer = await site.ask(chat())
        assert (answer.status, answer.code) == (status, code)
        assert not engine.requests
        assert not site.ledger.openings


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": ""},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": "Basic eDp5"},
        {"Authorization": "Bearer clsk_live_" + "a" * 36},
        {"Authorization": "", "x-api-key": "clsk_live_" + "a" * 36},
    ],
)
async def test_keys_that_are_none_get_one_message(headers):
    async with endpoint() as site:
        answer = await site.ask(b"this is not even read", headers=headers)
        assert (answer.status, answer.code) == (401, "invalid_api_key")
        assert answer.json["error"]["message"].startswith("The API key is missing or not valid.")
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_what_is_not_there():
    async with endpoint() as site:
        answer = await site.ask(chat(model="nope"))
        assert (answer.status, answer.code) == (404, "model_not_found")
        assert answer.json["error"]["param"] == "model"
        answer = await site.ask(b"", "/v2/x")
        assert (answer.status, answer.code) == (404, "not_found")
        answer = await site.get("/v1/chat/completions")
        assert (answer.status, answer.code) == (405, "method_not_allowed")
        assert answer.headers["allow"] == "POST"
        site.change_entry(operations=frozenset({Operation.CHAT}))
        answer = await site.ask({"model": "fault", "input": "x"}, "/v1/embeddings")
        assert (answer.status, answer.code) == (400, "unsupported_operation")
        assert "'fault'" in answer.json["error"]["message"]
        assert "chat" in answer.json["error"]["message"]
        site.change_entry(suspended=True)
        answer = await site.ask(chat())
        assert (answer.status, answer.code) == (503, "deployment_suspended")


async def test_the_models_a_key_may_use():
    async with endpoint() as site:
        site.entries["org/other"] = site.entries["fault"]
        site.change_entry()
        listed = await site.get("/v1/models")
        assert [model["id"] for model in listed.json["data"]] == ["fault"] * 2
        assert (await site.get("/v1/models/fault")).json["object"] == "model"
        site.change(models_allowed=frozenset())
        assert (await site.get("/v1/models")).json["data"] == []
        assert (await site.get("/v1/models/fault")).code == "model_not_found"
        head = await site.ask(b"", "/v1/models", method="HEAD")
        assert head.status == 200
        assert head.body == b""


async def test_request_ids():
    async with FaultEngine() as engine, endpoint(target(engine.port)) as site:
        answer = await site.ask(chat(), headers={"x-request-id": "mine-1"})
        assert answer.headers["x-request-id"] == "mine-1"
        assert site.ledger.only().opening.request_id == "mine-1"
        assert engine.requests[0].header("x-request-id") == "mine-1"
        answer = await site.ask(b"{", headers={"x-request-id": "mine-2"})
        assert (answer.status, answer.headers["x-request-id"]) == (400, "mine-2")
        answer = await site.ask(chat(), headers={"x-request-id": "not sane"})
        assert answer.headers["x-request-id"].startswith("req_")


async def test_limits_and_their_headers():
    layers = of_key(requests_per_min=2, tokens_per_min=10_000)
    async with FaultEngine() as engine, endpoint(target(engine.port), layers=layers) as site:
        first = await site.ask(chat())
        assert first.headers["x-ratelimit-limit-requests"] == "2"
        assert first.headers["x-ratelimit-remaining-requests"] == "1"
        assert first.headers["x-ratelimit-limit-tokens"] == "10000"
        assert (await site.ask(chat())).status == 200
        third = await site.ask(chat())
        assert (third.status, third.code) == (429, "rate_limit_exceeded")
        assert int(third.headers["retry-after"]) >= 1
        assert third.headers["x-ratelimit-remaining-requests"] == "0"
        assert len(site.ledger.openings) == 2


async def test_a_spent_day_is_not_worth_a_retry():
    layers = of_key(tokens_per_day=300)
    async with FaultEngine() as engine, endpoint(target(engine.port), layers=layers) as site:
        assert (await site.ask(chat(max_tokens=290))).status == 200
        answer = await site.ask(chat(max_tokens=290))
        assert (answer.status, answer.code) == (429, "insufficient_quota")
        assert answer.headers["x-should-retry"] == "false"


async def test_a_failed_replica_is_replaced():
    async with (
        FaultEngine() as bad,
        FaultEngine() as good,
        endpoint(target(bad.port, "rep_1"), target(good.port, "rep_2")) as site,
    ):
        bad.next_fault("close_before_head", times=20)
        for stream in (False, True) * 3:
            assert (await site.ask(chat(stream=stream))).status == 200
        assert bad.requests
        assert all(record.status is Status.OK for record in site.ledger.settlements)
        assert site.gateway.stats.retries == len(bad.requests)
        assert_nothing_held(site)


async def test_no_more_than_three_replicas_are_tried():
    async with FaultEngine() as engine:
        replicas = [target(engine.port, f"rep_{n}") for n in range(5)]
        async with endpoint(*replicas) as site:
            engine.next_fault("status:500", times=5)
            answer = await site.ask(chat())
            assert (answer.status, answer.code) == (502, "engine_error")
            assert len(engine.requests) == 3
            record = site.ledger.only()
            assert (record.status, record.error_code) == (Status.FAILED, "engine_error")
            assert record.tokens.total == 0


async def test_nothing_to_run_on():
    async with endpoint() as site:
        answer = await site.ask(chat())
        assert (answer.status, answer.code) == (503, "model_unavailable")
        site.serve_from(starting=1)
        answer = await site.ask(chat())
        assert (answer.status, answer.code) == (503, "model_loading")
        assert answer.headers["retry-after"]
        body = {"model": "fault", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
        answer = await site.ask(body, "/v1/messages")
        assert answer.status == 529
        assert answer.json["error"]["type"] == "overloaded_error"
        assert answer.headers["request-id"] == answer.headers["x-request-id"]
        assert not site.ledger.openings


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_stops_the_engine(stream):
    async with FaultEngine(token_s=0.02) as engine, endpoint(target(engine.port)) as site:
        reader, writer = await site.connect()
        writer.write(site.request(chat(stream=stream, max_tokens=1000)))
        await until(lambda: engine.requests)
        if stream:
            await reader.readuntil(b"200 OK")
            await until(lambda: engine.requests[0].tokens_sent >= 3)
        left_at = asyncio.get_running_loop().time()
        writer.transport.abort()
        await until(lambda: engine.requests[0].closed_at)
        assert asyncio.get_running_loop().time() - left_at < 0.5
        await until(lambda: site.ledger.settlements)
        record = site.ledger.only()
        assert (record.status, record.http_status) == (Status.ABORTED, 499)
        if stream:
            assert 1 <= record.tokens.output <= engine.requests[0].tokens_sent
        assert_nothing_held(site)


async def test_a_client_that_leaves_the_queue():
    async with FaultEngine(token_s=0.02) as engine, endpoint(target(engine.port, slots=1)) as site:
        _, first = await site.connect()
        first.write(site.request(chat(stream=True, max_tokens=1000)))
        await until(lambda: engine.requests)
        _, second = await site.connect()
        second.write(site.request(chat(stream=True)))
        await until(lambda: len(site.ledger.openings) == 2)
        second.transport.abort()
        await until(lambda: site.ledger.settlements)
        record = site.ledger.settlements[0]
        assert (record.status, record.tokens.total) == (Status.ABORTED, 0)
        first.transport.abort()
        await until(lambda: len(site.ledger.settlements) == 2)
        assert_nothing_held(site)


async def test_a_queued_request_has_its_turn():
    async with FaultEngine(token_s=0.01) as engine, endpoint(target(engine.port, slots=1)) as site:
        answers = await asyncio.gather(*(site.ask(chat(stream=n % 2 == 0)) for n in range(6)))
        assert [answer.status for answer in answers] == [200] * 6
        assert len(site.ledger.settlements) == 6
        assert_nothing_held(site)


async def test_a_queue_that_is_full_and_a_turn_that_does_not_come():
    using = settings(scheduler={"queue_length_max": 1, "queue_wait_s": 0.2})
    async with (
        FaultEngine() as engine,
        endpoint(target(engine.port, slots=1), using=using) as site,
    ):
        engine.next_fault("hang_before_head")
        _, first = await site.connect()
        first.write(site.request(chat()))
        await until(lambda: engine.requests)
        waiting = asyncio.create_task(site.ask(chat()))
        await until(lambda: len(site.ledger.openings) == 2)
        refused = await site.ask(chat())
        assert (refused.status, refused.code) == (503, "overloaded")
        late = await waiting
        assert (late.status, late.code) == (503, "overloaded")
        assert late.headers["retry-after"]
        [record] = site.ledger.settlements
        assert (record.status, record.tokens.total) == (Status.FAILED, 0)
        first.transport.abort()


@pytest.mark.parametrize("fault", ["hang_before_head", "hang_mid_stream"])
async def test_an_engine_that_is_silent(fault):
    using = settings(timeouts=QUICK)
    async with FaultEngine() as engine, endpoint(target(engine.port), using=using) as site:
        answer = await site.ask(chat(stream=True, fault=fault))
        if fault == "hang_before_head":
            assert (answer.status, answer.code) == (504, "engine_timeout")
        else:
            assert answer.events[-1]["error"]["code"] == "engine_timeout"
        record = site.ledger.only()
        assert (record.status, record.error_code) == (Status.FAILED, "engine_timeout")
        await until(lambda: engine.requests[0].closed_at)
        assert_nothing_held(site)


async def test_the_same_request_again():
    async with FaultEngine() as engine, endpoint(target(engine.port)) as site:
        key = {"Idempotency-Key": "once"}
        first = await site.ask(chat(), headers=key)
        again = await site.ask(chat(), headers=key)
        assert again.body == first.body
        assert again.headers["idempotency-replayed"] == "true"
        assert again.headers["x-crosslogic-usage"] == first.headers["x-crosslogic-usage"]
        site.ledger.only()
        assert len(engine.requests) == 1
        other = await site.ask(chat(max_tokens=6), headers=key)
        assert (other.status, other.code) == (422, "idempotency_mismatch")


async def test_the_same_request_at_once():
    async with FaultEngine(token_s=0.2) as engine, endpoint(target(engine.port)) as site:
        key = {"Idempotency-Key": "once"}
        answers = await asyncio.gather(*(site.ask(chat(), headers=key) for _ in range(3)))
        assert sorted(answer.status for answer in answers) == [200, 409, 409]
        site.ledger.only()


async def test_a_salt_for_each_tenant_where_the_engine_knows_it():
    async with FaultEngine() as engine, endpoint(target(engine.port)) as site:
        for engine_kind, salt in (("vllm", "salt-of-acme"), ("llamacpp", "chosen")):
            site.change_entry(engine=engine_kind)
            await site.ask(chat(cache_salt="chosen"))
            assert engine.requests[-1].json["cache_salt"] == salt


async def test_bodies_that_are_refused_unread():
    using = settings(gateway={"body_bytes_max": 1000}, timeouts={"body_s": 0.2})
    async with FaultEngine() as engine, endpoint(target(engine.port), using=using) as site:
        cases = [
            ({"Content-Length": "1001"}, 413, "body_too_large"),
            ({"Content-Encoding": "gzip"}, 415, "unsupported_media_type"),
            ({"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
            ({"Expect": "magic"}, 417, "expectation_failed"),
            ({"Content-Length": "999"}, 408, "request_timeout"),
        ]
        for headers, status, code in cases:
            answer = await site.ask(chat(), headers=headers)
            assert (answer.status, answer.code) == (status, code)
            assert answer.headers.get("connection") == "close" or answer.status in {415, 417}
        assert not engine.requests


async def test_a_client_that_waits_for_leave_to_send():
    async with FaultEngine() as engine, endpoint(target(engine.port)) as site:
        whole = site.request(chat(), headers={"Expect": "100-continue"})
        head, _, body = whole.partition(b"\r\n\r\n")
        reader, writer = await site.connect()
        writer.write(head + b"\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await read_answer(reader)).status == 200
        writer.close()


async def test_a_slow_head_also_on_a_kept_connection():
    using = settings(timeouts={"head_s": 0.2})
    async with FaultEngine() as engine, endpoint(target(engine.port), using=using) as site:
        reader, writer = await site.connect()
        writer.write(site.request(chat()))
        assert (await read_answer(reader)).status == 200
        writer.write(b"POST /v1/ch")
        answer = await asyncio.wait_for(read_answer(reader), 2)
        assert (answer.status, answer.code) == (408, "request_timeout")
        assert await asyncio.wait_for(reader.read(), 2) == b""
        writer.close()


async def test_a_client_that_takes_nothing_is_cut():
    using = settings(timeouts={"write_s": 0.3})
    async with FaultEngine() as engine, endpoint(target(engine.port), using=using) as site:
        _, writer = await site.connect()
        writer.transport.pause_reading()
        body = chat(stream=True, max_tokens=20_000, say="x" * 2_000)
        writer.write(site.request(body))
        await until(lambda: site.ledger.settlements, 20)
        record = site.ledger.only()
        assert (record.status, record.http_status) == (Status.ABORTED, 499)
        # It was not read ahead of the client: what is in memory is bounded by socket buffers.
        assert record.tokens.output < 10_000
        writer.transport.abort()
        assert_nothing_held(site)


async def test_connections_are_bounded():
    using = settings(gateway={"connections_per_peer_max": 2})
    async with endpoint(using=using) as site:
        two = [await site.connect() for _ in range(2)]
        await until(lambda: site.gateway.stats.connections_open == 2)
        reader, writer = await site.connect()
        assert await asyncio.wait_for(reader.read(), 2) == b""
        writer.close()
        for _, other in two:
            other.close()
        await until(lambda: site.gateway.stats.connections_open == 0)
        assert (await site.get("/healthz")).status == 200


async def test_draining():
    async with FaultEngine(token_s=0.02) as engine, endpoint(target(engine.port)) as site:
        finishing = asyncio.create_task(site.ask(chat(stream=True)))
        cut = asyncio.create_task(site.ask(chat(stream=True, max_tokens=10_000)))
        await until(lambda: len(engine.requests) == 2)
        await site.gateway.drain(0.5)
        assert (await finishing).events[-1] == "[DONE]"
        assert (await cut).events[-1]["error"]["code"] == "shutting_down"
        assert {record.status for record in site.ledger.settlements} == {
            Status.OK,
            Status.ABORTED,
        }
        with pytest.raises(OSError, match="Connect call failed"):
            await site.connect()


async def test_http_1_0_has_no_chunks():
    async with FaultEngine() as engine, endpoint(target(engine.port)) as site:
        reader, writer = await site.connect()
        whole = site.request(chat(stream=True)).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
        writer.write(whole)
        answer = await read_answer(reader)
        assert "transfer-encoding" not in answer.headers
        assert answer.events[-1] == "[DONE]"
        writer.close()


async def test_two_requests_sent_at_once():
    async with FaultEngine() as engine, endpoint(target(engine.port)) as site:
        reader, writer = await site.connect()
        writer.write(site.request(chat()) + site.request(chat(stream=True)))
        assert (await read_answer(reader)).status == 200
        assert (await read_answer(reader)).events[-1] == "[DONE]"
        writer.close()


async def test_engines_are_asked_over_kept_connections():
    async with FaultEngine() as engine, endpoint(target(engine.port)) as site:
        for stream in (False, True, False, True):
            assert (await site.ask(chat(stream=stream))).status == 200
        assert engine.connections_made == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_hung_replica_is_replaced(stream):
    using = settings(timeouts=QUICK)
    async with FaultEngine() as engine:
        replicas = [target(engine.port, f"rep_{n}") for n in range(2)]
        async with endpoint(*replicas, using=using) as site:
            engine.next_fault("hang_before_head")
            assert (await site.ask(chat(stream=stream))).status == 200
            assert len(engine.requests) == 2
            assert site.ledger.only().tokens.output == 5
            await until(lambda: engine.requests[0].closed_at)


async def test_what_the_engine_refuses_counts_as_a_request():
    layers = of_key(requests_per_min=2)
    async with FaultEngine() as engine, endpoint(target(engine.port), layers=layers) as site:
        for _ in range(2):
            answer = await site.ask(chat(fault="context_llamacpp"))
            assert (answer.status, answer.code) == (400, "context_length_exceeded")
        assert (await site.ask(chat())).code == "rate_limit_exceeded"
        assert len(engine.requests) == 2


async def test_a_sound_error_of_an_engine_ejects_nobody():
    using = settings(scheduler={"eject_after_failures": 1, "eject_s": 60.0})
    async with FaultEngine() as engine, endpoint(target(engine.port), using=using) as site:
        for fault, trusted in (("status:500", True), ("close_before_head", False)):
            answer = await site.ask(chat(fault=fault))
            assert (answer.status, answer.code) == (502, "engine_error")
            [view] = site.scheduler.view(asyncio.get_running_loop().time())
            assert view.replicas[0].trusted is trusted


async def test_tenants_share_no_prefix_in_llamacpp():
    async with FaultEngine() as engine, endpoint(target(engine.port)) as site:
        site.change_entry(engine="llamacpp")
        await site.ask(chat(id_slot=0, cache_prompt=True, seed=7))
        assert engine.requests[-1].json.get("seed") == 7
        assert not {"id_slot", "cache_prompt"} & set(engine.requests[-1].json)
        site.add_tenant()
        await site.ask(chat(cache_prompt=True))
        assert engine.requests[-1].json["cache_prompt"] is False
