"""Keeps a reading process running, and gives it up when the driver holds it.

A process that a driver holds in the kernel does not even die: no second one is started until the
first is gone, or there would be more of them every minute.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from agent.gpu.messages import DriverFailed, Line, decode
from appliance.domain.clock import Clock

log = logging.getLogger(__name__)

READER: Final = (sys.executable, "-m", "agent.gpu.reader")
PATIENCE_S: Final = 10.0  # with a driver that hangs, until another process tries; doubles
PATIENCE_S_MAX: Final = 60.0
_CHECK_S: Final = 0.5
_AGAIN_S: Final = 1.0  # after a reader that ended for a reason that a new one may not have
_NO_DRIVER_AGAIN_S: Final = 15.0  # drivers are installed by people
_CRASH_AGAIN_S: Final = 5.0
_END_S: Final = 1.0  # the agent's own end is not held up by a driver for longer
_LINE_BYTES_MAX: Final = 1024 * 1024


class Sampler:
    """`hear` takes every line; `stuck` says whether something of what is read hangs."""

    def __init__(
        self,
        *,
        clock: Clock,
        began: Callable[[], None],
        hear: Callable[[Line], None],
        crashed: Callable[[str], None],
        stuck: Callable[[], bool],
        command: Sequence[str] = READER,
    ) -> None:
        self._clock = clock
        self._began = began
        self._hear = hear
        self._crashed = crashed
        self._stuck = stuck
        self._command = command
        self._patience_s = PATIENCE_S

    async def run(self) -> None:
        """Read until cancelled. The reader is ended then."""
        while True:
            self._began()
            try:
                process = await asyncio.create_subprocess_exec(
                    *self._command, stdin=PIPE, stdout=PIPE, limit=_LINE_BYTES_MAX
                )
            except OSError as error:  # no memory, no process left: the node has other worries
                self._crashed(f"it could not be started: {error}")
                log.warning("GPU reader cannot be started", extra={"why": str(error)})
                await asyncio.sleep(_CRASH_AGAIN_S)
                continue
            try:
                again_s = await self._follow(process)
            finally:
                await _end(process)
            await process.wait()  # a driver may hold it for longer than that
            await asyncio.sleep(again_s)

    async def _follow(self, process: Process) -> float:
        """Listen until the process ends or is given up. Returns how long to wait for the next."""
        listening = asyncio.create_task(self._listen(process))
        try:
            await self._be_patient(listening)
            if not listening.done():
                log.warning(
                    "GPU driver hangs: another process will ask",
                    extra={"pid": process.pid, "patience_s": self._patience_s},
                )
                self._patience_s = min(self._patience_s * 2, PATIENCE_S_MAX)
                return _AGAIN_S
            last = listening.result()
        finally:
            listening.cancel()
        if isinstance(last, DriverFailed):
            return _NO_DRIVER_AGAIN_S if last.trouble == "NO_DRIVER" else _CRASH_AGAIN_S
        code = await process.wait()
        if code != 0:
            self._crashed(f"it ended with {code}")
            log.warning("GPU reader crashed", extra={"exit_code": code})
            return _CRASH_AGAIN_S
        return _AGAIN_S

    async def _be_patient(self, listening: "asyncio.Task[Line | None]") -> None:
        """Returns when the reader has ended, or has been stuck for too long."""
        since_s = self._clock.monotonic_s()
        while not listening.done():
            await asyncio.wait([listening], timeout=_CHECK_S)
            now_s = self._clock.monotonic_s()
            if not self._stuck():
                since_s = now_s
                self._patience_s = PATIENCE_S
            elif now_s - since_s > self._patience_s:
                return

    async def _listen(self, process: Process) -> Line | None:
        """Every line until the end of its output; returns the last."""
        assert process.stdout is not None  # a pipe was asked for
        last: Line | None = None
        while True:
            try:
                raw = await process.stdout.readline()
            except ValueError:  # longer than any line of ours
                log.warning("GPU reader writes nonsense")
                _kill(process)  # it may wait for somebody to read it
                return last
            if not raw:
                return last
            try:
                last = decode(raw)
            except msgspec.DecodeError:  # the library itself wrote to its standard output
                continue
            self._hear(last)


def _kill(process: Process) -> None:
    """Not by `Process.kill`: it looks for the process's end before, and where it finds one it takes
    the exit code from asyncio's own wait, which then makes up 255.
    """
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(process.pid)
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)


async def _end(process: Process) -> None:
    _kill(process)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_END_S):
            await process.wait()
