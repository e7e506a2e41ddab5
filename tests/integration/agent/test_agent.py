"""A real agent over real llama.cpp engines: started, killed, restarted, stopped."""

import asyncio
import os
import resource
import signal
import sys
from pathlib import Path

import aiohttp
import pytest

from agent import host
from appliance.scheduler.replicas import ReplicaTarget
from appliance.wire.command import ExitCode
from tests.integration.agent.conftest import WAIT_S, Node, alive


async def ask(target: ReplicaTarget, path: str, body: dict[str, object]) -> tuple[int, dict]:  # type: ignore[type-arg]  # whatever JSON comes
    headers = {"Authorization": f"Bearer {target.api_key}"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"http://{target.host}:{target.port}{path}", json=body, headers=headers
        ) as answer,
    ):
        return answer.status, await answer.json()


def arguments_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


async def test_engines_for_text_and_vectors_start_serve_and_end(
    node: Node, chat_model: Path, embedding_model: Path
) -> None:
    await node.start_agent()
    chat = await node.deploy(chat_model, "chat")
    vectors = await node.deploy(embedding_model, "vectors", embedding=True)
    replica = await node.until_ready(chat.id)
    assert (replica.slots, replica.context_tokens, replica.restarts) == (2, 1024, 0)
    assert replica.tokens_per_s is not None
    assert replica.tokens_per_s > 0
    ratio = node.fleet.prompt_tokens_per_byte(chat.id)
    assert ratio is not None
    assert 0 < ratio < 2
    await node.until_ready(vectors.id)

    target = node.target(chat.id)
    assert target.api_key is not None
    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
    status, answer = await ask(target, "/v1/chat/completions", body)
    assert status == 200
    assert answer["usage"]["completion_tokens"] == 4
    status, answer = await ask(node.target(vectors.id), "/v1/embeddings", {"input": "hello"})
    assert status == 200
    assert len(answer["data"][0]["embedding"]) == 64

    assert replica.pid is not None
    environ = host.process_environ(replica.pid)
    assert (environ["OMP_WAIT_POLICY"], environ["OMP_NUM_THREADS"]) == ("passive", "1")
    assert resource.prlimit(replica.pid, resource.RLIMIT_CORE) == (0, 0)  # no prompts on disk
    arguments = arguments_of(replica.pid)
    assert b"--threads\x001\x00" in arguments
    assert target.api_key.encode() not in arguments
    for path in node.home.agent_state.rglob("*"):
        assert path.is_dir() or target.api_key.encode() not in path.read_bytes()

    assert len(node.engine_processes()) == 2
    assert await node.end_agent(signal.SIGTERM) == 0
    assert node.engine_processes() == []


async def test_a_killed_engine_comes_back_with_the_reason_shown(
    node: Node, chat_model: Path
) -> None:
    await node.start_agent()
    row = await node.deploy(chat_model)
    before = await node.until_ready(row.id)
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    seen = await node.until(row.id, lambda replica: replica.state != "ready")
    assert "killed (signal 9)" in seen.reason
    after = await node.until_ready(row.id)
    assert after.pid != before.pid
    assert (after.restarts, after.reason) == (1, "")
    assert node.engine_processes() == [after.pid]


async def test_a_killed_agent_finds_its_engine_again_and_it_never_stopped_serving(
    node: Node, chat_model: Path
) -> None:
    await node.start_agent()
    row = await node.deploy(chat_model)
    before = await node.until_ready(row.id)
    target = node.target(row.id)
    for count in range(1, 4):
        assert await node.end_agent(signal.SIGKILL) == -signal.SIGKILL
        status, _ = await ask(target, "/v1/completions", {"prompt": "a", "max_tokens": 1})
        assert status == 200
        agent = await node.start_agent()
        await node.until_logged("engine adopted", count)
        await node.until_logged("appliance answers", count + 1)
        assert agent.returncode is None
        assert node.target(row.id) == target  # out of service at no time
    assert node.replica(row.id) == before
    # The restarted agent is in charge of it: it ends it, though it is not its child.
    assert await node.end_agent(signal.SIGTERM) == 0
    assert node.engine_processes() == []


async def test_a_hangup_leaves_the_engine_to_the_next_agent(node: Node, chat_model: Path) -> None:
    await node.start_agent()
    row = await node.deploy(chat_model)
    before = await node.until_ready(row.id)
    assert await node.end_agent(signal.SIGHUP) == 0
    assert node.engine_processes() == [before.pid]
    await node.start_agent("--keep-engines")
    assert await node.registry.deployments.suspend("test", row.id)
    await node.until_no_engines()


async def test_what_the_appliance_wants_is_remembered_when_it_is_away(
    node: Node, chat_model: Path
) -> None:
    await node.start_agent()
    row = await node.deploy(chat_model)
    await node.until_ready(row.id)
    await node.fleet.stop()  # the socket is gone
    assert await node.end_agent(signal.SIGTERM) == 0
    assert node.engine_processes() == []
    await node.start_agent()
    async with asyncio.timeout(WAIT_S):
        while not node.engine_processes():  # noqa: ASYNC110 - other people's processes tell nobody
            await asyncio.sleep(0.02)


async def test_requests_under_way_end_before_the_engine_does(node: Node, chat_model: Path) -> None:
    await node.start_agent()
    row = await node.deploy(chat_model)
    await node.until_ready(row.id)
    target = node.target(row.id)
    body: dict[str, object] = {"prompt": "river", "max_tokens": 900, "ignore_eos": True}
    request = asyncio.create_task(ask(target, "/v1/completions", body))
    await asyncio.sleep(0.05)
    await node.registry.deployments.update("test", row.id, parallel=3)  # a new generation
    status, answer = await request
    assert status == 200
    assert answer["usage"]["completion_tokens"] == 900
    after = await node.until(row.id, lambda replica: replica.slots == 3)
    assert after.state == "ready"
    await node.until_no_engines(after.pid)


async def test_a_model_that_cannot_work_is_failed_with_the_reason_until_it_can(
    node: Node, chat_model: Path, tmp_path: Path
) -> None:
    await node.start_agent()
    model = tmp_path / "model.gguf"
    content = chat_model.read_bytes()  # noqa: ASYNC240 - half a megabyte, and nobody waits
    model.write_bytes(content)
    row = await node.deploy(model)
    before = await node.until_ready(row.id)
    # The header is right and the weights are cut off: only llama.cpp itself can tell.
    model.write_bytes(content[: len(content) // 2])
    await node.registry.deployments.update("test", row.id, parallel=1)
    replica = await node.until(row.id, lambda replica: replica.state == "failed")
    assert "does not load" in replica.reason
    seen = node.fleet.deployment(row.id)
    assert seen is not None
    assert (seen.state, seen.replicas[0]) == ("ready", before), "what serves goes on"
    assert "does not load" in seen.reason
    model.unlink()
    await node.registry.deployments.update("test", row.id, parallel=2)
    replica = await node.until(row.id, lambda replica: "cannot be read" in replica.reason)
    assert replica.state == "failed"
    assert node.engine_processes() == [before.pid]
    model.write_bytes(content)
    after = await node.until_ready(row.id)
    await node.until_no_engines(after.pid)


@pytest.mark.parametrize("how", ["parent dies", "second agent"])
async def test_an_agent_bound_to_its_parent_ends_with_it_and_a_new_one_waits_its_turn(
    node: Node, chat_model: Path, how: str
) -> None:
    command = [sys.executable, "-m", "appliance.cli", "--home", str(node.folder), "agent"]
    program = f"import subprocess;subprocess.run({[*command, '--parent-bound', '--name', 'n1']!r})"
    with (node.folder / "agent.err").open("ab") as errors:
        parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stderr=errors)
    row = await node.deploy(chat_model)
    before = await node.until_ready(row.id)
    assert before.pid is not None
    parent.kill()
    await parent.wait()
    if how == "parent dies":
        await node.until_no_engines()
        return
    await node.start_agent()  # at once, while the old one is still stopping its engine
    after = await node.until(
        row.id, lambda replica: replica.state == "ready" and replica.pid != before.pid
    )
    assert not alive(before.pid)
    assert node.engine_processes() == [after.pid]


async def test_an_unknown_home_is_refused_with_the_next_step(node: Node, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "appliance.cli", "--home", str(tmp_path / "nowhere"), "agent"]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    async with asyncio.timeout(WAIT_S):
        _, said = await process.communicate()
    assert process.returncode == ExitCode.CONFIGURATION
    assert b"There is no site" in said
    assert b"cic init" in said
    assert not (tmp_path / "nowhere").exists()


async def test_an_engine_goes_on_when_nobody_remembers_that_it_is_wanted(
    node: Node, chat_model: Path
) -> None:
    await node.start_agent()
    row = await node.deploy(chat_model)
    before = await node.until_ready(row.id)
    await node.end_agent(signal.SIGKILL)
    (node.home.agent_state / "desired.json").write_bytes(b"torn")
    await node.start_agent()
    await node.until_logged("appliance answers", 2)
    await node.until_logged("engine adopted", 1)
    assert node.replica(row.id) == before
    assert node.engine_processes() == [before.pid]
