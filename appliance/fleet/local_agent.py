"""The agent of the appliance's own host, as a child of `cic serve --with-agent`."""

import asyncio
import logging
import signal
import sys
from typing import Final

from appliance.wire.home import Home

log = logging.getLogger(__name__)

RESTART_DELAY_S: Final = 1.0
RESTART_DELAY_S_MAX: Final = 30.0


class LocalAgent:
    """Runs `cic agent` and runs it again when it ends by itself.

    The agent is told to end with its parent, so that a killed appliance leaves no engine behind.
    """

    def __init__(self, home: Home, *, stop_s: float) -> None:
        self._command = (
            *(sys.executable, "-m", "appliance.cli", *home.arguments),
            *("agent", "--parent-bound"),
        )
        self._stop_s = stop_s

    async def run(self) -> None:
        """Keep the agent running until cancelled; then stop it, and with it its engines."""
        delay_s = RESTART_DELAY_S
        while True:
            process = await asyncio.create_subprocess_exec(
                *self._command, stdin=asyncio.subprocess.DEVNULL
            )
            log.info("agent started", extra={"pid": process.pid})
            try:
                exit_code = await process.wait()
            except asyncio.CancelledError:
                await self._stop(process)
                raise
            log.warning("agent ended", extra={"exit_code": exit_code, "restart_s": delay_s})
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, RESTART_DELAY_S_MAX)

    async def _stop(self, process: asyncio.subprocess.Process) -> None:
        if process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), self._stop_s)
        except TimeoutError:
            log.warning("agent did not stop in time", extra={"stop_s": self._stop_s})
            process.kill()
            await process.wait()
