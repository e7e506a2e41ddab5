"""Neither many clients at once nor a restart beats a limit: a real site, real engines."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from tests.fakes.site import Key, Site

CLIENTS = 64
HAMMERING_S = 4.0
TOKENS_PER_MIN = 1_000
OUTPUT_TOKENS = 40
PROMPT = "river stone lamp window garden"
# The tiny model's longest reading of that prompt, byte by byte and with its template, is below 64.
REQUEST_TOKENS_MAX = OUTPUT_TOKENS + 64


@dataclass
class Seen:
    """What all clients were answered."""

    served: set[str] = field(default_factory=set)  # request ids
    refused: list[tuple[str, float, dict[str, str]]] = field(default_factory=list)
    other: list[int] = field(default_factory=list)


def body(model: str, **fields: Any) -> dict[str, Any]:
    message = {"role": "user", "content": PROMPT}
    return {"model": model, "messages": [message], "max_tokens": OUTPUT_TOKENS, **fields}


async def hammer(site: Site, key: Key, model: str) -> Seen:
    """64 clients that ask again at once, whatever they were answered."""
    seen = Seen()
    loop = asyncio.get_running_loop()
    until_s = loop.time() + HAMMERING_S

    async def client(session: aiohttp.ClientSession, number: int) -> None:
        asked = body(model, stream=number % 2 == 0)
        while loop.time() < until_s:
            async with session.post(f"{site.base_url}/chat/completions", json=asked) as answer:
                content = await answer.read()
                if answer.status == 200:
                    seen.served.add(answer.headers["x-request-id"])
                    assert not asked["stream"] or content.endswith(b"data: [DONE]\n\n")
                elif answer.status == 429:
                    error = (await answer.json())["error"]
                    headers = {name.lower(): text for name, text in answer.headers.items()}
                    seen.refused.append((error["code"], loop.time(), headers))
                else:
                    seen.other.append(answer.status)
            # Others take their turn: this is a test of limits, not of how fast refusals are.
            await asyncio.sleep(0.05)

    timeout = aiohttp.ClientTimeout(total=60)
    connector = aiohttp.TCPConnector(limit=CLIENTS)
    async with (
        aiohttp.ClientSession(connector=connector, headers=key.bearer, timeout=timeout) as session,
        asyncio.TaskGroup() as clients,
    ):
        for number in range(CLIENTS):
            clients.create_task(client(session, number))
    return seen


def served_tokens(site: Site, key: Key) -> tuple[set[str], int]:
    """Request ids in the ledger, and the sum of their tokens."""
    site.wait_idle()
    rows = [row for row in site.ledger() if row["key"] == key.name]
    assert {row["status"] for row in rows} <= {"ok"}
    return {row["request_id"] for row in rows}, sum(
        row["input_tokens"] + row["output_tokens"] for row in rows
    )


@pytest.mark.parametrize("model", ["fault", "tiny"])
async def test_64_clients_on_a_thousand_tokens_a_minute(limited_site: Site, model: str) -> None:
    key = limited_site.key(limits={"tokens_per_min": TOKENS_PER_MIN})
    seen = await hammer(limited_site, key, model)
    assert seen.other == []
    recorded, tokens = served_tokens(limited_site, key)
    assert recorded == seen.served
    # All of it happened within one minute, so this is the bound itself.
    assert tokens <= TOKENS_PER_MIN + REQUEST_TOKENS_MAX
    # And the limit is a right too: what is held and given back can be used by the next.
    assert tokens >= TOKENS_PER_MIN // 2
    assert {code for code, _, _ in seen.refused} == {"rate_limit_exceeded"}
    for _, _, headers in seen.refused:
        assert 1 <= int(headers["retry-after"]) <= 70
        assert headers["x-ratelimit-limit-tokens"] == str(TOKENS_PER_MIN)
        assert 0 <= int(headers["x-ratelimit-remaining-tokens"]) <= TOKENS_PER_MIN


async def test_the_limit_of_a_tenant_holds_over_all_its_keys(limited_site: Site) -> None:
    tenant = limited_site.tenant()
    limited_site.admin(
        "PUT", "/v1/limits", {"layer": "tenant", "tenant": tenant, "requests_per_min": 20}
    )
    environment = limited_site.environment(tenant)
    keys = [limited_site.key(tenant=tenant, environment=environment) for _ in range(3)]
    seen = await asyncio.gather(*(hammer(limited_site, key, "fault") for key in keys))
    assert sum(len(one.served) for one in seen) == 20
    assert {code for one in seen for code, _, _ in one.refused} == {"rate_limit_exceeded"}


def test_a_restart_gives_no_new_quota(limited_site: Site) -> None:
    minute = limited_site.key(limits={"requests_per_min": 3})
    day = limited_site.key(limits={"tokens_per_day": 100})
    for key in (minute, day):
        while limited_site.post("/chat/completions", body("fault"), key)[0] == 200:
            pass
    limited_site.restart()
    limited_site.wait_ready("fault")
    status, headers, answer = limited_site.post("/chat/completions", body("fault"), minute)
    assert (status, b"rate_limit_exceeded" in answer) == (429, True)
    assert headers["x-ratelimit-remaining-requests"] == "0"
    status, headers, answer = limited_site.post("/chat/completions", body("fault"), day)
    assert (status, b"insufficient_quota" in answer) == (429, True)
    assert headers["x-should-retry"] == "false"


def test_a_killed_site_gives_no_new_quota_either(limited_site: Site) -> None:
    key = limited_site.key(limits={"requests_per_min": 2})
    for _ in range(2):
        assert limited_site.post("/chat/completions", body("fault"), key)[0] == 200
    limited_site.kill()
    limited_site.start()
    limited_site.wait_ready("fault")
    assert limited_site.post("/chat/completions", body("fault"), key)[0] == 429


def test_a_limit_set_by_the_command_line_holds_at_once(limited_site: Site) -> None:
    key = limited_site.key()
    assert limited_site.post("/chat/completions", body("fault"), key)[0] == 200
    shown = limited_site.cic(
        *("limit", "set", "--tenant", key.tenant, "--env", key.environment),
        *("--key", key.name, "--rpm", "2"),
    )
    assert shown
    statuses = [limited_site.post("/chat/completions", body("fault"), key)[0] for _ in range(3)]
    assert statuses.count(200) <= 2
    assert statuses[-1] == 429
