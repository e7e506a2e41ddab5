"""The agent over engines that hang, run out of memory, sleep, and answer what they should not."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest
from msgspec import structs

from agent import host
from agent.engines.kinds import known_kinds
from agent.engines.programs import VLLM_VARIABLE
from agent.errors import UnknownReplica
from agent.processes import Processes
from agent.replicas import Replicas
from agent.supervisor import Times
from appliance.domain.clock import SystemClock
from appliance.wire.agent import DesiredReplica, ReplicaReport
from appliance.wire.engine import EngineSettings
from tests.fakes.tiny_llama import write_tiny_llama
from tests.fakes.vllm_process import write_vllm_program
from tests.integration.agent.conftest import alive

WAIT_S = 30.0
SECRET = "a tenant's own words"


class Bench:
    """One replica in the hands of an agent with the times it has in the field."""

    def __init__(self, folder: Path, replicas: Replicas, changed: asyncio.Event) -> None:
        self.replicas = replicas
        self._changed = changed
        self._folder = folder
        self._control = folder / "control.json"
        self.desired = DesiredReplica(
            replica_id="rep_1",
            deployment_id="dep_1",
            generation=1,
            engine="vllm",
            model_name="m",
            model_path=str(write_tiny_llama(folder / "model")),
            parallel=2,
            context_tokens=1024,
            settings=EngineSettings(arguments=(f"--fake-control={self._control}",)),
        )

    def control(self, **told: object) -> None:
        self._control.write_text(json.dumps(told))

    def want(self, **changes: object) -> None:
        self.desired = structs.replace(self.desired, **changes)
        self.replicas.want([self.desired])

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
            log = self._folder / "engines" / "rep_1.log"
            said = log.read_text() if log.exists() else ""
            pytest.fail(f"still {self.replicas.reports()}\n{said}")

    async def ready(self) -> ReplicaReport:
        return await self.until(lambda report: report.state == "ready")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    changed = asyncio.Event()

    async def told() -> None:
        """No appliance here."""

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
            times=Times(),
            changed=changed.set,
            told=told,
            versions={"vllm": version},
            gpu_memory=lambda pids: 1000 * len(pids),
        )
        ticking = tasks.create_task(replicas.run())
        yield Bench(tmp_path, replicas, changed)
        async with asyncio.timeout(WAIT_S):
            await replicas.stop()
        ticking.cancel()


async def ask(report: ReplicaReport, path: str, body: dict[str, object] | None) -> int:
    headers = {"Authorization": f"Bearer {report.api_key}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.request(
            "GET" if body is None else "POST",
            f"http://{report.host}:{report.port}{path}",
            json=body,
        ) as answer,
    ):
        await answer.read()
        return answer.status


async def gone(pid: int | None) -> None:
    """It is looked at before it is killed, which takes a moment."""
    assert pid is not None
    async with asyncio.timeout(5):
        while alive(pid):  # noqa: ASYNC110 - another one's child tells nobody
            await asyncio.sleep(0.01)


def chat(tokens: int) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": SECRET}], "max_tokens": tokens}


async def test_a_hung_engine_with_a_green_health_is_replaced_within_30_s(bench: Bench) -> None:
    bench.want()
    before = await bench.ready()
    assert before.pid is not None
    bench.control(hang=True)
    hung_s = time.monotonic()
    request = asyncio.create_task(ask(before, "/v1/chat/completions", chat(5)))
    await asyncio.sleep(5)
    assert await ask(before, "/health", None) == 200
    ejected = await bench.until(lambda report: report.state != "ready")
    assert "generates nothing" in ejected.reason
    await gone(before.pid)
    bench.control()
    after = await bench.ready()
    assert time.monotonic() - hung_s < 30
    assert after.pid != before.pid
    assert after.restarts == 1
    assert not alive(before.pid)
    with pytest.raises(aiohttp.ClientError):
        await request
    dump = json.loads(await bench.replicas.dump_of("rep_1"))
    assert dump["pid"] == before.pid
    assert "generates nothing" in dump["reason"]
    assert len(dump["processes"]) >= 2  # the front and the one behind it
    assert SECRET not in json.dumps(dump)


async def test_a_frozen_process_behind_a_living_front_is_noticed_by_what_the_front_took_in(
    bench: Bench,
) -> None:
    """The figures of such an engine stand still with what they last said: no request runs."""
    bench.control(stale=True)
    bench.want()
    before = await bench.ready()
    bench.control(hang=True, stale=True)
    request = asyncio.create_task(ask(before, "/v1/chat/completions", chat(5)))
    ejected = await bench.until(lambda report: report.state != "ready")
    assert "generates nothing" in ejected.reason
    await gone(before.pid)
    bench.control()
    await bench.ready()
    with pytest.raises(aiohttp.ClientError):
        await request


async def test_what_is_measured_is_told_and_adopted_by_the_next_agent(
    bench: Bench, tmp_path: Path
) -> None:
    bench.want()
    report = await bench.ready()
    assert report.tokens_per_s is not None
    assert report.tokens_per_s > 0
    assert report.prefill_tokens_per_s is not None
    assert report.prefill_tokens_per_s > 0
    assert report.loaded_s is not None
    assert 0 < report.loaded_s < WAIT_S
    assert report.gpu_memory_bytes is not None
    assert report.gpu_memory_bytes >= 2000  # of both its processes
    assert report.engine_version
    assert "serve" in report.command
    assert report.api_key is not None
    assert report.api_key not in " ".join(report.command)
    (found,) = Processes(tmp_path / "engines", host.boot_id()).adopt()
    fitness = found.record.fitness
    found.close()
    assert fitness is not None
    assert fitness.prefill_tokens_per_s == report.prefill_tokens_per_s
    assert (fitness.loaded_s, fitness.gpu_memory_bytes) == (
        report.loaded_s,
        report.gpu_memory_bytes,
    )


@pytest.mark.parametrize(
    ("start", "told"), [("kv_cache", "60688 tokens would fit"), ("cuda_memory", "896.00 MiB")]
)
async def test_want_of_memory_is_told_with_advice_and_tried_again(
    bench: Bench, start: str, told: str
) -> None:
    bench.control(start=start)
    bench.want()
    report = await bench.until(lambda seen: seen.state == "backoff")
    assert told in report.reason
    assert "Give the deployment" in report.reason
    assert "Next start after" in report.reason
    bench.control()  # what held the memory is gone
    await bench.ready()


async def test_it_sleeps_and_wakes_in_the_same_process(bench: Bench) -> None:
    settings = structs.replace(bench.desired.settings, sleep=True, gpus=1)
    bench.want(settings=settings, gpu_uuids=("GPU-1",))
    before = await bench.ready()
    bench.want(asleep=True)
    asleep = await bench.until(lambda report: report.asleep)
    assert (asleep.state, asleep.pid) == ("ready", before.pid)
    bench.want(asleep=False)
    awake = await bench.until(lambda report: not report.asleep)
    assert (awake.state, awake.pid, awake.restarts) == ("ready", before.pid, 0)


async def test_a_golden_prompt_is_asked_before_anybody_is_served(bench: Bench) -> None:
    bench.want(probe_prompt="The capital of France is", probe_answer="so so so")
    await bench.ready()
    bench.want(probe_answer="Paris", generation=2)
    report = await bench.until(lambda seen: seen.state == "backoff")
    assert "does not answer the prompt of its pack" in report.reason
    assert "Paris" not in report.reason


async def test_the_log_of_an_engine_is_told_and_only_of_known_ones(bench: Bench) -> None:
    bench.control(start="cuda_memory")
    bench.want()
    await bench.until(lambda seen: seen.state == "backoff")
    lines = json.loads(await bench.replicas.log_of("rep_1"))
    assert any("CUDA out of memory" in line for line in lines)
    assert json.loads(await bench.replicas.dump_of("rep_1")) is None
    for name in ("rep_2", "../rep_1", ""):
        with pytest.raises(UnknownReplica):
            await bench.replicas.log_of(name)
        with pytest.raises(UnknownReplica):
            await bench.replicas.dump_of(name)


async def test_an_engine_that_is_killed_after_each_start_comes_back_each_time(
    bench: Bench,
) -> None:
    bench.want()
    pids = set()
    for _ in range(3):
        report = await bench.until(lambda seen: seen.state == "ready" and seen.pid not in pids)
        assert report.pid is not None
        pids.add(report.pid)
        os.kill(report.pid, signal.SIGKILL)
        waiting = await bench.until(lambda seen: seen.state == "backoff")
        assert waiting.reason.endswith("Next start after 0.5 s.")
