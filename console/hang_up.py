"""The end of the terminal: a console that nobody can see any more ends within seconds."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import termios
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from console.app import ConsoleApp

_LOOK_S: Final = 2.0
_END_S: Final = 3.0
_HUNG_UP: Final = 128 + signal.SIGHUP


class HangUp:
    """Ends an app at SIGHUP, at SIGTERM, and when its terminal is gone without either."""

    def __init__(self) -> None:
        self._ending = False

    def watch(self, app: ConsoleApp) -> None:
        if app.is_headless:
            return
        loop = asyncio.get_running_loop()
        with contextlib.suppress(RuntimeError, ValueError):  # signals are for the main thread
            for number in (signal.SIGHUP, signal.SIGTERM):
                loop.add_signal_handler(number, self._end, app, 128 + number)
        app.set_interval(_LOOK_S, lambda: self._look(app))

    def _look(self, app: ConsoleApp) -> None:
        """The settings of a terminal that hung up cannot be read any more."""
        try:
            termios.tcgetattr(sys.__stdin__.fileno())  # type: ignore[union-attr]  # it is a terminal
        except (termios.error, OSError, ValueError):
            self._end(app, _HUNG_UP)

    def _end(self, app: ConsoleApp, code: int) -> None:
        """Leave. Where that hangs because nobody takes what is written, end all the same."""
        if self._ending:
            return
        self._ending = True
        timer = threading.Timer(_END_S, os._exit, args=(code,))
        timer.daemon = True
        timer.start()
        app.exit(code)
