"""Anything typed on a real pseudo-terminal, as bytes: the console stays, and sends ASCII only.

What Textual makes of bytes is part of it here: halves of escape sequences, pastes that never end,
bytes that are no UTF-8, and a window that changes while it is painted.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import pty
import random
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from appliance.wire.command import ExitCode
from tests.fakes.random_messages import random_text
from tests.fakes.simulated_site import Faults, SimulatedSite, simulated_site

EVENTS = int(os.environ.get("CONSOLE_FUZZ_PTY", "250"))
SEED = int(os.environ.get("CONSOLE_FUZZ_SEED", "1"))
log = logging.getLogger(__name__)
_DEADLINE_S: Final = 20.0
_TAIL: Final = 4_000  # bytes of what it wrote, to tell what went wrong
_LEFT: Final = b"\x1b[?1049l"
_MODE: Final = re.compile(rb"\[([1-8]) ")  # how the mode bar marks it in ASCII
_MODES_MIN: Final = 4
_ELSEWHERE: Final = 20  # events in one place
_DIGITS: Final = (b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"8")
_SIZES: Final = ((80, 24), (160, 48), (79, 24), (40, 10), (1, 1), (250, 80))
_KEYS: Final = (
    *(b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"8", b"j", b"k", b"\r", b"\r", b"\x1b", b"\t"),
    *(b"s", b"f", b"p", b"y", b"w", b"/", b":", b"?", b"!", b"D", b"X", b"N", b"E", b"R", b"B"),
    *(b"I", b"V", b"T", b"A", b"\x1b[A", b"\x1b[B", b"\x1b[5~", b"\x1b[6~", b"\x1b[H", b"\x1b[F"),
    *(b"\x1b[C", b"\x1b[D", b"\x1b[Z", b"\x7f", b" ", b"\x1bOP", b"\x1b[15;5~", b"\x0b", b"\x05"),
)
_ODD: Final = (
    *(b"\x1b[", b"\x1bO", b"\x1b[1;", b"\x1b[<0;10;10M", b"\x1b[<0;10;10m", b"\x1b[<64;3;3M"),
    *(b"\x1b[<0;999;999M", b"\x1b[I", b"\x1b[O", b"\x1b[200~", b"\x1b[201~", b"\x1b[24;80R"),
    *(b"\x1b]52;c;AAAA\x07", b"\x1b[?2026;2$y", b"\xc3", b"\xff\xfe", b"\xf0\x9f\x91\xa9", b"\x00"),
    *("éß漢".encode(), b"\x1b[99999999999~", b"\x1bP1$r0m\x1b\\"),
)
# ^C ^\ ^Z and ^S ^Q are the terminal's own; what they do is not what is asked here.
_SIGNALS: Final = frozenset(b"\x03\x11\x13\x1a\x1c")


@dataclass
class Typed:
    """A console whose terminal takes whatever comes. `seen` is the last of what it wrote."""

    process: subprocess.Popen[bytes]
    main: int
    seen: bytes = b""
    beyond: bytes = b""  # the first piece that was not ASCII
    modes: set[bytes] = field(default_factory=set)  # digits of those that were shown
    written: int = 0
    trail: list[str] = field(default_factory=list)

    def take(self) -> None:
        while select.select([self.main], [], [], 0)[0]:
            try:
                piece = os.read(self.main, 65_536)
            except OSError:  # its other end is closed
                return
            # Behind its end the terminal itself shows what is typed.
            its_own = piece if _LEFT not in self.seen else b""
            its_own = its_own.partition(_LEFT)[0]
            if not self.beyond and not its_own.isascii():
                self.beyond = its_own
            self.modes |= set(_MODE.findall(its_own))
            self.written += len(piece)
            self.seen = (self.seen + piece)[-_TAIL:]

    async def until(self, told: Callable[[], bool], why: str) -> None:
        end_s = time.monotonic() + _DEADLINE_S
        while not told():
            self.take()
            assert time.monotonic() < end_s, f"{why}:\n{self.said()}"
            await asyncio.sleep(0.01)

    async def type(self, keys: bytes) -> None:
        """All of it, however slowly it is read."""
        self.trail = [*self.trail[-40:], repr(keys[:60])]
        end_s = time.monotonic() + _DEADLINE_S
        while keys and self.process.poll() is None:
            assert time.monotonic() < end_s, f"It reads nothing any more:\n{self.said()}"
            self.take()
            if select.select([], [self.main], [], 0)[1]:
                keys = keys[os.write(self.main, keys[:256]) :]
            await asyncio.sleep(0)

    def resize(self, width: int, height: int) -> None:
        self.trail = [*self.trail[-40:], f"{width}x{height}"]
        fcntl.ioctl(self.main, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGWINCH)

    def said(self) -> str:
        return "\n".join((*self.trail, self.seen.decode(errors="replace")))


@contextlib.contextmanager
def console(site: SimulatedSite, folder: Path) -> Iterator[Typed]:
    main, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {
        **{name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "LC_ALL")},
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
        "XDG_STATE_HOME": str(folder / "account"),
        "DEEDS": str(folder / "deeds"),
        "PYTHONPATH": str(Path(__file__).resolve().parents[3]),
    }
    program = [sys.executable, "-m", "tests.fakes.console_without_deeds"]
    process = subprocess.Popen(
        [*program, "--home", str(site.home.config), "console", "--ascii"],
        stdin=its,
        stdout=its,
        stderr=its,
        env=environment,
        cwd=folder,  # `w` writes here
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(its, termios.TIOCSCTTY, 0),  # noqa: PLW1509 (an ioctl)
    )
    os.close(its)
    try:
        yield Typed(process, main)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(main)


def anything(chance: random.Random) -> bytes:
    """What one event types."""
    kind = chance.random()
    if kind < 0.6:
        return chance.choice(_KEYS)
    if kind < 0.75:
        return chance.choice(_ODD)
    if kind < 0.85:
        text = random_text(chance, 300).encode()
        end = b"" if chance.random() < 0.05 else b"\x1b[201~"
        return b"\x1b[200~" + text + end
    if kind < 0.93:
        words = ("tenant create x y", "logs", "theme light", "ops", "help", "no such", "usage -h")
        return f":{chance.choice(words)}\r".encode()
    made = chance.randbytes(chance.randrange(1, 12))
    return bytes(each for each in made if each not in _SIGNALS)


def disturb(site: SimulatedSite, chance: random.Random) -> None:
    """Something of the site goes wrong, or right again."""
    site.faults = chance.choice(
        (
            *(Faults(), Faults(), Faults(status=500), Faults(garbage=True)),
            *(Faults(hang_up=True), Faults(silent=True), Faults(slow_s=0.05)),
        )
    )
    if chance.random() < 0.2:
        site.boot = f"b{chance.randrange(10**6)}"
    site.step()


async def fuzzed(
    site: SimulatedSite, folder: Path, chance: random.Random, events: int, modes: set[bytes]
) -> int:
    """One console until its end, at most so many events. How many there were."""
    done = 0
    with console(site, folder) as typed:
        await typed.until(lambda: b"gemma-2-9b" in typed.seen, "It did not begin")
        while done < events and typed.process.poll() is None:
            done += 1
            kind = chance.random()
            if done % _ELSEWHERE == 0:
                await _go_elsewhere(typed, chance)
            elif kind < 0.85:
                await typed.type(anything(chance))
            elif kind < 0.93:
                typed.resize(*chance.choice(_SIZES))
            else:
                disturb(site, chance)
            await asyncio.sleep(chance.choice((0.0, 0.0, 0.005, 0.02)))
            typed.take()
            assert not typed.beyond, (typed.beyond[:300], typed.trail)
            assert b"Traceback" not in typed.seen, typed.said()
            assert b"\x1b]0;" not in typed.seen, typed.said()  # what a command wrote is text
        if typed.process.poll() is None:
            await _still_answers(site, typed)
        typed.take()
        assert typed.process.wait(_DEADLINE_S) == ExitCode.OK, typed.said()
        assert not typed.beyond, (typed.beyond[:300], typed.trail)
        modes |= typed.modes
    return done


async def _go_elsewhere(typed: Typed, chance: random.Random) -> None:
    """As somebody would who is lost: whole again, out of whatever it is, to another mode."""
    typed.resize(*chance.choice(_SIZES[:2]))
    for keys in (b"\x1b[201~", b"\x1b", b"\x1b", b"\x1b", chance.choice(_DIGITS)):
        await typed.type(keys)
        await asyncio.sleep(0.12)  # longer than an ESC waits for what may follow it
        typed.take()


async def _still_answers(site: SimulatedSite, typed: Typed) -> None:
    """After all that it is a console as before, which `q` leaves with 0."""
    site.faults = Faults()
    site.step()
    await typed.type(b"\x1b[201~")  # a paste that had no end
    typed.resize(80, 24)

    async def left() -> None:
        while typed.process.poll() is None:
            for keys in (b"\x1b", b"\x1b", b"\t\r", b"q"):  # a secret has a button of its own
                await typed.type(keys)
                await asyncio.sleep(0.15)
                typed.take()

    try:
        await asyncio.wait_for(left(), _DEADLINE_S)
    except TimeoutError:
        pytest.fail(f"Nothing leads out of it:\n{typed.said()}")


@pytest.mark.timeout(120 + EVENTS // 5)
async def test_the_console_survives_any_bytes(tmp_path: Path) -> None:
    chance, done, begun = random.Random(SEED), 0, 0
    modes: set[bytes] = set()
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    async with simulated_site(tmp_path / "home", every_s=0.5, seed=SEED) as site:
        while done < EVENTS:
            site.faults, site.boot = Faults(), f"b{begun}"
            begun += 1
            done += max(1, await fuzzed(site, tmp_path, chance, EVENTS - done, modes))
    deeds = tmp_path / "deeds"
    carried_out = len(deeds.read_text().splitlines()) if deeds.exists() else 0
    log.info(
        "%d events in %d consoles, %d commands, modes %s", done, begun, carried_out, sorted(modes)
    )
    assert len(modes) >= _MODES_MIN  # it was not in one place all the time
