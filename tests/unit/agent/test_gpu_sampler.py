"""The process that reads is given up when a driver holds it, and never doubled."""

import asyncio
import signal
import subprocess
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable
from pathlib import Path

import pytest

from agent import host
from agent.gpu import sampler as sampler_module
from agent.gpu.messages import DriverRead, Line
from agent.gpu.sampler import PATIENCE_S, Sampler
from tests.fakes.clock import ManualClock

WAIT_S = 10.0
LINE = '{"type":"driver","driver":{"version":"580","cuda":"13.0","nvml":null},"count":0}'
HANGS = f"import os, time; print({LINE!r}, flush=True); print(os.getpid()); time.sleep(600)"


class Watched:
    """A sampler of a program of the test's, and what it told."""

    def __init__(self, tmp_path: Path, program: str) -> None:
        self.clock = ManualClock()
        self.began = 0
        self.lines: list[Line] = []
        self.crashes: list[str] = []
        self.hangs = False
        self.pids = tmp_path / "pids"
        code = f"import os; open({str(self.pids)!r}, 'a').write(f'{{os.getpid()}} ')\n{program}"
        self.sampler = Sampler(
            clock=self.clock,
            began=self._begin,
            hear=self.lines.append,
            crashed=self.crashes.append,
            stuck=lambda: self.hangs,
            command=[sys.executable, "-c", code],
        )

    def _begin(self) -> None:
        self.began += 1

    def running(self) -> list[int]:
        pids = [int(pid) for pid in self.pids.read_text().split()] if self.pids.exists() else []
        stats = {pid: host.process_stat(pid) for pid in pids}
        return [pid for pid, stat in stats.items() if stat is not None and stat.state != "Z"]

    async def until(self, test: Callable[[], object]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not test():  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.02)


async def test_a_reader_that_hangs_is_given_up_after_a_patience_that_doubles(
    tmp_path: Path,
) -> None:
    watched = Watched(tmp_path, HANGS)
    running = asyncio.create_task(watched.sampler.run())
    await watched.until(lambda: watched.lines)
    assert isinstance(watched.lines[0], DriverRead)
    (first,) = watched.running()
    watched.hangs = True
    watched.clock.turn(PATIENCE_S - 1)
    await asyncio.sleep(1.2)
    assert watched.running() == [first]
    watched.clock.turn(2)
    await watched.until(lambda: watched.began == 2 and watched.running())
    (second,) = watched.running()
    assert second != first
    await watched.until(lambda: len(watched.lines) == 2)
    watched.clock.turn(PATIENCE_S + 1)
    await asyncio.sleep(1.2)
    assert watched.running() == [second]
    watched.clock.turn(PATIENCE_S)
    await watched.until(lambda: watched.began == 3)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await watched.until(lambda: not watched.running())


async def test_a_reader_that_crashes_is_told_and_that_of_the_end_is_ended(tmp_path: Path) -> None:
    watched = Watched(tmp_path, "import os; os.abort()")
    running = asyncio.create_task(watched.sampler.run())
    await watched.until(lambda: watched.crashes)
    assert "-6" in watched.crashes[0]
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert watched.began == 1


async def test_what_a_library_prints_by_itself_is_passed_over(tmp_path: Path) -> None:
    watched = Watched(
        tmp_path, f"print('NVML: hello'); print('{{}}'); print({LINE!r}); print('x' * 3_000_000)"
    )
    running = asyncio.create_task(watched.sampler.run())
    await watched.until(lambda: watched.began == 2)
    assert [type(line) for line in watched.lines][:1] == [DriverRead]
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_nobody_but_asyncio_takes_the_exit_code_of_a_reader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`Popen.poll` beside asyncio's wait is a race: who comes second makes an exit code up."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=PIPE)

    def poll(_self: object) -> None:
        pytest.fail("its end was looked for beside asyncio")

    monkeypatch.setattr(subprocess.Popen, "poll", poll)
    await sampler_module._end(process)
    assert process.returncode == -signal.SIGKILL
    await sampler_module._end(process)  # also when it is gone
