"""The agent of the appliance's own host, as a child of `cic serve --with-agent`."""

import asyncio
import logging
import signal
import sys
import time
from typing import Final

from appliance.wire.home import Home

log = logging.getLogger(__name__)

# Its engines run on meanwhile, and serve: shorter than `fleet.node_lost_s`, after which they would
# be taken for lost.
RESTART_DELAY_S: Final = 0.2
RESTART_DELAY_S_MAX: Final = 5.0
STABLE_S: Final = 30.0  # one that ran for so long is started again without delay


class LocalAgent:
    """Runs `cic agent` and runs it again when it ends by itself.

    The agent is told to end with its parent, so that a killed appliance leaves no engine behind.
    """

    def __init__(self, home: Home, *, stop_s: float) -> None:
        self._command = (sys.executable, "-m", "appliance.cli", *home.arguments, "agent")
        self._stop_s = stop_s

    async def run(self) -> None:
        """Keep the agent running until cancelled; then stop it, and with it its engines."""
        delay_s = RESTART_DELAY_S
        agent: asyncio.subprocess.Process | None = None
        try:
            while True:
                agent = await self._start("--parent-bound")
                started_s = time.monotonic()
                log.info("agent started", extra={"pid": agent.pid})
                exit_code = await agent.wait()
                if time.monotonic() - started_s >= STABLE_S:
                    delay_s = RESTART_DELAY_S
                log.warning("agent ended", extra={"exit_code": exit_code, "restart_s": delay_s})
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, RESTART_DELAY_S_MAX)
        finally:
            if agent is not None:
                await self._stop(agent)

    async def _start(self, option: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self._command, option, stdin=asyncio.subprocess.DEVNULL
        )

    async def _stop(self, agent: asyncio.subprocess.Process) -> None:
        """Have it stop its engines. Where it is dead already, another one does that."""
        if agent.returncode is None:
            agent.send_signal(signal.SIGTERM)
            if await self._ended(agent) == 0:
                return
        await self._ended(await self._start("--stop-engines"))

    async def _ended(self, agent: asyncio.subprocess.Process) -> int:
        """Its exit code; it is killed when it takes too long."""
        try:
            async with asyncio.timeout(self._stop_s):
                return await agent.wait()
        except TimeoutError:
            log.warning("agent did not stop in time", extra={"stop_s": self._stop_s})
            agent.kill()
            return await agent.wait()
