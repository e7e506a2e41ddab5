"""A site with two replicas of a tiny model, and the agent a process of its own beside it."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from agent import host
from agent.processes import OWNER_VARIABLE
from tests.fakes.site import Key, Site, running_site
from tests.fakes.tiny_gguf import write_tiny_gguf

REPLICAS = 2
WAIT_S = 60.0


class Node:
    """The agent of a site, to be killed, and the engines it runs."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._agent: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] = (site.folder / "agent.err").open("ab")

    def start(self) -> None:
        self._agent = subprocess.Popen(
            [*self.site.command, "agent", "--name", "n1"],
            stderr=self._log,
            env=self.site.environ,
            start_new_session=True,
        )

    def kill(self) -> None:
        """kill -9 of the agent alone."""
        assert self._agent is not None
        self._agent.kill()
        self._agent.wait(WAIT_S)

    def close(self) -> None:
        self.kill()
        for pid in self.engines():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._log.close()

    def said(self) -> str:
        return (self.site.folder / "agent.err").read_text()

    def engines(self) -> list[int]:
        """Every living process of this home's engines, whoever its parent is."""
        owner = str((self.site.home / "agent" / "engines").resolve())
        found = []
        for pid in host.own_processes():
            stat = host.process_stat(pid)
            alive = stat is not None and stat.state not in {"Z", "X"}
            if alive and host.process_environ(pid).get(OWNER_VARIABLE) == owner:
                found.append(pid)
        return sorted(found)

    def ready(self, name: str) -> list[dict[str, Any]]:
        """The replicas that serve, as the appliance says."""
        row = self.site.admin("GET", f"/v1/deployments/{name}")
        return [replica for replica in row["replicas"] if replica["state"] == "ready"]


@pytest.fixture
def node() -> Iterator[Node]:
    settings = {"CIC_SCHEDULER_EJECT_S": "1"}
    with running_site(settings=settings) as site:
        model = write_tiny_gguf(site.folder / "tiny.gguf")
        node = Node(site)
        node.start()
        try:
            site.admin(
                "POST",
                "/v1/deployments",
                {
                    "name": "chat",
                    "engine": "llamacpp",
                    "model": str(model),
                    "context_tokens": 1024,
                    "parallel": 2,
                    "replicas": REPLICAS,
                },
            )
            site.until(lambda: len(node.ready("chat")) == REPLICAS, WAIT_S, "two replicas")
            yield node
        finally:
            node.close()


@pytest.fixture
def key(node: Node) -> Key:
    return node.site.key()


@pytest.fixture
def agent_log(node: Node) -> Path:
    return node.site.folder / "agent.err"
