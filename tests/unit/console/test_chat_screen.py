"""7 Chat: asked as the administrator or with a key, streamed, stopped, refused."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.fakes.console_pilot import Driven, driven

SIZES = [(80, 24), (160, 48)]
Opened = Callable[..., AbstractAsyncContextManager[Driven]]


@dataclass
class Endpoint:
    """Streams what it is told to; `hold` keeps a stream open."""

    url: str = ""
    words: list[str] = field(default_factory=lambda: ["Rivers ", "flow ", "to the sea."])
    status: int = 200
    hold: bool = False
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.headers["Authorization"], await request.json()))
        if self.status != 200:
            error = {"message": "This tenant is suspended.", "code": "tenant_suspended"}
            return web.json_response({"error": error}, status=self.status)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            for word in self.words:
                event = {"choices": [{"delta": {"content": word}}]}
                await response.write(f"data: {json.dumps(event)}\n\n".encode())
            while self.hold:
                await response.write(b": still here\n\n")
                await asyncio.sleep(0.02)
            usage = {"prompt_tokens": 11, "completion_tokens": 6}
            await response.write(
                f"data: {json.dumps({'choices': [], 'usage': usage})}\n\n".encode()
            )
            await response.write(b"data: [DONE]\n\n")
        except ConnectionError:
            self.left.set()
        return response


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    made = Endpoint()
    application = web.Application()
    application.router.add_post("/v1/chat/completions", made.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield made
    made.hold = False
    await runner.cleanup()


@pytest.fixture
def console(tmp_path: Path) -> Opened:
    def opened(**how: Any) -> AbstractAsyncContextManager[Driven]:
        return driven(tmp_path / "home", mode="7", **how)

    return opened


def prepared(seen: Driven, endpoint: Endpoint) -> None:
    seen.site.answers["/v1/chat-passes"] = {
        "id": "key_1",
        "key": "clsk_live_pass",
        "endpoint": endpoint.url,
        "tenant": "site-console",
        "environment": "local",
        "expires_at": "2026-11-23T20:00:00Z",
    }
    seen.site.fleet.tables()["site"]["site"]["endpoint"] = endpoint.url
    seen.site.tell()


async def type_line(seen: Driven, text: str) -> None:
    await seen.press(*["space" if sign == " " else sign for sign in text], "enter")


@pytest.mark.parametrize("size", SIZES)
async def test_the_administrator_asks_without_a_key(
    console: Opened, endpoint: Endpoint, size: tuple[int, int]
) -> None:
    async with console(size=size) as seen:
        await seen.reads("asked with your account")
        prepared(seen, endpoint)
        await seen.press("a")
        await type_line(seen, "why do rivers flow")
        await seen.reads("Rivers flow to the sea.")
        await seen.reads("11 in, 6 out")
        (authorization, body) = endpoint.asked[0]
        assert authorization == "Bearer clsk_live_pass"
        assert body["messages"] == [{"role": "user", "content": "why do rivers flow"}]
        assert "clsk_live_pass" not in seen.picture()
        await type_line(seen, "and lakes")
        await seen.until(lambda: len(endpoint.asked) == 2)
        assert len(endpoint.asked[1][1]["messages"]) == 3, "the conversation goes on"
        assert seen.site.asked.count("/v1/chat-passes") == 1, "a pass lasts"


async def test_with_a_key_it_is_that_keys_view_and_o_is_the_way_back(
    console: Opened, endpoint: Endpoint
) -> None:
    async with console() as seen:
        await seen.reads("asked with your account")
        prepared(seen, endpoint)
        await seen.press("k")
        await type_line(seen, "clsk_live_of_a_tenant")
        await type_line(seen, "hello")
        await seen.reads("counted as its use")
        await seen.until(lambda: endpoint.asked)
        assert endpoint.asked[0][0] == "Bearer clsk_live_of_a_tenant"
        assert "/v1/chat-passes" not in seen.site.asked
        await seen.reads("11 in, 6 out")
        await seen.press("escape", "o")
        await seen.reads("asked with your account")


async def test_escape_stops_an_answer_and_its_request(console: Opened, endpoint: Endpoint) -> None:
    endpoint.hold = True
    async with console() as seen:
        await seen.reads("asked with your account")
        prepared(seen, endpoint)
        await seen.press("a")
        await type_line(seen, "go on")
        await seen.reads("Rivers flow")
        await seen.press("escape")
        await seen.reads("stopped")
        await asyncio.wait_for(endpoint.left.wait(), 10)


async def test_a_refusal_is_shown_in_the_endpoints_words(
    console: Opened, endpoint: Endpoint
) -> None:
    endpoint.status = 403
    async with console() as seen:
        await seen.reads("asked with your account")
        prepared(seen, endpoint)
        await seen.press("a")
        await type_line(seen, "hello")
        await seen.reads("This tenant is suspended. (HTTP 403, tenant_suspended)")
        seen.check("chat-refused")


async def test_a_viewer_needs_a_key(console: Opened, endpoint: Endpoint) -> None:
    async with console(role="viewer") as seen:
        prepared(seen, endpoint)
        await seen.reads("no key yet: k")
        await seen.press("a")
        await type_line(seen, "clsk_live_x")
        await type_line(seen, "hello")
        await seen.reads("Rivers flow to the sea.")
        assert "/v1/chat-passes" not in seen.site.asked


async def test_what_a_model_says_commands_no_terminal(console: Opened, endpoint: Endpoint) -> None:
    endpoint.words = ["\x1b]52;c;AAAA\x07", "\x1b[2J", "fine"]
    async with console() as seen:
        await seen.reads("asked with your account")
        prepared(seen, endpoint)
        await seen.press("a")
        await type_line(seen, "hello")
        await seen.reads("fine")
        assert "\x1b" not in seen.picture()
        assert "\x07" not in seen.picture()


@pytest.mark.parametrize("size", SIZES)
async def test_nothing_ready_says_so(console: Opened, size: tuple[int, int]) -> None:
    async with console(size=size, condition="empty") as seen:
        await seen.reads("none is ready")
        seen.check("chat-empty")
