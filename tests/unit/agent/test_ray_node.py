"""A node's part of a Ray cluster and its engine: started in order, ended together."""

import socket
import subprocess
import sys
import time
from pathlib import Path

WAIT_S = 20.0
SLEEPS = "import time; time.sleep(60)"


def start(port: int, ray: str, engine: str | None) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "agent.engines.ray_node", "127.0.0.1", str(port)]
    command += [sys.executable, "-c", ray]
    if engine is not None:
        command += ["--", sys.executable, "-c", engine]
    return subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)


def test_the_engine_starts_once_the_head_answers_and_its_end_ends_both(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    mark = tmp_path / "mark"
    ray = (
        "import socket, time; time.sleep(0.5)\n"
        f"open({str(mark)!r}, 'w').close()\n"
        f"server = socket.create_server(('127.0.0.1', {port})); time.sleep(60)"
    )
    engine = f"import os, sys; sys.exit(7 if os.path.exists({str(mark)!r}) else 8)"
    with start(port, ray, engine) as process:
        assert process.wait(WAIT_S) == 7


def test_a_cluster_that_ends_at_once_is_told() -> None:
    with start(1, "import sys; sys.exit(3)", SLEEPS) as process:
        assert process.wait(WAIT_S) == 3
        assert process.stderr is not None
        assert b"Ray's head does not answer" in process.stderr.read()


def test_a_follower_ends_with_its_ray() -> None:
    began_s = time.monotonic()
    with start(1, "import sys; sys.exit(0)", None) as process:
        assert process.wait(WAIT_S) == 0
    assert time.monotonic() - began_s < WAIT_S
