"""The double in a thread of its own, beside callers that block: the SDK's own synchronous calls."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import stripe

from appliance.domain.clock import Clock
from tests.fakes.stripe.double import StripeDouble

R = TypeVar("R")


class ThreadedDouble:
    """A running double; `run` carries out one of its coroutines where it lives."""

    def __init__(self, double: StripeDouble, loop: asyncio.AbstractEventLoop) -> None:
        self.double = double
        self._loop = loop

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    def advance(self, seconds: int) -> None:
        self.run(self.double.advance(seconds))

    def client(self, api_key: str | None = None) -> stripe.StripeClient:
        """The real SDK, which does not retry by itself."""
        return stripe.StripeClient(
            api_key or self.double.api_key,
            base_addresses={"api": self.double.base_url},
            max_network_retries=0,
        )


@contextmanager
def double_in_thread(clock: Clock | None = None) -> Iterator[ThreadedDouble]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    threaded = ThreadedDouble(StripeDouble(clock), loop)
    threaded.run(threaded.double.start())
    try:
        yield threaded
    finally:
        threaded.run(threaded.double.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=10)
        loop.close()
