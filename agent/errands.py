"""What may wait for a disk, away from the event loop: in a thread of its own, one after the other.

A disk that hangs holds up what was asked of this thread, and nothing else of the agent: not its
heartbeats, not its watch over other engines. The thread is a daemon, so it does not keep a process
that ends.
"""

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")
SETTLE_S: Final = 5.0  # for what is under way when the agent ends


class Errands:
    """Work of one purpose, in the order it was asked for."""

    __slots__ = ("_last", "_name", "_thread", "_work")

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._last: asyncio.Future[Any] | None = None

    def begin(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """Have it done. Nobody needs to wait, and who stops waiting does not stop the work."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._work.put(lambda: _tell(loop, done, work))
        self._last = done
        return done

    async def settled(self, longest_s: float = SETTLE_S) -> bool:
        """Whether everything that was asked for is done by then."""
        if self._last is None:
            return True
        done, _ = await asyncio.wait([self._last], timeout=longest_s)
        if not done:
            log.warning("disk does not answer", extra={"errands": self._name})
        return bool(done)

    def close(self) -> None:
        """The thread ends after what it was asked for."""
        if self._thread is not None:
            self._work.put(None)
            self._thread = None

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()


def _tell(
    loop: asyncio.AbstractEventLoop, done: "asyncio.Future[T]", work: Callable[[], T]
) -> None:
    """In the thread. Whatever comes of it goes to who asked."""
    result: T
    failure: Exception | None = None
    try:
        result = work()
    except Exception as error:  # noqa: BLE001 - raised again where it was asked for
        failure = error

    def settle() -> None:
        if done.done():  # nobody waits any more
            return
        if failure is not None:
            done.set_exception(failure)
        else:
            done.set_result(result)

    with contextlib.suppress(RuntimeError):  # the loop is closed: the agent has ended
        loop.call_soon_threadsafe(settle)
