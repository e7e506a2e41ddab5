"""A real browser without a window, driven over its DevTools protocol."""

import asyncio
import base64
import contextlib
import itertools
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import msgspec

from tests.fakes.terminal import Screen

_DEADLINE_S: Final = 40.0
_OPTIONS: Final = (
    "--headless",
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-extensions",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--remote-debugging-port=0",
)
CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser")


class Page:
    """One tab. `asked` is every address that it asked for, `complaints` what its console says."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, size: tuple[int, int]) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._size = size
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.screen = Screen(*size)

    async def listen(self) -> None:
        """Until the browser ends."""
        async for message in self._socket:
            told = msgspec.json.decode(message.data)
            if "id" in told:
                self._answers.pop(told["id"]).set_result(told)
            else:
                self._event(told["method"], told["params"])

    def _event(self, name: str, told: dict[str, Any]) -> None:
        if name == "Network.requestWillBeSent":
            self.asked.append(told["request"]["url"])
        elif name == "Network.webSocketCreated":
            self.asked.append(told["url"])
            self.screen = Screen(*self._size)
        elif name == "Network.webSocketFrameReceived" and told["response"]["opcode"] == 2:
            self.screen.feed(base64.b64decode(told["response"]["payloadData"]))
        elif name == "Log.entryAdded":
            self.complaints.append(f"{told['entry']['source']}: {told['entry']['text']}")
        elif name == "Runtime.exceptionThrown":
            self.complaints.append(str(told["exceptionDetails"]))

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": parameters}
        await self._socket.send_str(msgspec.json.encode(message).decode())
        told = await asyncio.wait_for(answer, _DEADLINE_S)
        assert "error" not in told, (method, told)
        result: dict[str, Any] = told["result"]
        return result

    async def opens(self, url: str) -> None:
        told = await self.send("Page.navigate", url=url)
        assert "errorText" not in told, told

    async def says(self, expression: str) -> Any:
        told = await self.send(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def key(self, key: str, code: int, *, text: str = "", ctrl: bool = False) -> None:
        """Pressed and let go, as a person does; `code` is Windows' virtual key."""
        how: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": code, "modifiers": 2 * ctrl}
        await self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **how)
        await self.send("Input.dispatchKeyEvent", type="keyUp", **how)

    async def types(self, sign: str) -> None:
        await self.key(sign, ord(sign.upper()), text=sign)

    async def mouse(self, what: str, x: float, y: float, *, shift: bool = False) -> None:
        await self.send(
            "Input.dispatchMouseEvent",
            type=what,
            x=x,
            y=y,
            button="left",
            buttons=0 if what == "mouseReleased" else 1,
            clickCount=1,
            modifiers=8 * shift,
        )

    async def picture(self) -> bytes:
        """PNG."""
        told = await self.send("Page.captureScreenshot", format="png")
        return base64.b64decode(told["data"])

    async def waits(self, seen: Callable[[str], bool], why: str) -> None:
        """Until the terminal shows it."""
        end_s = time.monotonic() + _DEADLINE_S
        while not seen(self.screen.text):
            assert time.monotonic() < end_s, (
                f"{why} was not seen on:\n{self.screen.text}\n{self.complaints}"
            )
            await asyncio.sleep(0.02)

    def foreign(self, *hosts: str) -> list[str]:
        """What was asked of anybody else."""
        return [
            url
            for url in self.asked
            if urlsplit(url).scheme not in ("data", "blob", "about", "chrome")
            and urlsplit(url).netloc not in hosts
        ]


@contextlib.asynccontextmanager
async def chromium(
    folder: Path, *, cells: tuple[int, int], window: tuple[int, int]
) -> AsyncIterator[Page]:
    """`cells` is how large a terminal its window of so many pixels holds. Killed at the end."""
    assert CHROMIUM is not None
    profile = folder / "profile"
    process = await asyncio.create_subprocess_exec(
        CHROMIUM,
        *_OPTIONS,
        f"--user-data-dir={profile}",
        f"--window-size={window[0]},{window[1]}",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "HOME": str(folder)},
        start_new_session=True,
    )
    listening: asyncio.Task[None] | None = None
    try:
        address = await _tab(profile / "DevToolsActivePort")
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(address, max_msg_size=0) as socket,
        ):
            page = Page(socket, cells)
            listening = asyncio.create_task(page.listen())
            for domain in ("Network", "Page", "Log", "Runtime"):
                await page.send(f"{domain}.enable")
            yield page
    finally:
        if listening is not None:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _tab(file: Path) -> str:
    """The address of the first tab, once the browser has written where it listens."""
    end_s = time.monotonic() + _DEADLINE_S
    while not (written := _text(file).split()):
        assert time.monotonic() < end_s, "Chromium does not begin"
        await asyncio.sleep(0.05)
    port = written[0]
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/json/list") as answer,
    ):
        tabs = msgspec.json.decode(await answer.read())
    return next(str(tab["webSocketDebuggerUrl"]) for tab in tabs if tab["type"] == "page")


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""
