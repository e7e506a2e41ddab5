"""`cic console --web` beside browsers that mean harm, or hang: nothing is left of them."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from console.web.access import Access
from console.web.server import COOKIE, WINDOWS_MAX, WebConsole

ENDED_S = 12.0  # what takes no key for 5 s hangs; then it has 5 s to end
CROWD = 100


@dataclass
class Site:
    web: WebConsole
    port: int
    addresses: list[str]

    def url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.port}{path}"


@asynccontextmanager
async def serving(script: str) -> AsyncIterator[Site]:
    addresses: list[str] = []
    web = WebConsole(("/bin/sh", "-c", script), "gpubox-01", addresses.append)
    port = await web.start(0)
    try:
        yield Site(web, port, addresses)
    finally:
        await web.close()


@asynccontextmanager
async def signed_in(site: Site) -> AsyncIterator[aiohttp.ClientSession]:
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar) as client:
        async with client.get(site.addresses[-1]) as page:
            assert page.status == 200
            client.headers["X-Place"] = page.url.path  # where its cookie is good
        yield client


async def window(client: aiohttp.ClientSession, site: Site) -> aiohttp.ClientWebSocketResponse:
    place = client.headers["X-Place"]
    return await client.ws_connect(
        site.url(f"{place}session?width=80&height=24"), headers={"Origin": site.url("")}
    )


def transport(socket: aiohttp.ClientWebSocketResponse) -> asyncio.Transport:
    connection = socket._response.connection
    assert connection is not None
    made = connection.transport
    assert isinstance(made, asyncio.Transport)
    return made


async def until(so: Callable[[], bool], why: str, deadline_s: float = ENDED_S) -> None:
    end_s = time.monotonic() + deadline_s
    while not so():
        assert time.monotonic() < end_s, why
        await asyncio.sleep(0.02)


async def started(folder: Path) -> int:
    """Its number, once it has written it."""
    told = folder / "pid"
    await until(lambda: told.exists() and bool(told.read_text().strip()), "it does not begin")
    return int(told.read_text())


def runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_a_console_that_hangs_ends_with_its_browser(tmp_path: Path) -> None:
    """What was typed last stands in its terminal for good: the end of the browser is seen still."""
    script = f"stty raw -echo; echo $$ > {tmp_path}/pid; exec sleep 1000"
    async with serving(script) as site, signed_in(site) as client:
        socket = await window(client, site)
        pid = await started(tmp_path)
        for _ in range(5):
            await socket.send_str(json.dumps(["stdin", "x" * 20_000]))
        transport(socket).abort()
        await until(lambda: not runs(pid), "it goes on")


async def test_a_browser_that_takes_nothing_holds_up_neither_the_end_nor_memory(
    tmp_path: Path,
) -> None:
    """What a console writes waits in its own terminal."""
    script = f"echo $$ > {tmp_path}/pid; exec yes"
    async with serving(script) as site, signed_in(site) as client:
        before = memory_kib()
        sockets = [await window(client, site) for _ in range(3)]
        for socket in sockets:
            transport(socket).pause_reading()
        pid = await started(tmp_path)
        await asyncio.sleep(1.0)  # what would be gathered without a bound is much by then
        assert memory_kib() - before < 30_000
        began_s = time.monotonic()
        await site.web.close()
        assert time.monotonic() - began_s < ENDED_S
        await until(lambda: not runs(pid), "it goes on")


def memory_kib() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


async def test_what_ignores_the_hang_up_is_ended_with_the_server(tmp_path: Path) -> None:
    script = f"trap '' HUP TERM INT; echo $$ > {tmp_path}/pid; while :; do sleep 0.2; done"
    async with serving(script) as site, signed_in(site) as client:
        socket = await window(client, site)
        pid = await started(tmp_path)
        assert not socket.closed
        await site.web.close()
        await until(lambda: not runs(pid), "it goes on", 1.0)


async def test_a_crowd_gets_so_many_consoles_and_no_more() -> None:
    async with serving("exec cat") as site, signed_in(site) as client:
        opened = []  # one that nobody holds is closed

        async def one() -> int:
            try:
                opened.append(await window(client, site))
            except aiohttp.WSServerHandshakeError as refused:
                return refused.status
            return 101

        statuses = await asyncio.gather(*(one() for _ in range(CROWD)))
        assert statuses.count(101) == WINDOWS_MAX
        assert statuses.count(503) == CROWD - WINDOWS_MAX


async def test_idle_connections_keep_nobody_out() -> None:
    async with serving("exec cat") as site:
        idle = [await asyncio.open_connection("127.0.0.1", site.port) for _ in range(CROWD)]
        try:
            async with signed_in(site) as client:
                await window(client, site)
        finally:
            for _, writer in idle:
                writer.close()


@pytest.mark.parametrize("cookie", [b"\xff\xfe", b"a" * 5_000, "köln".encode(), b'"\\377"', b""])
async def test_a_cookie_that_is_no_text_is_a_wrong_one(cookie: bytes) -> None:
    async with serving("exec cat") as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        host = f"Host: 127.0.0.1:{site.port}\r\n".encode()
        writer.write(b"GET / HTTP/1.1\r\n" + host + b"Cookie: " + COOKIE.encode() + b"=" + cookie)
        writer.write(b"\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 401 ")
        writer.close()


ASKED: list[Callable[[Site, aiohttp.ClientSession], Awaitable[aiohttp.ClientResponse]]] = [
    lambda site, client: client.get(site.url("/none")),
    lambda site, client: client.get(site.url(), headers={"Host": "evil.example"}),
    lambda site, client: client.post(site.url(), data=b"x" * 100_000),
    lambda site, client: client.get(site.url("/enter?token=wrong")),
    lambda site, client: client.get(site.url("/session")),
]


@pytest.mark.parametrize("asked", ASKED)
async def test_a_refusal_is_as_closed_as_a_page(
    asked: Callable[[Site, aiohttp.ClientSession], Awaitable[aiohttp.ClientResponse]],
) -> None:
    async with serving("exec cat") as site, aiohttp.ClientSession() as client:
        answer = await asked(site, client)
        assert 400 <= answer.status < 500
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_guessing_takes_no_address_from_who_holds_it() -> None:
    """Any account of the host, and any page of the same browser, may ask for `/enter`."""
    async with serving("exec cat") as site:
        async with aiohttp.ClientSession() as stranger:
            for guess in range(40):
                async with stranger.get(site.url(f"/enter?token={guess}")) as page:
                    assert page.status in (401, 429)
        assert len(site.addresses) == 1
        async with signed_in(site) as client:
            await window(client, site)


def test_a_right_token_is_taken_however_many_wrong_ones_came() -> None:
    taken = iter(range(1, 1_000))
    access = Access(lambda count: next(taken).to_bytes(count))
    token = access.new_token(0.0)
    for _ in range(1_000):
        assert access.enter("wrong", 1.0) is None
    assert access.held_off(1.0)
    assert access.enter(token, 1.0) is not None
    assert access.enter(token, 1.0) is None, "once"
