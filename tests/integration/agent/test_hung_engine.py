"""An engine that stands still: alive for the kernel, dead for everybody else."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import aiohttp

from agent import host
from agent.engines.kinds import known_kinds
from agent.processes import Processes
from agent.replicas import Replicas
from agent.supervisor import Times
from appliance.domain.clock import SystemClock
from appliance.wire.agent import DesiredReplica, ReplicaReport
from tests.integration.agent.conftest import WAIT_S, alive


async def test_it_is_killed_and_replaced_with_the_reason_shown(
    tmp_path: Path, chat_model: Path
) -> None:
    changed = asyncio.Event()

    async def told() -> None:
        """No appliance here."""

    async def until(condition: Callable[[ReplicaReport], bool]) -> ReplicaReport:
        async with asyncio.timeout(WAIT_S):
            while True:
                changed.clear()
                (report,) = replicas.reports()
                if condition(report):
                    return report
                await changed.wait()

    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session,
        asyncio.TaskGroup() as tasks,
    ):
        replicas = Replicas(
            processes=Processes(tmp_path / "engines", host.boot_id()),
            kinds=known_kinds(os.environ),
            session=session,
            tasks=tasks,
            cores=1,
            clock=SystemClock(),
            times=Times(still_s=1.0),
            changed=changed.set,
            told=told,
        )
        ticking = tasks.create_task(replicas.run())
        desired = DesiredReplica(
            replica_id="rep_1",
            deployment_id="dep_1",
            generation=1,
            engine="llamacpp",
            model_name="m",
            model_path=str(chat_model),
            parallel=1,
            context_tokens=1024,
        )
        replicas.want([desired])
        before = await until(lambda report: report.state == "ready")
        assert before.pid is not None
        os.kill(before.pid, signal.SIGSTOP)
        hung = await until(lambda report: report.state == "backoff")
        assert hung.reason.startswith("The engine hangs: it does not answer")
        assert not alive(before.pid)
        after = await until(lambda report: report.state == "ready")
        assert after.pid not in {None, before.pid}
        assert after.restarts == 1
        await replicas.stop()
        assert replicas.reports() == ()
        ticking.cancel()
    assert after.pid is not None
    assert not alive(after.pid)
