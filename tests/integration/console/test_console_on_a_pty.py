"""`cic console` on a real pseudo-terminal: how it begins and how it ends."""

import asyncio
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance.wire.command import ExitCode
from tests.fakes.simulated_site import SimulatedSite, simulated_site

_DEADLINE_S = 20.0
_HANG_UP_S = 6.0  # a console that nobody can see any more is gone by then
ALTERNATE_OFF = b"\x1b[?1049l"


@dataclass
class OnTerminal:
    """A console with a terminal of its own; `main` is the end that a person looks at."""

    process: subprocess.Popen[bytes]
    main: int
    seen: bytes = b""

    async def reads(self, text: bytes) -> None:
        end_s = time.monotonic() + _DEADLINE_S
        while text not in self.seen:
            assert time.monotonic() < end_s, self.seen[-2000:]
            self.take()
            await asyncio.sleep(0.01)

    def take(self) -> None:
        while select.select([self.main], [], [], 0)[0]:
            try:
                piece = os.read(self.main, 65_536)
            except OSError:  # its other end is closed
                return
            if not piece:
                return
            self.seen += piece

    def type(self, keys: bytes) -> None:
        os.write(self.main, keys)

    async def ended(self, within_s: float = _DEADLINE_S) -> int:
        end_s = time.monotonic() + within_s
        while (code := self.process.poll()) is None:
            assert time.monotonic() < end_s, "it goes on"
            self.take()
            await asyncio.sleep(0.01)
        self.take()
        return code


@contextmanager
def on_terminal(
    home: Path, *options: str, size: tuple[int, int] = (80, 24), **environ: str
) -> Iterator[OnTerminal]:
    main, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
    environment = {
        **{name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "LC_ALL")},
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
        "XDG_STATE_HOME": str(home / "account"),
        **environ,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "appliance.cli", "--home", str(home), "console", *options],
        stdin=its,
        stdout=its,
        stderr=its,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(its, termios.TIOCSCTTY, 0),  # noqa: PLW1509 (an ioctl)
    )
    os.close(its)
    terminal = OnTerminal(process, main)
    try:
        yield terminal
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if terminal.main >= 0:
            os.close(terminal.main)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[SimulatedSite]:
    async with simulated_site(tmp_path / "home", every_s=1.0) as running:
        yield running


async def test_q_leaves_with_0_and_gives_the_terminal_back(site: SimulatedSite) -> None:
    with on_terminal(site.home.config) as terminal:
        before = termios.tcgetattr(terminal.main)
        await terminal.reads(b"gemma-2-9b")
        terminal.type(b"q")
        assert await terminal.ended() == ExitCode.OK
        assert ALTERNATE_OFF in terminal.seen
        assert b"Traceback" not in terminal.seen
        assert termios.tcgetattr(terminal.main)[3] == before[3]  # echo and lines again


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
async def test_a_signal_ends_it_within_seconds(site: SimulatedSite, number: int) -> None:
    with on_terminal(site.home.config) as terminal:
        await terminal.reads(b"gemma-2-9b")
        terminal.process.send_signal(number)
        assert await terminal.ended(_HANG_UP_S) == 128 + number
        assert b"Traceback" not in terminal.seen


async def test_a_terminal_that_hangs_up_ends_it_within_seconds(site: SimulatedSite) -> None:
    with on_terminal(site.home.config) as terminal:
        await terminal.reads(b"gemma-2-9b")
        os.close(terminal.main)
        terminal.main = -1
        end_s = time.monotonic() + _HANG_UP_S
        while terminal.process.poll() is None:
            assert time.monotonic() < end_s, "it goes on without a terminal"
            await asyncio.sleep(0.02)


async def test_the_ascii_option_sends_no_other_byte(site: SimulatedSite) -> None:
    with on_terminal(site.home.config, "--ascii") as terminal:
        await terminal.reads(b"gemma-2-9b")
        for digit in b"2345678":
            terminal.type(bytes([digit]))
            await terminal.reads(b"[%c " % digit)
        terminal.type(b"1?")
        await terminal.reads(b"Quit")
        terminal.type(b"\x1b")
        await asyncio.sleep(0.2)
        terminal.type(b"q")
        assert await terminal.ended() == ExitCode.OK
        assert terminal.seen.isascii()


async def test_a_dumb_terminal_gets_the_status_and_no_screen(site: SimulatedSite) -> None:
    with on_terminal(site.home.config, TERM="dumb") as terminal:
        await terminal.ended()
        assert b"\x1b[" not in terminal.seen


def test_where_no_appliance_runs_it_says_so_as_the_other_commands_do(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for made, code, text in (
        (False, ExitCode.CONFIGURATION, b"There is no site"),
        (True, ExitCode.UNREACHABLE, b"does not run"),
    ):
        if made:
            home.mkdir()
            (home / "config.toml").touch()
        with on_terminal(home) as terminal:
            assert terminal.process.wait(_DEADLINE_S) == code
            terminal.take()
            assert text in terminal.seen


async def test_an_unknown_theme_or_time_is_refused_before_the_screen(site: SimulatedSite) -> None:
    for options in (("--theme", "puce"), ("--lock-after", "soon"), ("--refresh", "0")):
        with on_terminal(site.home.config, *options) as terminal:
            assert await terminal.ended() == ExitCode.USAGE
            assert b"\x1b[?1049h" not in terminal.seen


async def test_lock_after_asks_for_a_passphrase_first(site: SimulatedSite) -> None:
    with on_terminal(site.home.config, "--lock-after", "10m") as terminal:
        for asked in (b"locked console", b"epeat"):
            await terminal.reads(asked)
            terminal.type(b"sesame\n")
        await terminal.reads(b"gemma-2-9b")
        assert b"sesame" not in terminal.seen
        terminal.type(b":lock\r")
        await terminal.reads(b"This console is locked")
        terminal.type(b"q\x03\r")
        await terminal.reads(b"That is not it")
        assert terminal.process.poll() is None


async def test_no_color_sends_no_colour(site: SimulatedSite) -> None:
    with on_terminal(site.home.config, NO_COLOR="1") as terminal:
        await terminal.reads(b"gemma-2-9b")
        terminal.type(b"q")
        assert await terminal.ended() == ExitCode.OK
        for colour in (b"38;5;", b"38;2;", b"48;5;", b"48;2;", b"\x1b[31m", b"\x1b[32m"):
            assert colour not in terminal.seen
