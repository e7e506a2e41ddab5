"""A node that joined over TLS copies the model it shall run, through a crash, beneath the cap."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.site import Site, running_site
from tests.fakes.tiny_gguf import write_tiny_gguf

MIB = 1024 * 1024
SIZE_MIB = 12
CAP_BYTES_PER_S = 4 * MIB
WAIT_S = 60.0


class Node:
    """A second home on this machine, with an agent of its own."""

    def __init__(self, folder: Path, site: Site) -> None:
        self.home = folder / "node"
        self.site = site
        self.log = folder / "agent.stderr"
        self._process: subprocess.Popen[bytes] | None = None

    def cic(self, *arguments: str) -> None:
        command = [*self.site.command[:-1], str(self.home), *arguments]
        done = subprocess.run(
            command, capture_output=True, env=self.site.environ, timeout=WAIT_S, check=False
        )
        assert done.returncode == 0, done

    def start(self) -> None:
        command = [*self.site.command[:-1], str(self.home), "agent"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=self.site.environ, start_new_session=True
            )

    def kill(self) -> None:
        """The agent alone, without warning."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(WAIT_S)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(WAIT_S)
            finally:
                self._process.kill()

    @property
    def store(self) -> Path:
        return self.home / "agent" / "models"

    def copied(self) -> int:
        return sum(path.stat().st_size for path in self.store.glob("partial/*"))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    settings = {"CIC_NODES_COPY_BYTES_PER_S": str(CAP_BYTES_PER_S)}
    with running_site(tmp_path, settings=settings) as running:
        yield running


@pytest.fixture
def node(site: Site, tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path, site)
    made = site.cic("node", "token", "create", "--node", "n1", "--address", "127.0.0.1")
    node.cic("agent", "join", "--server", made["server"], "--token", made["token"])
    yield node
    node.stop()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = write_tiny_gguf(tmp_path / "tiny.gguf")
    with path.open("ab") as file:
        file.writelines(hashlib.sha256(bytes([n])).digest() * (MIB // 32) for n in range(SIZE_MIB))
    return path


@pytest.mark.timeout(180)
def test_a_model_comes_to_the_node_and_serves_there(site: Site, node: Node, model: Path) -> None:
    pack = model.with_suffix(".modelpack")
    site.cic(
        *("model", "pack", str(model), "--out", str(pack), "--golden-prompt", "Say something."),
    )
    row = site.cic("model", "import", str(pack))  # by the site's own key, without a licence
    node.start()
    started_s = time.monotonic()
    site.cic("deployment", "create", "--name", "m", "--engine", "llamacpp", "--model", row["name"])
    site.until(lambda: node.copied() > SIZE_MIB * MIB // 4, WAIT_S, "a quarter of the copy")
    (partial,) = node.store.glob("partial/*")
    begun = partial.stat().st_ino

    def told() -> dict[str, Any]:
        (replica,) = site.admin("GET", "/v1/deployments/m")["replicas"]
        return dict(replica)

    # With its next heartbeat the node says so.
    site.until(lambda: "copied" in told()["reason"], WAIT_S, "a word about the copy")
    assert told()["state"] in {"pending", "starting"}
    node.kill()
    node.start()

    site.wait_ready("m", WAIT_S)
    assert time.monotonic() - started_s > SIZE_MIB * MIB / CAP_BYTES_PER_S * 0.8
    (copied,) = node.store.glob("models/*/tiny.gguf")
    assert copied.stat().st_ino == begun  # what the first agent had copied was gone on with
    assert hashlib.sha256(copied.read_bytes()).hexdigest() == row["digest"].partition(":")[2]
    shutil.rmtree(site.home / "models")  # the engine has its own
    body = {"model": "m", "messages": [{"role": "user", "content": "river"}], "max_tokens": 3}
    status, _, answer = site.post("/chat/completions", body, site.key())
    assert (status, json.loads(answer)["usage"]["completion_tokens"]) == (200, 3)
    (replica,) = site.admin("GET", "/v1/deployments/m")["replicas"]
    assert _opens(replica["pid"], copied)


def _opens(pid: int, path: Path) -> bool:
    """Whether a process, or one of its group, has that file mapped or open."""
    for group in {pid, os.getpgid(pid)}:
        if str(path) in Path(f"/proc/{group}/maps").read_text():
            return True
    return False
