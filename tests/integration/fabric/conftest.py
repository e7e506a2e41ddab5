"""A site on one host, a node on a second, a client on a third: each in a network of its own."""

import base64
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from agent.processes import OWNER_VARIABLE
from tests.fakes.hosts import Host, hosts, why_not
from tests.fakes.site import Key, Row, Site
from tests.fakes.tiny_gguf import write_tiny_gguf
from tests.integration.fabric.answers import answer_of

PROGRAMS = Path(__file__).parent / "programs"
WAIT_S = 60.0
ANSWER_S = 30.0
# Quicker than the defaults: what is tested is what follows, not how long it takes.
SETTINGS = {"CIC_FLEET_HEARTBEAT_S": "0.3", "CIC_FLEET_NODE_LOST_S": "3"}


class FarSite(Site):
    """A site on a host of its own: its endpoint is asked from the client's host."""

    def __init__(self, folder: Path, host: Host, client: Host) -> None:
        super().__init__(folder, settings=SETTINGS)
        self.host = host
        self.client = client
        self.listen = f"{host.address}:0"

    @property
    def command(self) -> list[str]:
        return self.host.command(*super().command)

    def call(
        self,
        method: str,
        path: str,
        data: bytes | None,
        key: Key | None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        with self.asking(method, path, data, key, headers) as process:
            return answer_of(process)

    def asking(
        self,
        method: str,
        path: str,
        data: bytes | None,
        key: Key | None,
        headers: Mapping[str, str] | None = None,
    ) -> "subprocess.Popen[bytes]":
        """A request under way; `answer_of` waits for its end."""
        host, port = self.address
        sent = dict(headers or {}) | ({} if key is None else key.bearer)
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
        asked = {
            "host": host,
            "port": port,
            "method": method,
            "path": "/v1" + path,
            "headers": sent,
            "body": None if data is None else base64.b64encode(data).decode(),
            "timeout_s": ANSWER_S,
        }
        process = subprocess.Popen(
            self.client.command(sys.executable, PROGRAMS / "ask.py"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(asked).encode())
        process.stdin.close()
        return process

    def chat(self, key: Key, model: str, **fields: object) -> "subprocess.Popen[bytes]":
        body = {
            "model": model,
            "messages": [{"role": "user", "content": "Say something."}],
            "max_tokens": 8,
            **fields,
        }
        return self.asking("POST", "/chat/completions", json.dumps(body).encode(), key)

    def completed(self, key: Key, model: str, **fields: object) -> tuple[int, bytes]:
        with self.chat(key, model, **fields) as process:
            status, _, body = answer_of(process)
            return status, body

    def node(self, name: str) -> Row:
        row: Row = self.cic("node", "show", name)
        return row

    def wait_node(self, name: str, state: str) -> Row:
        return self.until(
            lambda: row if (row := self.node(name))["state"] == state else None,
            WAIT_S,
            f"the node {name} to be {state}, not {self.node(name)['state']}",
        )

    def replicas(self, deployment: str) -> list[Row]:
        found: list[Row] = self.admin("GET", f"/v1/deployments/{deployment}")["replicas"]
        return found


class FarNode:
    """A home on a host, whose agent joins a site."""

    def __init__(self, folder: Path, host: Host) -> None:
        self.folder = folder
        self.host = host
        self.home = folder / "node"
        self.identity = self.home / "agent" / "identity"
        self._agent: subprocess.Popen[bytes] | None = None
        folder.mkdir(exist_ok=True)

    def command(self, *arguments: str) -> list[str]:
        cic = (sys.executable, "-m", "appliance.cli", "--home", str(self.home))
        return self.host.command(*cic, *arguments)

    def join(self, server: str, token: str, *options: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self.command("agent", "join", "--server", server, "--token", token, *options),
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )

    def start(self) -> None:
        with (self.folder / "agent.err").open("ab") as errors:
            self._agent = subprocess.Popen(self.command("agent"), stderr=errors)

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self._agent is not None
        self._agent.send_signal(number)
        return self._agent.wait(WAIT_S)

    def kill(self) -> None:
        """kill -9 of the agent alone, if it runs."""
        if self._agent is not None:
            self._agent.kill()
            self._agent.wait(WAIT_S)

    def log(self) -> str:
        file = self.folder / "agent.err"
        return file.read_text() if file.exists() else ""

    def engines(self) -> list[int]:
        """The engines' processes, in the order of their numbers."""
        return sorted(pid for pid in self.host.processes() if _owned(pid))


def _owned(pid: int) -> bool:
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return f"{OWNER_VARIABLE}=".encode() in environ


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("models") / "tiny-chat.gguf")


@pytest.fixture
def lab() -> Iterator[dict[str, Host]]:
    if why := why_not():
        pytest.skip(why)
    with hosts("gateway", "node", "client") as (gateway, node, client):
        yield {"gateway": gateway, "node": node, "client": client}


@pytest.fixture
def far_site(lab: dict[str, Host], tmp_path: Path) -> Iterator[FarSite]:
    site = FarSite(tmp_path, lab["gateway"], lab["client"])
    site.init()
    site.start()
    yield site
    site.stop()


@pytest.fixture
def far_node(lab: dict[str, Host], tmp_path: Path) -> Iterator[FarNode]:
    node = FarNode(tmp_path, lab["node"])
    yield node
    node.kill()
