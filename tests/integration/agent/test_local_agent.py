"""The agent the appliance itself runs: restarted when it dies, and never outlived by engines."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from agent import host
from appliance.fleet.local_agent import LocalAgent
from tests.integration.agent.conftest import WAIT_S, Node, alive


def agent_pid(node: Node) -> int:
    """Of the agent that holds the lock."""
    return int((node.home.agent_state / "agent.lock").read_text())


@pytest.mark.parametrize("death", ["none", "killed"])
async def test_stopped_it_leaves_no_engine_also_when_the_agent_is_dead(
    node: Node, chat_model: Path, death: str
) -> None:
    local = asyncio.create_task(LocalAgent(node.home, stop_s=WAIT_S).run())
    row = await node.deploy(chat_model)
    replica = await node.until_ready(row.id)
    assert replica.pid is not None
    if death == "killed":
        pid = agent_pid(node)
        pidfd = os.pidfd_open(pid)
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(pidfd, ended.set)
        os.kill(pid, signal.SIGKILL)
        await ended.wait()
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
        assert alive(replica.pid)
    local.cancel()
    async with asyncio.timeout(WAIT_S):
        await asyncio.gather(local, return_exceptions=True)
    assert node.engine_processes() == []
    assert not alive(replica.pid)


async def test_a_dead_agent_is_replaced_by_one_that_keeps_the_engine(
    node: Node, chat_model: Path
) -> None:
    local = asyncio.create_task(LocalAgent(node.home, stop_s=WAIT_S).run())
    row = await node.deploy(chat_model)
    before = await node.until_ready(row.id)
    first = agent_pid(node)
    os.kill(first, signal.SIGKILL)
    async with asyncio.timeout(WAIT_S):
        while agent_pid(node) == first or host.process_stat(agent_pid(node)) is None:  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.02)
    assert node.engine_processes() == [before.pid]
    assert node.target(row.id).port == int((before.address or "").rpartition(":")[2])
    local.cancel()
    await asyncio.gather(local, return_exceptions=True)
    assert node.engine_processes() == []
