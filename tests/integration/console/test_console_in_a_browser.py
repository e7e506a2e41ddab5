"""`cic console --web`: who gets in, who does not, and what a browser sees."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from console.web.access import SESSIONS_MAX, Access
from console.web.server import COOKIE, WINDOWS_MAX, WebConsole
from tests.fakes.simulated_site import simulated_site

DEADLINE_S = 30.0
CIC = str(Path(sys.executable).with_name("cic"))
SHELL = ("/bin/sh", "-c", "stty size; echo ready; exec cat")


@dataclass
class Served:
    """A server that runs a program; `addresses` are what it printed."""

    web: WebConsole
    port: int = 0
    addresses: list[str] = field(default_factory=list)
    place: str = f"/{'0' * 32}/"  # where the pages of the last that came in are

    def url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.port}{path}"


@asynccontextmanager
async def served(*command: str, **how: Any) -> AsyncIterator[Served]:
    addresses: list[str] = []
    web = WebConsole(command or SHELL, "gpubox-01", addresses.append, **how)
    made = Served(web, await web.start(0), addresses)
    try:
        yield made
    finally:
        await web.close()


@asynccontextmanager
async def browser(made: Served, *, enter: bool = True) -> AsyncIterator[aiohttp.ClientSession]:
    jar = aiohttp.CookieJar(unsafe=True)  # of an address, not of a name
    async with aiohttp.ClientSession(cookie_jar=jar) as client:
        if enter:
            async with client.get(made.addresses[-1]) as page:
                assert page.status == 200
                made.place = page.url.path
        yield client


def window(client: aiohttp.ClientSession, made: Served, **headers: str) -> Any:
    told = {"Origin": made.url("")} | headers
    return client.ws_connect(made.url(f"{made.place}session?width=91&height=33"), headers=told)


async def reads(socket: Any, text: bytes) -> bytes:
    """What came until this stood in it."""
    seen = b""
    async with asyncio.timeout(DEADLINE_S):
        while text not in seen:
            message = await socket.receive()
            assert message.type is aiohttp.WSMsgType.BINARY, (message, seen)
            seen += message.data
    return seen


async def test_an_address_lets_one_browser_in_once() -> None:
    async with served() as made, browser(made, enter=False) as client:
        (address,) = made.addresses
        async with client.get(made.url()) as page:
            assert page.status == 401
            assert "cic console --web" in await page.text()
        async with client.head(address, allow_redirects=False) as page:
            assert page.status == 405, "who only looks where it leads does not use it up"
        async with client.get(address, allow_redirects=False) as page:
            assert page.status == 303
            place = page.headers["Location"]
            cookie = page.cookies[COOKIE]
            assert cookie["path"] == place != "/", "else every port of this host is shown it"
            assert cookie["httponly"]
            assert cookie["samesite"] == "Strict"
        async with client.get(made.url(place)) as page:
            assert page.status == 200
            assert "/session" in await page.text()
        async with client.get(made.url(f"/{'0' * 32}/")) as page:
            assert page.status == 401
        async with browser(made, enter=False) as other, other.get(address) as page:
            assert page.status == 401
        assert len(made.addresses) == 2, "a fresh one is printed when one was used"


async def test_pages_bring_nothing_from_elsewhere_and_say_so() -> None:
    async with served() as made, browser(made) as client:
        async with client.get(made.url(made.place)) as page:
            text, headers = await page.text(), page.headers
        assert not re.findall(r"(?:src|href)=\"(?!/static/|data:,)", text)
        assert "unsafe-eval" not in headers["Content-Security-Policy"]
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
        for name in re.findall(r"/static/([a-z.]+)", text):
            async with client.get(made.url(f"/static/{name}")) as asset:
                assert asset.status == 200
                assert b"googleapis" not in await asset.read()
        for odd in ("/static/none", "/static/..%2fserver.py", "/static/%2e%2e/server.py"):
            async with client.get(made.url(odd)) as asset:
                assert asset.status == 404


async def test_a_window_types_sees_and_is_resized() -> None:
    async with served() as made, browser(made) as client, window(client, made) as socket:
        assert b"33 91" in await reads(socket, b"ready")
        await socket.send_str(json.dumps(["stdin", "köln\r"]))
        await reads(socket, "köln".encode())
        await socket.send_str(json.dumps(["ping", "7"]))
        async with asyncio.timeout(DEADLINE_S):
            while (message := await socket.receive()).type is not aiohttp.WSMsgType.TEXT:
                pass
        assert json.loads(message.data) == ["pong", "7"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://127.0.0.1:1"},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1"},
    ],
)
async def test_no_other_page_and_no_other_name_gets_a_window(headers: dict[str, str]) -> None:
    async with served() as made, browser(made) as client:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with window(client, made, **headers):
                pass
        assert refused.value.status in (403, 421)


async def test_without_a_cookie_there_is_no_window() -> None:
    async with served() as made, browser(made), browser(made, enter=False) as client:
        for cookie in ("", "wrong", "x" * 4_000):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with window(client, made, Cookie=f"{COOKIE}={cookie}"):
                    pass
            assert refused.value.status == 403


async def test_guesses_are_held_off() -> None:
    now = [0.0]
    async with (
        served(monotonic_s=lambda: now[0]) as made,
        browser(made, enter=False) as client,
    ):
        statuses = []
        for guess in range(12):
            async with client.get(made.url(f"/enter?token=guess{guess}")) as page:
                statuses.append(page.status)
        assert statuses == [401] * 10 + [429] * 2
        async with client.get(made.addresses[-1]) as page:
            assert page.status == 200, "who guesses keeps nobody out"
        now[0] = 61.0
        async with client.get(made.addresses[-1]) as page:
            assert page.status == 200


async def test_only_so_many_windows_and_each_end_frees_one() -> None:
    async with served() as made, browser(made) as client:
        windows = [await window(client, made) for _ in range(WINDOWS_MAX)]
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await window(client, made)
        assert refused.value.status == 503
        await windows[0].close()
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    windows.append(await window(client, made))
                    break
                except aiohttp.WSServerHandshakeError:
                    await asyncio.sleep(0.05)
        for each in windows[1:]:
            await each.close()


@pytest.mark.parametrize(
    "message",
    [
        "not json",
        "{}",
        "[]",
        '["stdin"]',
        '["resize"]',
        '["resize", {"width": "x", "height": null}]',
        '["stdin", "' + "a" * 300_000 + '"]',
    ],
)
async def test_a_window_that_sends_nonsense_ends_and_no_other(message: str) -> None:
    async with served() as made, browser(made) as client, window(client, made) as good:
        await reads(good, b"ready")
        async with window(client, made) as bad:
            await bad.send_str(message)
            async with asyncio.timeout(DEADLINE_S):
                while not bad.closed:
                    await bad.receive()
        await good.send_str(json.dumps(["resize", {"width": 1e9, "height": -1}]))
        await good.send_str(json.dumps(["stdin", "still\r"]))
        await reads(good, b"still")


async def test_a_browser_that_leaves_ends_its_program(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    async with served("/bin/sh", "-c", f"echo $$ > {told}; echo ready; exec cat") as made:
        async with browser(made) as client, window(client, made) as socket:
            await reads(socket, b"ready")
            pid = int(told.read_text())
            os.kill(pid, 0)
        await asyncio.to_thread(gone, pid)


def gone(pid: int) -> None:
    end_s = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < end_s
        time.sleep(0.05)


def test_tokens_end_and_sessions_are_bounded() -> None:
    taken = iter(range(1, 1_000))
    access = Access(lambda count: next(taken).to_bytes(count))
    late = access.new_token(0.0)
    assert access.enter(late, 601.0) is None
    sessions = []
    for number in range(SESSIONS_MAX + 1):
        session = access.enter(access.new_token(700.0 + number), 700.0 + number)
        assert session is not None
        sessions.append(session)
    assert not access.knows(sessions[0], 710.0), "the one unused for longest made room"
    assert all(access.knows(each, 710.0) for each in sessions[1:])
    assert not access.knows(sessions[1], 710.0 + 1_801.0), "idle ones end"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    started = []

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        command = [CIC, "--home", str(tmp_path / "home"), *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


async def test_the_command_says_where_to_go_and_ends_with_its_consoles(
    tmp_path: Path, home: Callable[..., subprocess.Popen[bytes]]
) -> None:
    async with simulated_site(tmp_path / "home"):
        process = home("console", "--web", "--port", "0", "--read-only")
        assert process.stdout is not None
        line = (await asyncio.to_thread(process.stdout.readline)).decode().strip()
        port = int(re.findall(r":(\d+)/enter\?token=", line)[0])
        made = Served(None, port, [line])  # type: ignore[arg-type]  # it runs elsewhere
        async with browser(made) as client, window(client, made) as socket:
            seen = await reads(socket, b"live")
            if b"read-only" not in seen:  # the header may be painted a moment later
                await reads(socket, b"read-only")
            process.send_signal(signal.SIGINT)
            assert await asyncio.to_thread(process.wait, 15) == 0


def test_a_site_that_does_not_run_is_told_at_once(
    home: Callable[..., subprocess.Popen[bytes]],
) -> None:
    process = home("console", "--web")
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 7
    assert b"There is no site" in errors
