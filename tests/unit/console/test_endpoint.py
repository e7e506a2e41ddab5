"""What the console's chat makes of an endpoint's answers."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from console.client import AdminError
from console.endpoint import Answer, Question, ask

STREAM = (
    b'data: {"choices": [{"delta": {"role": "assistant"}}]}\n\n'
    b'data: {"choices": [{"delta": {"content": "Hel"}}]}\n\n'
    b"data: no json\n\n"
    b'data: {"choices": [{"delta": {"content": "lo"}}]}\n\n'
    b'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}\n\n'
    b"data: [DONE]\n\n"
)


@asynccontextmanager
async def endpoint(
    handler: Callable[[web.Request], object],
) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", handler)  # type: ignore[arg-type]  # a handler
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


async def answers(url: str, key: str = "clsk_live_x") -> list[Answer]:
    question = Question("tiny", ({"role": "user", "content": "hi"},))
    return [answer async for answer in ask(url, key, question)]


async def test_a_stream_becomes_text_tokens_and_times() -> None:
    asked: list[dict[str, object]] = []

    async def handler(request: web.Request) -> web.Response:
        asked.append({**await request.json(), "key": request.headers["Authorization"]})
        return web.Response(body=STREAM, content_type="text/event-stream")

    async with endpoint(handler) as url:
        last = (await answers(url))[-1]
    assert last.text == "Hello"
    assert (last.input_tokens, last.output_tokens) == (9, 2)
    assert last.first_token_s is not None
    assert last.took_s is not None
    assert last.tokens_per_s is None  # too short to tell
    assert asked[0]["model"] == "tiny"
    assert asked[0]["key"] == "Bearer clsk_live_x"
    assert asked[0]["stream_options"] == {"include_usage": True}


async def test_a_refusal_is_told_in_the_endpoints_words() -> None:
    async def handler(_request: web.Request) -> web.Response:
        error = {"message": "The tenant's limit is reached.", "code": "rate_limit_exceeded"}
        return web.json_response({"error": error}, status=429)

    async with endpoint(handler) as url:
        (only,) = await answers(url)
    assert only.refused == "The tenant's limit is reached. (HTTP 429, rate_limit_exceeded)"


async def test_an_answer_that_breaks_off_keeps_what_came() -> None:
    async def handler(_request: web.Request) -> web.Response:
        broken = STREAM[:90] + b'data: {"error": {"message": "The engine failed."}}\n\n'
        return web.Response(body=STREAM.split(b"data: no")[0] + broken[90:])

    async with endpoint(handler) as url:
        last = (await answers(url))[-1]
    assert last.text == "Hel"
    assert last.refused == "The engine failed."


async def test_no_endpoint_and_no_possible_key_are_said() -> None:
    with pytest.raises(AdminError, match="cannot be asked"):
        await answers("http://127.0.0.1:9/v1")
    with pytest.raises(AdminError, match="cannot be asked"):
        await answers("http://127.0.0.1:9/v1", key="schlüssel")
