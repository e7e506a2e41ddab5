"""`cic console --web`: the console in a browser on this machine.

Listens on loopback alone. A one-time token, printed where it was started, lets one browser in; a
cookie keeps it in. Each window runs a console of its own, as the account that started the server.
"""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

import msgspec
from aiohttp import WSMsgType, web

from console.web import pages
from console.web.access import Access, Entropy, own_host, place_of, policy, same_origin
from console.web.program import Program, surroundings

COOKIE: Final = "cic_console"
WINDOWS_MAX: Final = 8
_MESSAGE_BYTES_MAX: Final = 256 * 1024  # of a paste
_HEARTBEAT_S: Final = 15.0  # a window that does not answer is gone
_CLOSE_S: Final = 2.0  # for a browser to answer that it closes
_PLACE: Final = "{place:[0-9a-f]{32}}"
_SIZE: Final = (80, 24)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Asset(msgspec.Struct, frozen=True):
    package: str
    path: str
    kind: str


# The terminal in the page is xterm.js with Textual's own script around it.
_ASSETS: Final = {
    "textual.js": _Asset("textual_serve", "static/js/textual.js", "text/javascript"),
    "xterm.css": _Asset("textual_serve", "static/css/xterm.css", "text/css"),
    "font.ttf": _Asset(
        "textual_serve", "static/fonts/RobotoMono-VariableFont_wght.ttf", "font/ttf"
    ),
    "page.js": _Asset("console.web", "page.js", "text/javascript"),
    "page.css": _Asset("console.web", "page.css", "text/css"),
}


class WebConsole:
    """Serves until it is closed. `say` tells a person where to go."""

    def __init__(
        self,
        command: Sequence[str],
        site: str,
        say: Callable[[str], None],
        *,
        entropy: Entropy = os.urandom,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._command = tuple(command)
        self._site = site
        self._say = say
        self._access = Access(entropy)
        self._monotonic_s = monotonic_s
        self._port = 0
        self._windows: dict[web.WebSocketResponse, Program] = {}
        self._runner: web.AppRunner | None = None

    async def start(self, port: int) -> int:
        """Listen on 127.0.0.1; port 0 takes any. Raises OSError."""
        app = web.Application(middlewares=[self._guarded], client_max_size=1024)
        app.router.add_get("/", _stranger)
        app.router.add_get(f"/{_PLACE}/", self._page)
        # No HEAD: who only looks where an address leads does not use it up.
        app.router.add_get("/enter", self._enter, allow_head=False)
        app.router.add_get(f"/{_PLACE}/session", self._session)
        app.router.add_get("/static/{name}", _asset)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        listener = socket.create_server(("127.0.0.1", port))
        self._port = int(listener.getsockname()[1])
        await web.SockSite(self._runner, listener).start()
        self._invite()
        return self._port

    async def close(self) -> None:
        """End every console and its window, also where a browser takes nothing any more."""
        await asyncio.gather(
            *(program.end() for program in self._windows.values()),
            *(_closed(window) for window in self._windows),
        )
        if self._runner is not None:
            await self._runner.cleanup()

    def _invite(self) -> None:
        token = self._access.new_token(self._monotonic_s())
        self._say(f"http://127.0.0.1:{self._port}/enter?token={token}")

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Before everything: the name that was asked for. After it: what a browser is told."""
        try:
            if not own_host(request.headers.get("Host")):
                raise web.HTTPMisdirectedRequest(text="Ask for 127.0.0.1 or localhost.\n")
            response = await handler(request)
        except web.HTTPException as refusal:
            refusal.headers.update(_told(request))
            raise
        if not isinstance(response, web.WebSocketResponse):
            response.headers.update(_told(request))
        return response

    def _known(self, request: web.Request) -> bool:
        session = request.cookies.get(COOKIE, "")
        at_home = request.match_info["place"] == place_of(session)
        return at_home and self._access.knows(session, self._monotonic_s())

    async def _page(self, request: web.Request) -> web.StreamResponse:
        if not self._known(request):
            return await _stranger(request)
        socket_url = f"ws://{request.headers['Host']}{request.path}session"
        return _page(pages.terminal(socket_url, self._site))

    async def _enter(self, request: web.Request) -> web.StreamResponse:
        now_s = self._monotonic_s()
        held_off = self._access.held_off(now_s)
        session = self._access.enter(request.query.get("token", ""), now_s)
        if session is None:
            if not self._access.invites(now_s):
                self._invite()
            if held_off:
                text = "Too many wrong addresses. Wait a minute."
                return _page(pages.told("Not signed in", text), 429)
            text = "This address was used, or is too old. The terminal shows a fresh one."
            return _page(pages.told("Not signed in", text), 401)
        place = f"/{place_of(session)}/"
        answer = web.Response(status=303, headers={"Location": place})
        answer.set_cookie(COOKIE, session, httponly=True, samesite="Strict", path=place)
        self._invite()
        return answer

    async def _session(self, request: web.Request) -> web.StreamResponse:
        """A window: what is typed there goes to a console, what that paints comes back."""
        host, origin = request.headers.get("Host"), request.headers.get("Origin")
        if not same_origin(origin, host) or not self._known(request):
            raise web.HTTPForbidden(text="Not signed in, or not from this page.\n")
        if len(self._windows) >= WINDOWS_MAX:
            raise web.HTTPServiceUnavailable(text=f"{WINDOWS_MAX} windows are open already.\n")
        window = web.WebSocketResponse(
            max_msg_size=_MESSAGE_BYTES_MAX, heartbeat=_HEARTBEAT_S, compress=False
        )
        program = self._windows[window] = Program(self._command, surroundings(os.environ))
        try:
            await window.prepare(request)
            await program.start(*_size(request))
            painting = asyncio.create_task(_painted(program, window))
            try:
                await _typed(window, program, lambda: self._known(request))
            finally:
                painting.cancel()
                await asyncio.gather(painting, return_exceptions=True)
        finally:
            try:
                await program.end()
            finally:
                del self._windows[window]
        return window


async def _painted(program: Program, window: web.WebSocketResponse) -> None:
    """As fast as the browser takes it: what is sent is waited for."""
    with contextlib.suppress(ConnectionError):
        while data := await program.read():
            await window.send_bytes(data)
    await _closed(window)


async def _typed(window: web.WebSocketResponse, program: Program, used: Callable[[], bool]) -> None:
    """Messages of Textual's script: lists of a word and what belongs to it."""
    async for message in window:
        if message.type is not WSMsgType.TEXT:
            break
        try:
            word, *rest = msgspec.json.decode(message.data, type=list)
            if word == "stdin":
                used()
                await program.write(str(rest[0]).encode("utf-8", "replace"))
            elif word == "resize":
                program.resize(int(rest[0]["width"]), int(rest[0]["height"]))
            elif word == "ping":
                await window.send_str(msgspec.json.encode(["pong", str(rest[0])[:32]]).decode())
        except (msgspec.DecodeError, ValueError, TypeError, LookupError, TimeoutError):
            break
    await _closed(window)


async def _closed(window: web.WebSocketResponse) -> None:
    """A browser that takes nothing cannot be told."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_CLOSE_S):
            await window.close()


def _told(request: web.Request) -> dict[str, str]:
    """What a browser may do with an answer."""
    host = request.headers.get("Host", "")
    return {
        "Content-Security-Policy": policy(host if own_host(host) else "localhost"),
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Cross-Origin-Resource-Policy": "same-origin",
    }


def _size(request: web.Request) -> tuple[int, int]:
    try:
        width, height = (int(request.query[name]) for name in ("width", "height"))
    except (KeyError, ValueError):
        return _SIZE
    return (width, height) if 2 <= width <= 500 and 2 <= height <= 500 else _SIZE


async def _stranger(_: web.Request) -> web.StreamResponse:
    text = "Open the address that `cic console --web` printed. It lets one browser in."
    return _page(pages.told("Not signed in", text), 401)


async def _asset(request: web.Request) -> web.StreamResponse:
    asset = _ASSETS.get(request.match_info["name"])
    if asset is None:
        raise web.HTTPNotFound
    found: Traversable = files(asset.package).joinpath(asset.path)
    return web.Response(body=found.read_bytes(), content_type=asset.kind)


def _page(text: str, status: int = 200) -> web.Response:
    return web.Response(text=text, status=status, content_type="text/html")
