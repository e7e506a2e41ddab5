"""Real vLLM on this processor under the agent's own code: minutes and gigabytes, so on demand."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest

from agent import host
from agent.engines.kinds import known_kinds
from agent.engines.programs import VLLM_VARIABLE
from agent.processes import OWNER_VARIABLE, Processes
from agent.replicas import Replicas
from agent.supervisor import Times
from appliance.domain.clock import SystemClock
from appliance.wire.agent import DesiredReplica, ReplicaReport
from appliance.wire.engine import EngineSettings
from tests.fakes.tiny_llama import write_tiny_llama

WAIT_S = 420.0  # two starts on a busy machine
MODEL = "tiny"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if VLLM_VARIABLE not in os.environ:
        why = f"real vLLM is not named by {VLLM_VARIABLE}; `make test-vllm` installs and names it"
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("models") / "tiny")


# Agents that went: a process keeps what it knows of its children until it ends, and so do they.
_LEFT: list[Replicas] = []


def replica(model: Path, **changes: object) -> DesiredReplica:
    values: dict[str, object] = {
        "replica_id": "rep_1",
        "deployment_id": "dep_1",
        "generation": 1,
        "engine": "vllm",
        "model_name": MODEL,
        "model_path": str(model),
        "parallel": 4,
        "context_tokens": 2048,
        "settings": EngineSettings(
            dtype="bfloat16",
            arguments=("--enforce-eager", "--kv-cache-memory-bytes", "268435456"),
        ),
    }
    return DesiredReplica(**(values | changes))  # type: ignore[arg-type]  # a test's shorthand


class Agent:
    """What an agent process runs, without the process: it can be let go and begun anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.replicas: Replicas

    async def begin(self) -> None:
        begun = asyncio.Event()
        self._ended.clear()
        self._task = asyncio.create_task(self._run(begun))
        await begun.wait()

    async def _run(self, begun: asyncio.Event) -> None:
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session,
            asyncio.TaskGroup() as tasks,
        ):
            kinds = known_kinds(os.environ)
            await asyncio.to_thread(kinds["vllm"].version)
            self.replicas = Replicas(
                processes=Processes(self.folder, host.boot_id()),
                kinds=kinds,
                session=session,
                tasks=tasks,
                cores=host.cores(),
                clock=SystemClock(),
                times=Times(),
                changed=self._changed.set,
                told=self._told,
            )
            self.replicas.adopt()
            ticking = tasks.create_task(self.replicas.run())
            begun.set()
            await self._ended.wait()
            ticking.cancel()

    async def _told(self) -> None:
        """No appliance here."""

    async def let_go(self) -> None:
        """The agent ends, its engines stay."""
        await self.replicas.release()
        await self._end()
        _LEFT.append(self.replicas)

    async def stop(self) -> None:
        await self.replicas.stop()
        await self._end()

    async def _end(self) -> None:
        assert self._task is not None
        self._ended.set()
        await self._task

    async def until(self, condition: Callable[[ReplicaReport], bool]) -> ReplicaReport:
        async with asyncio.timeout(WAIT_S):
            while True:
                self._changed.clear()
                for report in self.replicas.reports():
                    if condition(report):
                        return report
                await self._changed.wait()

    def engine_processes(self) -> list[int]:
        """All living ones of this folder, workers too, by the environment they inherited."""
        owner = str(self.folder.resolve())
        return [
            pid
            for pid in host.own_processes()
            if host.process_environ(pid).get(OWNER_VARIABLE) == owner and _alive(pid)
        ]

    def shared_memory(self) -> set[str]:
        """What engines share, or left behind. Names of the suite's stand-in begin with zeros."""
        return {path.name for path in Path("/dev/shm").glob("psm_[!0]*")}


def _alive(pid: int) -> bool:
    stat = host.process_stat(pid)
    return stat is not None and stat.state not in {"Z", "X"}


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    agent = Agent(tmp_path / "engines")
    await agent.begin()
    yield agent
    for pid in agent.engine_processes():
        os.kill(pid, signal.SIGKILL)
