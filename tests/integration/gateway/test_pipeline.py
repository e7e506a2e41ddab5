"""The life of a request over real sockets: gateway, engine, client."""

import pytest

from appliance.domain.usage import Measured, Status
from tests.fakes.endpoint import chat, endpoint, target
from tests.fakes.engine import FaultEngine


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
