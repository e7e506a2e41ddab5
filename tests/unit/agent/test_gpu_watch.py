"""What the agent has of its GPUs: figures with scores, whose processes they serve, what is kept."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from agent import host
from agent.durable import read_message
from agent.gpu.inventory import Remembered
from agent.gpu.watch import HISTORY_FILE, STATE_FILE, GpuWatch
from appliance.domain.clock import SystemClock
from appliance.wire.agent import ReplicaReport
from tests.fakes.nvml_library import LOST, FakeGpus, build_library

WAIT_S = 15.0


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def gpus(library: Path, tmp_path: Path) -> FakeGpus:
    return FakeGpus(library, tmp_path)


@pytest.fixture
async def watch(gpus: FakeGpus, tmp_path: Path) -> AsyncIterator[GpuWatch]:
    """Running, and settled."""
    environ = [f"{name}={value}" for name, value in gpus.environ.items()]
    command = ["/usr/bin/env", *environ, sys.executable, "-m", "agent.gpu.reader"]
    watch = GpuWatch(tmp_path, "boot-1", SystemClock(), command)
    running = asyncio.create_task(watch.run())
    async with asyncio.timeout(WAIT_S):
        await watch.settled()
    yield watch
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def until(test: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not test():  # noqa: ASYNC110 - the reader is another process
            await asyncio.sleep(0.02)


async def test_processes_are_named_and_those_of_engines_known(
    gpus: FakeGpus, watch: GpuWatch
) -> None:
    assert watch.names() == ("NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3")
    stat = host.process_stat(os.getpid())
    assert stat is not None
    report = ReplicaReport(
        replica_id="rep_1", deployment_id="d", generation=1, state="ready", pid=stat.group
    )
    watch.reports = lambda: (report,)
    gpus.set(0, procs=f"{os.getpid()}:4096,999999999:1")
    await until(lambda: len(watch.gpus[0].processes) == 2)
    ours, gone = watch.gpus[0].processes
    assert (ours.pid, ours.memory_bytes, ours.replica_id) == (os.getpid(), 4096, "rep_1")
    assert ours.name == host.process_name(os.getpid())
    assert (gone.name, gone.replica_id) == ("", None)


async def test_a_fault_is_told_at_once_and_what_must_last_is_written(
    gpus: FakeGpus, watch: GpuWatch, tmp_path: Path
) -> None:
    told = asyncio.Event()
    watch.changed = told.set
    gpus.xid(0, 48)
    gpus.set(1, fail=LOST)
    async with asyncio.timeout(WAIT_S):
        await told.wait()
    await until(lambda: watch.health and len(watch.health.faults) == 2)
    assert [(gpu.state, gpu.score) for gpu in watch.gpus] == [("degraded", 30), ("gone", 0)]
    await until(lambda: _xids(tmp_path) == [48])


def _xids(folder: Path) -> list[int]:
    kept = read_message(folder / STATE_FILE, Remembered)
    return [] if kept is None else [xid.xid for xid in kept.xids]


async def test_history_is_kept_at_the_end(gpus: FakeGpus, tmp_path: Path) -> None:
    environ = [f"{name}={value}" for name, value in gpus.environ.items()]
    command = ["/usr/bin/env", *environ, sys.executable, "-m", "agent.gpu.reader"]
    watch = GpuWatch(tmp_path, "boot-1", SystemClock(), command)
    running = asyncio.create_task(watch.run())
    await until((tmp_path / STATE_FILE).exists)
    await asyncio.sleep(1.1)  # a sample is taken every second
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert FakeGpus.uuid(1) in (tmp_path / HISTORY_FILE).read_text()
