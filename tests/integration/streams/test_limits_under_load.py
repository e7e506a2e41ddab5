"""Concurrency never beats a limit: what is served in a window is the limit and one request more."""

import asyncio
import json

from tests.fakes.engine import EngineProcess
from tests.fakes.raw_client import request
from tests.fakes.site import Key, Site

CLIENTS = 64
LIMIT = 1_000


async def one_client(site: Site, key: Key, number: int, output: int) -> list[int]:
    """Statuses of ten requests over one connection."""
    reader, writer = await asyncio.open_connection(*site.address)
    body = json.dumps(
        {
            "model": "fault",
            "messages": [{"role": "user", "content": "word " * 10}],
            "max_tokens": output,
            "stream": number % 2 == 0,
            "token_s": 0.001,
        }
    ).encode()
    statuses = []
    for _ in range(10):
        writer.write(request("POST", "/v1/chat/completions", body, key.bearer))
        head = await reader.readuntil(b"\r\n\r\n")
        statuses.append(int(head.split()[1]))
        lower = head.lower()
        if b"chunked" in lower:
            while size := int(await reader.readline(), 16):
                await reader.readexactly(size + 2)
            await reader.readline()
        else:
            await reader.readexactly(int(lower.split(b"content-length:")[1].split()[0]))
    writer.close()
    return statuses


async def test_64_clients_on_a_thousand_tokens_a_minute(site: Site, engine: EngineProcess) -> None:
    key = site.key(limits={"tokens_per_min": LIMIT})
    before = len(site.ledger())
    many = await asyncio.gather(*(one_client(site, key, n, 30) for n in range(CLIENTS)))
    statuses = [status for statuses in many for status in statuses]
    assert set(statuses) == {200, 429}
    records = [row for row in site.ledger()[before:] if row["key"] == key.name]
    served = sum(row["input_tokens"] + row["output_tokens"] for row in records)
    assert len(records) == statuses.count(200)
    assert served <= LIMIT + 40
    # And the limit is of use: a fair part of it was served, though it is reserved in advance.
    assert served >= LIMIT // 4


async def test_64_clients_on_twenty_requests_a_minute(site: Site) -> None:
    key = site.key(limits={"requests_per_min": 20})
    many = await asyncio.gather(*(one_client(site, key, n, 2) for n in range(CLIENTS)))
    statuses = [status for statuses in many for status in statuses]
    assert statuses.count(200) == 20
    assert set(statuses) == {200, 429}


async def test_64_clients_on_three_at_once(site: Site, engine: EngineProcess) -> None:
    key = site.key(limits={"concurrency": 3})
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, (await asyncio.to_thread(engine.counts))["running"])
            await asyncio.sleep(0.01)

    watching = asyncio.ensure_future(watch())
    many = await asyncio.gather(*(one_client(site, key, n, 30) for n in range(CLIENTS)))
    watching.cancel()
    assert {status for statuses in many for status in statuses} == {200, 429}
    assert 1 <= most <= 3
