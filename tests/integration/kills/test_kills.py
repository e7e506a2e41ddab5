"""kill -9 of the agent, and of engines, again and again under load.

NODE_KILLS says how often (`make kills`: 100), NODE_SEED repeats a run. A kill of the agent takes
about a second, most of it the start of the next one; a kill of an engine about as long.
"""

import asyncio
import os
import random
import signal
import time

import pytest

from tests.fakes.site import Key
from tests.integration.kills.conftest import REPLICAS, WAIT_S, Node
from tests.integration.kills.crowd import Crowd, objections

KILLS = int(os.environ.get("NODE_KILLS", "4"))
SEED = int(os.environ.get("NODE_SEED", "1"))


@pytest.mark.timeout(120 + 6 * KILLS)
async def test_no_engine_is_lost_or_doubled_and_no_request_fails_when_agents_are_killed(
    node: Node, key: Key
) -> None:
    chance = random.Random(SEED)
    engines = node.engines()
    assert len(engines) == REPLICAS
    async with Crowd(node.site, key, "chat", tokens=(1, 200)) as crowd:
        for count in range(1, KILLS + 1):
            await crowd.until_answered(chance.randint(1, 5))
            node.kill()
            if chance.random() < 0.5:
                await asyncio.sleep(chance.random())  # the node is without an agent for a while
            node.start()
            if chance.random() < 0.3:
                await asyncio.sleep(chance.random())  # killed again while it starts
                continue
            async with asyncio.timeout(WAIT_S):
                # Adopted, and its word heard by the appliance.
                answers = node.said().count("appliance answers")
                while node.said().count("appliance answers") <= answers:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            assert node.engines() == engines, f"kill {count}"
        await crowd.until_answered(5)
    assert node.engines() == engines
    assert len(await asyncio.to_thread(node.ready, "chat")) == REPLICAS
    assert not crowd.seen.cut
    assert len(crowd.seen.answered) > KILLS
    assert await asyncio.to_thread(objections, node.site, crowd.seen) == []
    found = await asyncio.to_thread(node.site.cic, "ledger", "verify")
    assert found["ok"], found["problems"]


@pytest.mark.timeout(120 + 15 * KILLS)
async def test_a_killed_engine_is_replaced_and_only_streams_that_had_begun_are_cut(
    node: Node, key: Key
) -> None:
    chance = random.Random(SEED)
    killed: set[int] = set()
    async with Crowd(node.site, key, "chat", tokens=(50, 400)) as crowd:
        for count in range(1, KILLS + 1):
            await crowd.until_answered(chance.randint(1, 5))
            victim = chance.choice(node.engines())
            os.kill(victim, signal.SIGKILL)
            killed.add(victim)
            async with asyncio.timeout(WAIT_S):
                while True:
                    ready = await asyncio.to_thread(node.ready, "chat")
                    pids = {replica["pid"] for replica in ready} - killed
                    if len(pids) == REPLICAS:
                        break
                    await asyncio.sleep(0.05)
            assert node.engines() == sorted(pids), f"kill {count}"
        await crowd.until_answered(5)
    ready = await asyncio.to_thread(node.ready, "chat")
    assert sum(replica["restarts"] for replica in ready) == KILLS, node.said()
    assert set(crowd.seen.cut.values()) <= {"engine_error"}
    assert await asyncio.to_thread(objections, node.site, crowd.seen) == []
    found = await asyncio.to_thread(node.site.cic, "ledger", "verify")
    assert found["ok"], found["problems"]


@pytest.mark.timeout(180)
async def test_a_frozen_engine_is_replaced_within_30_s_under_load(node: Node, key: Key) -> None:
    before = set(node.engines())
    async with Crowd(node.site, key, "chat", tokens=(50, 400)) as crowd:
        await crowd.until_answered(3)
        frozen = min(before)
        os.kill(frozen, signal.SIGSTOP)
        frozen_s = time.monotonic()
        async with asyncio.timeout(WAIT_S):
            while True:
                ready = await asyncio.to_thread(node.ready, "chat")
                pids = {replica["pid"] for replica in ready}
                if len(pids) == REPLICAS and frozen not in pids:
                    break
                await asyncio.sleep(0.1)
        assert time.monotonic() - frozen_s < 30
        await crowd.until_answered(3)
    assert frozen not in node.engines()
    assert len(node.engines()) == REPLICAS
    assert not crowd.seen.failed
    assert await asyncio.to_thread(objections, node.site, crowd.seen) == []
