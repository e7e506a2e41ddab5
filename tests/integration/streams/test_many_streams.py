"""Two thousand streams at once: none fails, each costs little memory, each is metered."""

import asyncio
import contextlib
import json
import time

import pytest

from tests.fakes import sse
from tests.fakes.engine import EngineProcess
from tests.fakes.engine_answers import tokens
from tests.fakes.raw_client import request
from tests.fakes.site import Key, Site

pytestmark = pytest.mark.serial

STREAMS = 2_000
TOKENS = 12
TOKEN_S = 0.5
MEMORY_BYTES_EACH = 32 * 1024
OPEN_AT_ONCE = 100
DEADLINE_S = 100.0


async def one_stream(site: Site, key: Key, number: int, opening: asyncio.Semaphore) -> str:
    """The text of one stream, from a connection of its own."""
    body = {
        "model": "fault",
        "messages": [{"role": "user", "content": f"stream {number}"}],
        "max_tokens": TOKENS,
        "token_s": TOKEN_S,
        "fault": "gated",
        "stream": True,
    }
    headers = {**key.bearer, "X-Request-Id": f"many-{number}", "Connection": "close"}
    async with opening:
        reader, writer = await asyncio.open_connection(*site.address)
        data = json.dumps(body).encode()
        writer.write(request("POST", "/v1/chat/completions", data, headers))
        head = await reader.readuntil(b"\r\n\r\n")
    with contextlib.closing(writer):
        return await read_stream(reader, head)


async def read_stream(reader: asyncio.StreamReader, head: bytes) -> str:
    assert b" 200 " in head.split(b"\r\n")[0], head
    answer = b""
    while size := int(await reader.readline(), 16):
        answer += await reader.readexactly(size)
        await reader.readexactly(2)
    events = sse.parse(answer)
    assert events[-1].done, answer[-300:]
    return sse.text(events)


async def watch(site: Site, engine: EngineProcess, before: int) -> int:
    """The most memory taken while all streams are open; opens the gate when they are."""
    peak = 0
    until = time.monotonic() + DEADLINE_S
    while (counts := await asyncio.to_thread(engine.counts))["running"] < STREAMS:
        assert time.monotonic() < until, counts
        await asyncio.sleep(0.1)
    peak = site.memory_bytes() - before
    await asyncio.to_thread(engine.control, "open")
    while (await asyncio.to_thread(engine.counts))["running"] > STREAMS // 2:
        peak = max(peak, site.memory_bytes() - before)
        await asyncio.sleep(0.1)
    return peak


async def test_two_thousand_streams(site: Site, engine: EngineProcess, key: Key) -> None:
    # What every site pays once is not the price of a stream.
    for _ in range(20):
        body = {"model": "fault", "messages": [{"role": "user", "content": "x"}], "stream": True}
        assert site.post("/chat/completions", body, key)[0] == 200
    engine.control("reset")
    first = site.ledger()[-1]["seq"]
    before = site.memory_bytes()
    opening = asyncio.Semaphore(OPEN_AT_ONCE)
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
        streams = [
            group.create_task(one_stream(site, key, number, opening)) for number in range(STREAMS)
        ]
        peak = group.create_task(watch(site, engine, before))
    wanted = "".join(tokens({}, TOKENS))
    assert all(stream.result() == wanted for stream in streams)
    assert peak.result() / STREAMS <= MEMORY_BYTES_EACH

    site.wait_idle()
    records = [row for row in site.ledger(first) if row["request_id"].startswith("many-")]
    assert len(records) == len({row["request_id"] for row in records}) == STREAMS
    for row in records:
        assert (row["status"], row["measured"]) == ("ok", "engine")
        assert (row["input_tokens"], row["output_tokens"]) == (2, TOKENS)
