"""A disk that takes nothing while the test lasts: what may wait for it, and what does not."""

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import aiohttp
import pytest
from msgspec import structs

from agent import host
from agent.engines.kinds import known_kinds
from agent.engines.programs import VLLM_VARIABLE
from agent.errands import Errands
from agent.main import _Wishes
from agent.processes import Processes
from agent.replicas import Replicas
from agent.supervisor import Times
from appliance.domain.clock import SystemClock
from appliance.wire.agent import Desired, DesiredReplica, ReplicaReport
from appliance.wire.engine import EngineSettings
from tests.fakes.tiny_llama import write_tiny_llama
from tests.fakes.vllm_process import write_vllm_program
from tests.integration.agent.conftest import WAIT_S, alive
from tests.integration.agent.test_supervision import ask, chat

HUNG_S = 20.0
LATE_S = 0.25  # of the event loop: a heartbeat is due every second or so


class Disk:
    """`fsync` returns when the disk is well again, or after 20 s."""

    def __init__(self) -> None:
        self.well = threading.Event()
        self.well.set()
        self.waiting = 0

    def fsync(self, _descriptor: int) -> None:
        if not self.well.is_set():
            self.waiting += 1
            self.well.wait(HUNG_S)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk()
    monkeypatch.setattr(os, "fsync", disk.fsync)
    yield disk
    disk.well.set()


class Lateness:
    """How late the event loop was at worst: as late are heartbeats."""

    def __init__(self) -> None:
        self.worst_s = 0.0

    async def measure(self) -> None:
        while True:
            began_s = time.monotonic()
            await asyncio.sleep(0.02)
            self.worst_s = max(self.worst_s, time.monotonic() - began_s - 0.02)


@pytest.fixture
async def lateness() -> AsyncIterator[Lateness]:
    lateness = Lateness()
    task = asyncio.create_task(lateness.measure())
    yield lateness
    task.cancel()


async def test_other_engines_are_watched_and_ends_are_heard_of(
    tmp_path: Path, disk: Disk, lateness: Lateness
) -> None:
    changed = asyncio.Event()

    async def told() -> None:
        """No appliance here."""

    async def until(name: str, condition: Callable[[ReplicaReport], bool]) -> ReplicaReport:
        try:
            async with asyncio.timeout(WAIT_S):
                while True:
                    changed.clear()
                    for report in replicas.reports():
                        if report.replica_id == name and condition(report):
                            return report
                    await changed.wait()
        except TimeoutError:
            log = (tmp_path / "engines" / f"{name}.log").read_text()
            pytest.fail(f"still {replicas.reports()}\n{log}")

    kinds = known_kinds({VLLM_VARIABLE: str(write_vllm_program(tmp_path / "bin"))})
    version = kinds["vllm"].version()
    assert version is not None
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session,
        asyncio.TaskGroup() as tasks,
    ):
        replicas = Replicas(
            processes=Processes(tmp_path / "engines", host.boot_id()),
            kinds=kinds,
            session=session,
            tasks=tasks,
            cores=1,
            clock=SystemClock(),
            times=Times(still_s=3.0),
            changed=changed.set,
            told=told,
            versions={"vllm": version},
        )
        ticking = tasks.create_task(replicas.run())
        first = DesiredReplica(
            replica_id="rep_1",
            deployment_id="dep_1",
            generation=1,
            engine="vllm",
            model_name="m",
            model_path=str(write_tiny_llama(tmp_path / "model")),
            parallel=2,
            context_tokens=1024,
            settings=EngineSettings(arguments=(f"--fake-control={tmp_path / 'rep_1'}",)),
        )
        settings = EngineSettings(arguments=(f"--fake-control={tmp_path / 'rep_2'}",))
        second = structs.replace(first, replica_id="rep_2", settings=settings)
        replicas.want([first, second])
        one = await until("rep_1", lambda report: report.state == "ready")
        two = await until("rep_2", lambda report: report.state == "ready")
        assert one.pid is not None
        assert two.pid is not None

        disk.well.clear()
        hung_s = time.monotonic()
        (tmp_path / "rep_2").write_text(json.dumps({"hang": True}))
        lateness.worst_s = 0.0
        request = asyncio.create_task(ask(two, "/v1/chat/completions", chat(5)))
        # One dies: it is started again, as far as the disk lets it.
        os.kill(one.pid, signal.SIGKILL)
        ended = await until("rep_1", lambda report: report.state == "backoff")
        assert "killed (signal 9)" in ended.reason
        await until("rep_1", lambda report: report.state == "starting")
        # The other hangs: it is found out and killed, though its dump cannot be written.
        found = await until("rep_2", lambda report: report.state != "ready")
        assert "generates nothing" in found.reason
        with pytest.raises(aiohttp.ClientError):
            await request
        (tmp_path / "rep_2").write_text("{}")  # the next one shall not hang as it starts
        async with asyncio.timeout(WAIT_S):  # it is told a moment before it is done
            while alive(two.pid):  # noqa: ASYNC110 - nobody is told when it has ended
                await asyncio.sleep(0.02)
        assert time.monotonic() - hung_s < HUNG_S
        assert disk.waiting >= 2
        assert lateness.worst_s < LATE_S

        disk.well.set()
        await until("rep_1", lambda report: report.state == "ready")
        await until("rep_2", lambda report: report.state == "ready")
        assert json.loads(await replicas.dump_of("rep_2"))["pid"] == two.pid
        await replicas.stop()
        ticking.cancel()


class Deaf:
    """Replicas of which only the wish is of interest."""

    def __init__(self) -> None:
        self.wanted: list[int] = []

    def want(self, replicas: tuple[DesiredReplica, ...], drain_s: float) -> None:
        del drain_s
        self.wanted.append(len(replicas))


async def test_what_is_wanted_is_acted_on_and_written_when_the_disk_is_well(
    tmp_path: Path, disk: Disk, lateness: Lateness
) -> None:
    replica = DesiredReplica(
        replica_id="rep_1",
        deployment_id="dep_1",
        generation=1,
        engine="vllm",
        model_name="m",
        model_path="/m",
    )
    path, replicas = tmp_path / "desired.json", Deaf()
    wishes = _Wishes(path, replicas, None)  # type: ignore[arg-type]  # as much of it as is asked
    disk.well.clear()
    for count in (1, 2, 3):
        wishes.hear(Desired(replicas=(replica,) * count))
        await asyncio.sleep(0.05)
    assert replicas.wanted == [1, 2, 3]
    assert disk.waiting == 1  # and not one for each word of the appliance
    assert lateness.worst_s < LATE_S
    disk.well.set()
    await wishes.settled()
    wishes.hear(Desired(replicas=(replica,) * 3))
    await wishes.settled()
    again = _Wishes(path, replicas, None)  # type: ignore[arg-type]
    again.remember()
    assert replicas.wanted == [1, 2, 3, 3]


async def test_errands_come_one_after_the_other_and_outlive_who_asked() -> None:
    errands, done, go = Errands("test"), [], threading.Event()

    def slow() -> int:
        assert go.wait(10)
        done.append(1)
        return 1

    def broken() -> None:
        done.append(2)
        raise OSError(5, "no disk")

    impatient = errands.begin(slow)
    failing = errands.begin(broken)
    impatient.cancel()
    assert not await errands.settled(0.05)
    go.set()
    with pytest.raises(OSError, match="no disk"):
        await failing
    assert done == [1, 2]
    assert await errands.settled()
    errands.close()
