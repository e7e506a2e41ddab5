"""A real agent as a process of its own, with real engines, beside a fleet of the test's own."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from agent import host
from agent.processes import OWNER_VARIABLE
from appliance.domain.clock import SystemClock
from appliance.domain.ids import DeploymentId
from appliance.fleet.service import Fleet
from appliance.registry.deployment_rows import DeploymentRow
from appliance.registry.registry import Registry, initialise, open_database
from appliance.scheduler.replicas import ReplicaTarget
from appliance.scheduler.scheduler import Scheduler
from appliance.security.seal import Seal
from appliance.settings import Fleet as FleetSettings
from appliance.settings import Scheduling
from appliance.wire.fleet import Replica
from appliance.wire.home import Home, find_home
from tests.fakes.tiny_gguf import write_tiny_gguf

WAIT_S = 30.0


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("models") / "tiny-chat.gguf")


@pytest.fixture(scope="session")
def embedding_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    return write_tiny_gguf(folder / "tiny-embedding.gguf", embedding=True)


class Node:
    """One home with a fleet in this process and an agent in another."""

    def __init__(self, home: Home, folder: Path, registry: Registry) -> None:
        self.home = home
        self.folder = folder
        self.registry = registry
        self.agents: list[asyncio.subprocess.Process] = []
        self.fleet = Fleet(
            registry=registry,
            scheduler=Scheduler(Scheduling()),
            apply=lambda _: None,
            settings=FleetSettings(heartbeat_s=0.1, node_lost_s=30.0),
            clock=SystemClock(),
            socket=home.agent_socket,
        )

    @property
    def agent(self) -> asyncio.subprocess.Process:
        return self.agents[-1]

    async def start_agent(self, *options: str) -> asyncio.subprocess.Process:
        command = [sys.executable, "-m", "appliance.cli", "--home", str(self.folder), "agent"]
        with (self.folder / "agent.err").open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                *command, "--name", "n1", *options, stderr=errors
            )
        self.agents.append(process)
        return process

    async def end_agent(self, number: signal.Signals) -> int:
        self.agent.send_signal(number)
        async with asyncio.timeout(WAIT_S):
            return await self.agent.wait()

    async def deploy(self, model: Path, name: str = "m", **settings: object) -> DeploymentRow:
        row = await self.registry.models.register("test", None, model)
        return await self.registry.deployments.create(
            "test",
            name,
            "llamacpp",
            model=row.id,
            **({"parallel": 2, "context_tokens": 1024} | settings),  # type: ignore[arg-type]  # keywords of create
        )

    def replica(self, deployment_id: DeploymentId) -> Replica | None:
        """Its only one; while it is replaced, the newer."""
        seen = self.fleet.deployment(deployment_id)
        replicas = () if seen is None else seen.replicas
        return max(replicas, key=lambda replica: replica.generation, default=None)

    def target(self, deployment_id: DeploymentId) -> ReplicaTarget:
        (target,) = self.fleet.statuses()[deployment_id].targets
        return target

    async def until(
        self, deployment_id: DeploymentId, condition: Callable[[Replica], bool]
    ) -> Replica:
        try:
            async with asyncio.timeout(WAIT_S):
                while True:
                    replica = self.replica(deployment_id)
                    if replica is not None and condition(replica):
                        return replica
                    await asyncio.sleep(0.02)
        except TimeoutError:
            pytest.fail(f"still {self.replica(deployment_id)}\n{self.log()}")

    async def until_ready(self, deployment_id: DeploymentId) -> Replica:
        return await self.until(deployment_id, lambda replica: replica.state == "ready")

    def log(self) -> str:
        """What all agents of this node have logged."""
        return (self.folder / "agent.err").read_text()

    async def until_logged(self, text: str, count: int) -> None:
        async with asyncio.timeout(WAIT_S):
            while self.log().count(text) < count:  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.02)

    def engine_processes(self) -> list[int]:
        """Every living process that belongs to this home's agent, whoever its parent is."""
        owner = str((self.home.agent_state / "engines").resolve())
        return [
            pid
            for pid in host.own_processes()
            if host.process_environ(pid).get(OWNER_VARIABLE) == owner and alive(pid)
        ]

    async def until_no_engines(self, *but: int | None) -> None:
        async with asyncio.timeout(WAIT_S):
            while set(self.engine_processes()) - set(but):  # noqa: ASYNC110 - other people's processes tell nobody
                await asyncio.sleep(0.02)


def alive(pid: int) -> bool:
    stat = host.process_stat(pid)
    return stat is not None and stat.state not in {"Z", "X"}


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    home = find_home(str(tmp_path))
    home.run.mkdir()
    home.config_file.touch()
    initialise(home.registry_file, actor="test", region="local", clock=SystemClock())
    database = open_database(home.registry_file)
    registry = Registry(
        database, pepper=b"p" * 32, seal=Seal(b"s" * 32), clock=SystemClock(), site_region="local"
    )
    node = Node(home, tmp_path, registry)
    await node.fleet.start()
    task = asyncio.create_task(node.fleet.run())
    yield node
    for process in node.agents:
        if process.returncode is None:
            process.kill()
            await process.wait()
    for pid in node.engine_processes():
        os.kill(pid, signal.SIGKILL)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await node.fleet.stop()
    await registry.close()
    database.close()
