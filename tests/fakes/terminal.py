"""A terminal for tests: a program on a pseudo-terminal, its picture as text, its clipboard.

It knows what full-screen programs send: the cursor's place, erasing, text of one and two columns.
Colours and modes are passed over.
"""

import base64
import codecs
import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from rich.cells import cell_len

# One thing that is sent: a command with parameters, a string to the terminal, a short one, a sign.
_PIECE: Final = re.compile(
    r"\x1b\[(?P<csi>[0-?]*)[ -/]*(?P<end>[@-~])"
    r"|\x1b\](?P<osc>[^\x07\x1b]*)(?:\x07|\x1b\\)"
    r"|\x1b[PX^_][^\x1b]*\x1b\\"
    r"|\x1b[ -/]*[0-OQ-WYZ`-~\\]"
    r"|(?P<sign>[^\x1b])",
    re.DOTALL,
)
_CLIPBOARD: Final = "52;c;"
_DEADLINE_S: Final = 30.0


class Screen:
    """What stands on a terminal of so many columns and lines, and what was copied from it."""

    def __init__(self, width: int, height: int) -> None:
        self._width = width
        self._lines = [[" "] * width for _ in range(height)]
        self._at = (0, 0)  # column, line
        self._rest = ""
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self.copied = ""

    def feed(self, data: bytes) -> None:
        text = self._rest + self._decode(data)
        done = 0
        while (piece := _PIECE.match(text, done)) is not None:
            done = piece.end()
            if piece["sign"] is not None:
                self._sign(piece["sign"])
            elif piece["end"] is not None:
                self._command(piece["csi"], piece["end"])
            elif piece["osc"] is not None and piece["osc"].startswith(_CLIPBOARD):
                self.copied = base64.b64decode(piece["osc"][len(_CLIPBOARD) :]).decode()
        self._rest = text[done:]  # the beginning of one

    @property
    def text(self) -> str:
        return "\n".join("".join(line).rstrip() for line in self._lines)

    def _sign(self, sign: str) -> None:
        column, line = self._at
        if sign == "\r":
            self._at = (0, line)
        elif sign == "\n":
            self._at = (0, min(line + 1, len(self._lines) - 1))
        elif sign == "\b":
            self._at = (max(0, column - 1), line)
        elif sign >= " ":
            wide = cell_len(sign)
            if column + wide <= self._width:
                for offset in range(wide):
                    self._lines[line][column + offset] = "" if offset else sign
            self._at = (column + wide, line)

    def _command(self, given: str, end: str) -> None:
        column, line = self._at
        numbers = [int(each) if each.isdigit() else 0 for each in given.split(";")]
        first = numbers[0] or 1
        if end in "Hf":
            down = (numbers[1] or 1) if len(numbers) > 1 else 1
            self._at = (min(down, self._width) - 1, min(first, len(self._lines)) - 1)
        elif end == "C":
            self._at = (min(column + first, self._width - 1), line)
        elif end == "K":
            self._lines[line][column:] = [" "] * (self._width - column)
        elif end == "J" and numbers[0] == 2:
            self._lines = [[" "] * self._width for _ in self._lines]


class Terminal:
    """A program on a pseudo-terminal. `waits` reads until something is so, with a deadline."""

    def __init__(self, process: subprocess.Popen[bytes], main: int, size: tuple[int, int]) -> None:
        self.process = process
        self.screen = Screen(*size)
        self.ascii_only = True  # so far
        self._main = main

    def type(self, keys: bytes) -> None:
        """All of it, however slowly it is read."""
        while keys:
            self._take(0)
            if select.select([], [self._main], [], 0.1)[1]:
                keys = keys[os.write(self._main, keys[:256]) :]

    def waits(self, seen: Callable[[str], bool], why: str, deadline_s: float = _DEADLINE_S) -> None:
        end_s = time.monotonic() + deadline_s
        while not seen(self.screen.text):
            left_s = end_s - time.monotonic()
            assert left_s > 0, f"{why} was not seen on:\n{self.screen.text}"
            if not self._take(min(left_s, 0.5)):
                code = self.process.poll()
                assert code is None, f"{why}: it ended with {code} on:\n{self.screen.text}"

    def ended(self, deadline_s: float = _DEADLINE_S) -> int:
        """Its exit code."""
        end_s = time.monotonic() + deadline_s
        while (code := self.process.poll()) is None:
            assert time.monotonic() < end_s, f"it goes on:\n{self.screen.text}"
            self._take(0.05)
        return code

    def _take(self, wait_s: float) -> bool:
        """What it wrote until now. Whether there was anything."""
        came = False
        while select.select([self._main], [], [], 0 if came else wait_s)[0]:
            try:
                piece = os.read(self._main, 65_536)
            except OSError:  # its other end is closed
                return came
            if not piece:
                return came
            self.screen.feed(piece)
            self.ascii_only = self.ascii_only and piece.isascii()
            came = True
        return came


@contextlib.contextmanager
def terminal(
    command: Sequence[str],
    *,
    size: tuple[int, int] = (80, 24),
    folder: Path,
    environ: Mapping[str, str],
) -> Iterator[Terminal]:
    """`folder` is where it is started. At the end it is killed, if it still runs."""
    main, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
    process = subprocess.Popen(
        command,
        stdin=its,
        stdout=its,
        stderr=its,
        cwd=folder,
        env={"LANG": "C.UTF-8", "TERM": "xterm-256color", **environ},
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(its, termios.TIOCSCTTY, 0),  # noqa: PLW1509 (an ioctl)
    )
    os.close(its)
    try:
        yield Terminal(process, main, size)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(main)
