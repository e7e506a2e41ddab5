"""The agent with an engine of vLLM's manners: several processes, a port it is told, a guard."""

import asyncio
import json
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
from tests.fakes.vllm_process import VERSION, write_vllm_program
from tests.integration.agent.conftest import WAIT_S, alive


class Desk:
    """One agent's replicas, and the engine's control file."""

    def __init__(self, folder: Path, replicas: Replicas, changed: asyncio.Event) -> None:
        self.replicas = replicas
        self._changed = changed
        self._folder = folder
        self._control = folder / "control.json"
        self._model = write_tiny_llama(folder / "model")

    def control(self, **told: object) -> None:
        self._control.write_text(json.dumps(told))

    def want(self, *arguments: str, **settings: object) -> None:
        told = EngineSettings(
            arguments=(f"--fake-control={self._control}", *arguments),
            **settings,  # type: ignore[arg-type]  # a test's shorthand
        )
        self.replicas.want(
            [
                DesiredReplica(
                    replica_id="rep_1",
                    deployment_id="dep_1",
                    generation=1,
                    engine="vllm",
                    model_name="m",
                    model_path=str(self._model),
                    parallel=2,
                    context_tokens=1024,
                    settings=told,
                )
            ]
        )

    async def until(self, condition: Callable[[ReplicaReport], bool]) -> ReplicaReport:
        try:
            async with asyncio.timeout(WAIT_S):
                while True:
                    self._changed.clear()
                    (report,) = self.replicas.reports()
                    if condition(report):
                        return report
                    await self._changed.wait()
        except TimeoutError:
            log = (self._folder / "engines" / "rep_1.log").read_text()
            pytest.fail(f"still {self.replicas.reports()}\n{log}")

    async def ready(self) -> ReplicaReport:
        return await self.until(lambda report: report.state == "ready")

    def processes(self) -> list[int]:
        owner = str((self._folder / "engines").resolve())
        return [
            pid
            for pid in host.own_processes()
            if host.process_environ(pid).get(OWNER_VARIABLE) == owner and alive(pid)
        ]


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    changed = asyncio.Event()

    async def told() -> None:
        """No appliance here."""

    kinds = known_kinds({VLLM_VARIABLE: str(write_vllm_program(tmp_path / "bin"))})
    assert kinds["vllm"].version() == VERSION
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
            times=Times(still_s=1.0),
            changed=changed.set,
            told=told,
        )
        ticking = tasks.create_task(replicas.run())
        desk = Desk(tmp_path, replicas, changed)
        yield desk
        async with asyncio.timeout(WAIT_S):
            await replicas.stop()
        ticking.cancel()
    assert desk.processes() == []


async def ask(report: ReplicaReport, method: str, path: str, key: str | None) -> int:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession() as session,
        session.request(
            method, f"http://{report.host}:{report.port}{path}", headers=headers
        ) as answer,
    ):
        return answer.status


def shared_memory() -> set[str]:
    return {path.name for path in Path("/dev/shm").iterdir()}


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode()


async def test_it_is_ready_after_a_token_and_guarded_from_the_node(desk: Desk) -> None:
    desk.want("--seed", "7")
    report = await desk.ready()
    assert report.slots == 2, "as many as it was told to take at once"
    assert report.host == "127.0.0.1"
    assert report.context_tokens == 1024
    assert report.prompt_tokens_per_byte is not None
    assert report.prompt_tokens_per_byte > 0
    assert report.api_key
    assert await ask(report, "GET", "/health", None) == 200
    assert await ask(report, "GET", "/metrics", None) == 401
    assert await ask(report, "GET", "/metrics", "wrong") == 401
    assert await ask(report, "GET", "/metrics", report.api_key) == 200
    # There, and not to be reached: it would run what it is told.
    assert await ask(report, "POST", "/collective_rpc", report.api_key) == 404
    assert report.pid is not None
    line = command_line(report.pid)
    assert report.api_key not in line
    assert "--seed\x007" in line


async def test_a_killed_front_process_leaves_no_orphan(desk: Desk) -> None:
    desk.want()
    report = await desk.ready()
    family = desk.processes()
    assert len(family) >= 2
    assert report.pid is not None
    memory = f"psm_{report.pid:08x}"
    assert memory in shared_memory()
    os.kill(report.pid, signal.SIGKILL)
    again = await desk.until(lambda seen: seen.state == "ready" and seen.pid != report.pid)
    assert again.restarts == 1
    assert again.api_key != report.api_key
    assert not set(family) & set(desk.processes())
    assert memory not in shared_memory()


async def test_a_start_that_fails_says_what_the_engine_said(desk: Desk) -> None:
    desk.control(start="kv_cache")
    desk.want()
    report = await desk.until(lambda seen: seen.state in {"backoff", "failed"})
    assert "KV cache" in report.reason
    assert "initialization failed" not in report.reason
    desk.control()
    await desk.ready()


async def test_arguments_it_does_not_know_are_not_tried_again(desk: Desk) -> None:
    desk.control(start="arguments")
    desk.want()
    report = await desk.until(lambda seen: seen.state == "failed")
    assert "--of-another-year" in report.reason


async def test_an_argument_on_the_list_of_refusals_is_refused_on_the_node_too(desk: Desk) -> None:
    desk.want("--host", "0.0.0.0")
    report = await desk.until(lambda seen: seen.state == "failed")
    assert "--host is not passed on" in report.reason
    assert desk.processes() == []


async def test_it_waits_for_a_slow_start(desk: Desk) -> None:
    desk.control(start_s=1.5)
    desk.want()
    await desk.until(lambda seen: seen.state == "starting" and seen.pid is not None)
    await desk.ready()
