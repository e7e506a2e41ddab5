"""A life of real vLLM: ready, streamed, counted, cancelled, adopted, drained; killed and back."""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from appliance.wire.agent import ReplicaReport
from tests.integration.vllm.conftest import MODEL, WAIT_S, Agent, replica

pytestmark = pytest.mark.timeout(900)  # it starts in half a minute, and in two on a busy machine

LONG = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "a long story of a lighthouse"}],
    "ignore_eos": True,
}


def address(report: ReplicaReport) -> str:
    return f"http://{report.host}:{report.port}"


def headers(report: ReplicaReport) -> dict[str, str]:
    return {"Authorization": f"Bearer {report.api_key}"}


async def frames(answer: aiohttp.ClientResponse) -> list[str]:
    text = (await answer.read()).decode()
    return [line[6:] for line in text.splitlines() if line.startswith("data: ")]


async def running(session: aiohttp.ClientSession, report: ReplicaReport) -> int:
    async with session.get(address(report) + "/load", headers=headers(report)) as answer:
        load: dict[str, Any] = await answer.json()
        return int(load["server_load"])


# The first agent of this test goes and leaves its child, as it is meant to.
@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
async def test_ready_streamed_counted_cancelled_adopted_and_drained(
    agent: Agent, model: Path
) -> None:
    before = agent.shared_memory()
    agent.replicas.want([replica(model)])
    report = await agent.until(lambda report: report.state == "ready")
    assert report.context_tokens == 2048
    assert report.tokens_per_s is not None
    assert report.tokens_per_s > 1
    async with aiohttp.ClientSession() as session:
        await _refuses_strangers(session, report)
        await _streams_with_usage(session, agent, report)
        await _stops_when_the_client_goes(session, report)

        # Another agent takes the engine over: the same process, in service without a pause.
        await agent.let_go()
        await agent.begin()
        agent.replicas.want([replica(model)])
        adopted = await agent.until(lambda report: report.state == "ready")
        assert (adopted.pid, adopted.port) == (report.pid, report.port)
        assert adopted.restarts == 0

        # A stream that is open when the replica is not wanted any more comes to its end.
        body = {**LONG, "max_tokens": 400, "stream": True}
        url = address(report) + "/v1/chat/completions"
        async with session.post(url, json=body, headers=headers(report)) as answer:
            await answer.content.readline()
            stopping = asyncio.create_task(agent.stop())
            *_, end = await frames(answer)
        assert end == "[DONE]"
        async with asyncio.timeout(WAIT_S):
            await stopping
    assert agent.engine_processes() == []
    assert agent.shared_memory() <= before


async def _refuses_strangers(session: aiohttp.ClientSession, report: ReplicaReport) -> None:
    """Only the health question is open; what is not served is not there, whoever asks."""
    for path, alone, with_key in (
        ("/health", 200, 200),
        ("/metrics", 401, 200),
        ("/v1/models", 401, 200),
        ("/server_info", 401, 404),
        ("/openapi.json", 401, 404),
        ("/inference/v1/generate", 401, 404),
    ):
        async with session.get(address(report) + path) as answer:
            assert answer.status == alone, path
        async with session.get(address(report) + path, headers=headers(report)) as answer:
            assert answer.status == with_key, path


async def _streams_with_usage(
    session: aiohttp.ClientSession, agent: Agent, report: ReplicaReport
) -> None:
    """Usage comes without being asked for, and the engine's own counters agree with it."""
    await asyncio.sleep(3)  # the last of our own readiness requests is counted
    (counted,) = agent.replicas.counts()
    body = {**LONG, "max_tokens": 24, "stream": True}
    url = address(report) + "/v1/chat/completions"
    async with session.post(url, json=body, headers=headers(report)) as answer:
        assert answer.status == 200
        *chunks, end = await frames(answer)
    assert end == "[DONE]"
    usage = json.loads(chunks[-1])["usage"]
    assert usage["completion_tokens"] == 24
    assert usage["prompt_tokens"] > 0
    async with asyncio.timeout(30):
        while (count := agent.replicas.counts()[0]).generated_tokens == counted.generated_tokens:  # noqa: ASYNC110 - it is looked at every two seconds
            await asyncio.sleep(0.2)
    assert count.generated_tokens - counted.generated_tokens == 24
    assert count.prompt_tokens - counted.prompt_tokens == usage["prompt_tokens"]


async def _stops_when_the_client_goes(
    session: aiohttp.ClientSession, report: ReplicaReport
) -> None:
    body = {**LONG, "max_tokens": 1900, "stream": True}
    url = address(report) + "/v1/chat/completions"
    async with session.post(url, json=body, headers=headers(report)) as answer:
        await answer.content.readline()
        assert await running(session, report) == 1
        answer.close()
    async with asyncio.timeout(20):
        while await running(session, report) > 0:  # noqa: ASYNC110 - another process counts
            await asyncio.sleep(0.1)


async def test_killed_in_front_it_leaves_nothing_and_comes_back(agent: Agent, model: Path) -> None:
    before = agent.shared_memory()
    agent.replicas.want([replica(model)])
    report = await agent.until(lambda report: report.state == "ready")
    family = agent.engine_processes()
    assert report.pid in family
    assert len(family) > 1  # the engine's own processes, which would outlive their front
    assert report.pid is not None
    os.kill(report.pid, signal.SIGKILL)
    gone = await agent.until(lambda report: report.state in {"backoff", "starting"})
    assert "killed" in gone.reason or gone.state == "starting"
    async with asyncio.timeout(10):
        while set(agent.engine_processes()) & set(family):  # noqa: ASYNC110 - the kernel ends them
            await asyncio.sleep(0.05)
    again = await agent.until(lambda report: report.state == "ready")
    assert again.pid not in {None, report.pid}
    assert again.restarts == 1
    await agent.stop()
    assert agent.engine_processes() == []
    assert agent.shared_memory() <= before
