"""Signals while a system is being changed: a closed terminal does not end it, an order to end does.

Python takes signals in the main thread alone; elsewhere, as in tests, nothing is done.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any


def _end(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def _handled(handlers: Mapping[signal.Signals, Any]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def outliving_terminal() -> Iterator[None]:
    """A lost connection (SIGHUP) is not heard, also not by programs that are run meanwhile.

    SIGTERM raises KeyboardInterrupt as Ctrl-C does, so that what was begun is taken back.
    """
    with _handled({signal.SIGHUP: signal.SIG_IGN, signal.SIGTERM: _end}):
        yield


@contextmanager
def unheard() -> Iterator[None]:
    """Nothing but SIGKILL ends the way back."""
    ignored = dict.fromkeys((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), signal.SIG_IGN)
    with _handled(ignored):
        yield
