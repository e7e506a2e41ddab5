"""A console on a pseudo-terminal of its own, for one browser."""

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import termios
from collections.abc import Mapping, Sequence
from typing import Final

_READ_BYTES: Final = 65_536
_END_S: Final = 5.0
_TAKES_S: Final = 5.0  # a program that takes no key for so long hangs
# What xterm.js is; a browser knows all signs, wherever the server was started.
_TERMINAL: Final = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LC_ALL": "C.UTF-8"}
_OF_ANOTHER: Final = ("COLUMNS", "LINES")  # how large the terminal is that started the server
_CELLS: Final = range(2, 501)  # columns and lines that a window may have


def surroundings(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program that paints for a browser."""
    own = {name: value for name, value in environ.items() if name not in _OF_ANOTHER}
    return own | _TERMINAL


class Program:
    """Started by `start`, ended by `end`. What it paints comes out of `read`."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self._command = tuple(command)
        self._environ = dict(environ)
        self._main = -1
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, width: int, height: int) -> None:
        main, side = pty.openpty()
        try:
            os.set_blocking(main, False)
            self._main = main
            self._sized(width, height)
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=side,
                stdout=side,
                stderr=side,
                env=self._environ,
                start_new_session=True,
            )
        except BaseException:
            os.close(main)
            self._main = -1
            raise
        finally:
            os.close(side)

    async def read(self) -> bytes:
        """What it wrote; b"" when it has ended."""
        while True:
            try:
                return os.read(self._main, _READ_BYTES)
            except BlockingIOError:
                await self._ready(reading=True)
            except OSError:  # its end of the terminal is closed
                return b""

    async def write(self, data: bytes) -> None:
        """Type. Waits where it takes nothing; raises TimeoutError where that lasts."""
        while data:
            try:
                data = data[os.write(self._main, data) :]
            except BlockingIOError:
                async with asyncio.timeout(_TAKES_S):
                    await self._ready(reading=False)
            except OSError:
                return

    def resize(self, width: int, height: int) -> None:
        if width in _CELLS and height in _CELLS:
            self._sized(width, height)
            # It has no controlling terminal, which would tell it.
            self._tell(signal.SIGWINCH)

    async def end(self) -> None:
        """Hang up, and make sure of it."""
        process = self._process
        loop = asyncio.get_running_loop()
        if self._main >= 0:
            loop.remove_reader(self._main)
            loop.remove_writer(self._main)
            os.close(self._main)
            self._main = -1
        if process is None:
            return
        self._tell(signal.SIGHUP)
        try:
            await asyncio.wait_for(process.wait(), _END_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    def _tell(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _sized(self, width: int, height: int) -> None:
        with contextlib.suppress(OSError):
            size = struct.pack("HHHH", height, width, 0, 0)
            fcntl.ioctl(self._main, termios.TIOCSWINSZ, size)

    async def _ready(self, *, reading: bool) -> None:
        """Until the terminal can be read, or written."""
        loop, main = asyncio.get_running_loop(), self._main
        ready = asyncio.Event()
        (loop.add_reader if reading else loop.add_writer)(main, ready.set)
        try:
            await ready.wait()
        finally:
            if self._main == main:  # else it is closed, and forgotten by the loop
                (loop.remove_reader if reading else loop.remove_writer)(main)
