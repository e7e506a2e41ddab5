"""A machine that its cloud takes away, under load: emptied in time, and no request fails.

Two agents with real engines, a real appliance, and the metadata services of the clouds on the
loopback. The machine ends as a real one does: everything on it is killed when its hour has come.
"""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agent import host
from agent.processes import OWNER_VARIABLE
from tests.fakes.metadata import MetadataService, metadata_service
from tests.fakes.site import Site, running_site
from tests.fakes.tiny_gguf import write_tiny_gguf

CLIENTS = 4
WAIT_S = 60.0


@dataclass
class Machine:
    """A node: its agent, and the engines that the agent started."""

    name: str
    folder: Path
    process: asyncio.subprocess.Process

    @property
    def engines(self) -> list[int]:
        owner = str((self.folder / "home" / "agent" / "engines").resolve())
        return [
            pid
            for pid in host.own_processes()
            if host.process_environ(pid).get(OWNER_VARIABLE, "").startswith(str(self.folder))
            or host.process_environ(pid).get(OWNER_VARIABLE) == owner
        ]

    async def end(self) -> None:
        """As a machine ends: nothing gets to say anything."""
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        for pid in self.engines:
            os.kill(pid, signal.SIGKILL)


async def machine(site: Site, folder: Path, name: str, *options: str) -> Machine:
    folder.mkdir()  # noqa: ASYNC240 (a test may wait for its disk)
    command = [sys.executable, "-m", "appliance.cli", "--home", str(folder / "home")]
    socket = site.home / "run" / "agent.sock"
    with (folder / "agent.err").open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *(*command, "agent", "--socket", str(socket), "--name", name, *options),
            stderr=errors,
        )
    return Machine(name, folder, process)


@dataclass
class Load:
    """Clients that ask without a pause, and what came of it."""

    url: str
    headers: dict[str, str]
    begun: int = 0
    done: int = 0
    failures: list[str] = field(default_factory=list)
    slowest_s: float = 0.0

    async def ask_for_ever(self, session: aiohttp.ClientSession, *, stream: bool) -> None:
        body = {
            "model": "m",
            "messages": [{"role": "user", "content": "go on"}],
            "max_tokens": 24,
            "stream": stream,
        }
        while True:
            self.begun += 1
            started_s = time.monotonic()
            try:
                async with session.post(
                    f"{self.url}/chat/completions", json=body, headers=self.headers
                ) as answer:
                    content = await answer.text()
                    whole = "[DONE]" in content if stream else "usage" in content
                    if answer.status != 200 or not whole or '"error"' in content:
                        self.failures.append(f"{answer.status}: {content[-300:]}")
            except aiohttp.ClientError as error:
                self.failures.append(repr(error))
            self.done += 1
            self.slowest_s = max(self.slowest_s, time.monotonic() - started_s)


@pytest.fixture
async def cloud() -> AsyncIterator[MetadataService]:
    async with metadata_service() as service:
        yield service


async def call(site: Site, method: str, path: str, body: object = None) -> Any:
    return await asyncio.to_thread(site.admin, method, path, body)


async def until(condition: Any, what: str, wait_s: float = WAIT_S) -> Any:
    async with asyncio.timeout(wait_s):
        while True:
            found = await condition()
            if found:
                return found
            await asyncio.sleep(0.1)
    pytest.fail(what)


def announce(cloud: MetadataService, source: str, notice_s: int) -> float:
    """Have the cloud say that the machine ends; when it does, on the monotonic clock."""
    at = datetime.now(UTC) + timedelta(seconds=notice_s)
    if source == "aws":
        cloud.aws_action = {"action": "terminate", "time": at.strftime("%Y-%m-%dT%H:%M:%SZ")}
    elif source == "gcp":
        cloud.gcp_preempted = "TRUE"
    else:
        cloud.azure_events = [
            {
                "EventId": "E1",
                "EventType": "Preempt",
                "Resources": [cloud.azure_name],
                "NotBefore": at.strftime("%a, %d %b %Y %H:%M:%S GMT"),
            }
        ]
    return time.monotonic() + notice_s


@pytest.mark.parametrize("source", ["aws", "gcp", "azure"])
async def test_a_machine_is_emptied_within_its_notice_and_no_request_fails(
    source: str, tmp_path: Path, cloud: MetadataService
) -> None:
    model = write_tiny_gguf(tmp_path / "tiny.gguf")
    with running_site(tmp_path / "site") as site:
        spot = await machine(
            site, tmp_path / "spot", "spot", "--preemption", source, "--metadata-url", cloud.url
        )
        steady: Machine | None = None
        try:
            await call(
                *(site, "POST", "/v1/deployments"),
                {"name": "m", "engine": "llamacpp", "model": str(model), "context_tokens": 512},
            )

            async def served_by() -> list[str]:
                row = await call(site, "GET", "/v1/deployments/m")
                return [r["node"] for r in row["replicas"] if r["state"] == "ready"]

            assert await until(served_by, "served") == ["spot"]
            steady = await machine(site, tmp_path / "steady", "steady", "--preemption", "off")
            key = await asyncio.to_thread(site.key)
            load = Load(site.base_url, key.bearer)
            async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as clients:
                tasks = [
                    clients.create_task(load.ask_for_ever(session, stream=bool(n % 2)))
                    for n in range(CLIENTS)
                ]
                await asyncio.sleep(1.0)
                ends_s = announce(cloud, source, 30)

                async def empty() -> bool:
                    node = await call(site, "GET", "/v1/nodes/spot")
                    return node["state"] == "maintenance"

                await until(empty, "emptied")
                left_s = ends_s - time.monotonic()
                assert left_s > 0, "the node was not empty in time"
                assert spot.engines == []
                assert await until(served_by, "served elsewhere") == ["steady"]
                await spot.end()
                await asyncio.sleep(1.0)
                for task in tasks:
                    task.cancel()
            assert load.failures == []
            assert load.done > CLIENTS * 4
            node = await call(site, "GET", "/v1/nodes/spot")
            assert node["notice"]["source"] == source
            lines = await asyncio.to_thread(site.ask, "GET", "/v1/audit")
            entries = [json.loads(line) for line in lines.splitlines()]
            noted = [e for e in entries if e["action"] == "notice"]
            assert [(e["object_name"], e["after"]["source"]) for e in noted] == [("spot", source)]
        finally:
            await spot.end()
            if steady is not None:
                await steady.end()


async def test_a_person_gives_notice_and_takes_it_back(tmp_path: Path) -> None:
    with running_site(tmp_path / "site") as site:
        node = await machine(site, tmp_path / "n1", "n1")
        try:

            async def ready() -> bool:
                (row,) = await call(site, "GET", "/v1/nodes") or [{"state": ""}]
                return row["state"] == "ready"

            await until(ready, "ready")
            drain = ("node", "drain", "n1", "--notice", "10m", "--reason", "the host is replaced")
            row = await asyncio.to_thread(site.cic, *drain)
            assert row["notice"]["source"] == "operator"
            assert "the host is replaced" in row["notice"]["detail"]

            async def emptied() -> bool:
                shown = await call(site, "GET", "/v1/nodes/n1")
                return shown["state"] == "maintenance" and "ends at" in shown["reason"]

            await until(emptied, "emptied")
            await asyncio.to_thread(site.cic, "node", "resume", "n1")
            await until(ready, "ready again")
            assert (await call(site, "GET", "/v1/nodes/n1"))["notice"] is None
        finally:
            await node.end()
