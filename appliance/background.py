"""Tasks that run beside the endpoint for as long as it serves."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

log = logging.getLogger(__name__)

RESTART_S: Final = 1.0  # before a task that failed runs again


async def kept(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Run a background task until it returns by itself, and again whenever it fails."""
    while True:
        try:
            await work()
        # The supervision of a task: its crash is told and contained, and the endpoint goes on.
        except Exception:
            log.exception("background task failed", extra={"task_name": name})
            await asyncio.sleep(RESTART_S)
        else:
            return
