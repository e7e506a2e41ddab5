"""`cic console --web` in a real browser: keys, mouse, clipboard, size, and what it asks for."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from console.web.server import WebConsole
from tests.fakes.chromium import CHROMIUM, Page, chromium
from tests.fakes.simulated_site import simulated_site
from tests.fakes.terminal import Screen

CIC = str(Path(sys.executable).with_name("cic"))
CELLS = (133, 38)  # of 9 by 17 pixels in this window
WINDOW = (1200, 740)
GONE_S = 6.0

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")


@asynccontextmanager
async def serving(*command: str) -> AsyncIterator[str]:
    """The address that lets a browser in."""
    addresses: list[str] = []
    web = WebConsole(command, "gpubox-01", addresses.append)
    await web.start(0)
    try:
        yield addresses[0]
    finally:
        await web.close()


@asynccontextmanager
async def program_in_chromium(folder: Path, *command: str) -> AsyncIterator[Page]:
    async with (
        serving(*command) as address,
        chromium(folder, cells=CELLS, window=WINDOW) as page,
    ):
        clipboard = ["clipboardReadWrite", "clipboardSanitizedWrite"]
        await page.send("Browser.grantPermissions", permissions=clipboard)
        await page.opens(address)
        yield page


@asynccontextmanager
async def console_in_chromium(folder: Path, *options: str) -> AsyncIterator[Page]:
    """The page, with the console's first picture."""
    async with simulated_site(folder / "home") as site:
        command = (CIC, "--home", str(site.home.config), "console", *options)
        async with program_in_chromium(folder, *command) as page:
            await page.waits(lambda text: "live" in text, "the first picture")
            yield page


async def comes(
    ask: Callable[[], Any], wanted: Callable[[Any], bool], within_s: float = 20.0
) -> Any:
    async with asyncio.timeout(within_s):
        while True:
            if wanted(got := await ask()):
                return got
            await asyncio.sleep(0.05)


async def asks(page: Page) -> None:
    """For a command line."""
    await page.key(":", 186, text=":")
    await page.waits(lambda text: "Tab completes" in text, "the command line")


async def pastes(page: Page, text: str) -> None:
    """As a person who presses Ctrl+V where `text` was copied."""
    await page.says(
        "(text => { const data = new DataTransfer(); data.setData('text/plain', text);"
        " document.activeElement.dispatchEvent("
        "new ClipboardEvent('paste', {clipboardData: data, bubbles: true})) })"
        f"({text!r})"
    )


async def test_it_is_seen_it_lives_and_asks_nobody_else(tmp_path: Path) -> None:
    async with console_in_chromium(tmp_path) as page:
        assert "gpubox-01" in page.screen.text
        assert "[1 Dash]" in page.screen.text
        full: set[bytes] = set()  # of text, and alive: what they show changes
        async with asyncio.timeout(60):
            while len(full) < 3:
                picture = await page.picture()
                if len(picture) > 15_000:
                    full.add(picture)
                await asyncio.sleep(0.2)
        if "CONSOLE_PICTURE" in os.environ:
            await asyncio.to_thread(
                Path(os.environ["CONSOLE_PICTURE"]).write_bytes, max(full, key=len)
            )
        assert await page.says("document.documentElement.scrollHeight <= window.innerHeight")
        assert page.foreign(urlsplit(await page.says("location.href")).netloc) == []
        assert any(url.startswith("ws://") for url in page.asked)
        assert any(url.endswith("/static/font.ttf") for url in page.asked)
        assert [each for each in page.complaints if not each.startswith("rendering")] == []


async def test_keys_mouse_and_clipboard_reach_it(tmp_path: Path) -> None:
    """Without a click first. F1 and Ctrl+L are the console's, not the browser's."""
    async with console_in_chromium(tmp_path) as page:
        await page.types("2")
        await page.waits(lambda text: "[2 Fleet]" in text, "a digit")
        await page.types("y")
        told = await comes(
            lambda: page.says("navigator.clipboard.readText()"), lambda text: "gpu-00" in text
        )
        assert '"name"' in told
        cursor = next(
            number for number, line in enumerate(page.screen.text.splitlines()) if "gpu-02" in line
        )
        await page.mouse("mousePressed", 90, 17 * cursor + 8)
        await page.mouse("mouseReleased", 90, 17 * cursor + 8)
        await page.waits(
            lambda text: any(
                line.startswith(">") and "gpu-02" in line for line in text.splitlines()
            ),
            "a click",
        )
        await page.key("F1", 112)
        await page.waits(lambda text: "2        Fleet" in text, "F1")
        await page.key("Escape", 27)
        await page.waits(lambda text: "2        Fleet" not in text, "Esc")
        await asks(page)
        await pastes(page, "tenants köln")
        await page.waits(lambda text: "tenants köln" in text, "a paste")


async def test_marked_text_is_copied_with_shift(tmp_path: Path) -> None:
    """Where the console takes the mouse, Shift leaves it to the browser."""
    async with console_in_chromium(tmp_path) as page:
        await page.mouse("mousePressed", 5, 8, shift=True)
        await page.mouse("mouseMoved", 200, 8, shift=True)
        await page.mouse("mouseReleased", 200, 8, shift=True)
        assert await page.says("document.execCommand('copy')")
        assert "gpubox-01" in await page.says("navigator.clipboard.readText()")


async def test_another_size_of_the_window_is_another_size_of_the_console(tmp_path: Path) -> None:
    async with console_in_chromium(tmp_path) as page:
        page.screen = Screen(100, 29)
        await page.send(
            "Emulation.setDeviceMetricsOverride",
            width=905,
            height=500,
            deviceScaleFactor=1,
            mobile=False,
        )

        def fits(text: str) -> bool:
            lines = text.splitlines()
            return (
                lines[0].startswith(" gpubox-01")
                and lines[28:] == [lines[-1]]
                and (lines[-1].endswith("live 1s"))
            )

        await page.waits(fits, "a footer in the last line")


async def test_a_paste_longer_than_a_message_arrives_whole(tmp_path: Path) -> None:
    """No sign is cut in two where it is cut into messages."""
    text = "x" + "\N{GRINNING FACE}ü" * 100_000
    wanted = sha256(text.encode()).hexdigest()
    script = f"stty raw -echo; echo live; head -c {len(text.encode())} | sha256sum; sleep 60"
    async with program_in_chromium(tmp_path, "/bin/sh", "-c", script) as page:
        await page.waits(lambda seen: "live" in seen, "the program")
        await pastes(page, text)
        await page.waits(lambda seen: wanted in seen, "the paste")


async def test_an_address_in_a_text_leads_nowhere(tmp_path: Path) -> None:
    """A line of a log may hold any; who clicks on the line wants to read it."""
    script = "echo; echo see http://192.0.2.1/claim; sleep 60"
    async with program_in_chromium(tmp_path, "/bin/sh", "-c", script) as page:
        await page.waits(lambda seen: "claim" in seen, "the program")
        for what in ("mouseMoved", "mousePressed", "mouseReleased"):
            await page.mouse(what, 90, 25)
        assert await page.says("document.querySelector('.xterm-cursor-pointer') !== null")
        targets = (await page.send("Target.getTargets"))["targetInfos"]
        assert len([each for each in targets if each["type"] == "page"]) == 1


async def test_what_is_typed_is_refused_where_it_only_looks_and_q_ends_it(tmp_path: Path) -> None:
    async with console_in_chromium(tmp_path, "--read-only", "--theme", "light") as page:
        await page.waits(lambda text: "read-only" in text, "that it only looks")
        await page.types("q")
        await comes(lambda: page.says("document.body.className"), lambda names: "-closed" in names)
        told = await page.says("document.querySelector('.closed').innerText")
        assert "Reload" in told
        await page.send("Page.reload")
        await page.waits(lambda text: "live" in text, "another console")


async def test_a_browser_that_is_killed_leaves_no_console(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = f"echo $$ > {pid}; echo live; exec cat"
    async with serving("/bin/sh", "-c", script) as address:
        async with chromium(tmp_path, cells=CELLS, window=WINDOW) as page:
            await page.opens(address)
            await page.waits(lambda text: "live" in text, "the program")
        number = await asyncio.to_thread(pid.read_text)
        seen = Path(f"/proc/{number.strip()}")
        await comes(lambda: asyncio.to_thread(seen.exists), lambda runs: not runs, GONE_S)
