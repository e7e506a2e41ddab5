"""openai-python, asynchronous: many calls at once, streams beside each other, cancellation."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from tests.fakes.engine import FaultEngine
from tests.fakes.site import Key, Site

MESSAGES: list[Any] = [{"role": "user", "content": "Say something about the river."}]


@pytest.fixture
async def aclient(site: Site, key: Key) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=site.base_url, api_key=key.secret, max_retries=0, timeout=30
    ) as made:
        yield made
    await asyncio.sleep(0)  # a closed transport is let go in the loop's next turn


async def streamed(client: openai.AsyncOpenAI, model: str, tokens: int) -> tuple[str, int]:
    stream = await client.chat.completions.create(
        model=model,
        messages=MESSAGES,
        max_tokens=tokens,
        stream=True,
        stream_options={"include_usage": True},
    )
    text, output = "", -1
    async for chunk in stream:
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
        if chunk.usage:
            output = chunk.usage.completion_tokens
    return text, output


async def test_calls_of_every_kind_at_once(aclient: openai.AsyncOpenAI) -> None:
    chats = [
        aclient.chat.completions.create(model=model, messages=MESSAGES, max_tokens=4)
        for model in ("fault", "tiny") * 4
    ]
    vectors = [aclient.embeddings.create(model="tiny-vectors", input=f"{n}") for n in range(4)]
    streams = [streamed(aclient, model, 4) for model in ("fault", "tiny") * 4]
    answers = await asyncio.gather(*chats)
    assert all(answer.choices[0].message.content for answer in answers)
    assert all(len(answer.data) == 1 for answer in await asyncio.gather(*vectors))
    assert all(text and output == 4 for text, output in await asyncio.gather(*streams))


async def test_streams_do_not_mix(aclient: openai.AsyncOpenAI) -> None:
    async def echo(number: int) -> str:
        stream = await aclient.chat.completions.create(
            model="fault",
            messages=MESSAGES,
            max_tokens=20,
            stream=True,
            extra_body={"say": f"<{number}>", "token_s": 0.002},
        )
        parts = [c.choices[0].delta.content or "" async for c in stream if c.choices]
        return "".join(parts)

    texts = await asyncio.gather(*(echo(number) for number in range(40)))
    assert texts == [f"<{number}>" * 20 for number in range(40)]


async def test_a_cancelled_task_cancels_the_engine(
    aclient: openai.AsyncOpenAI, engine: FaultEngine, site: Site
) -> None:
    request_id = site.new_request_id()
    call = asyncio.ensure_future(
        aclient.chat.completions.create(
            model="fault",
            messages=MESSAGES,
            extra_body={"fault": "hang_before_head"},
            extra_headers={"x-request-id": request_id},
        )
    )
    await engine.seen(lambda requests: requests)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await engine.seen(lambda requests: requests[-1].closed_at, 0.5)
    record = await asyncio.to_thread(site.record, request_id)
    assert (record["status"], record["http_status"]) == ("aborted", 499)
