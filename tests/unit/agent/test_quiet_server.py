"""llama-server's voice: heard until it serves, silent after; it ends as the engine does."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent import host
from agent.engines.variables import PORT_VARIABLE

WAIT_S = 20.0
ENGINE = """
import http.server, os, signal, sys, threading, time
print("loading the model", flush=True)
if len(sys.argv) > 1:
    sys.exit(int(sys.argv[1]))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", int(os.environ["CROSSLOGIC_ENGINE_PORT"])), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
open(os.environ["HOME"] + "/pid", "w").write(str(os.getpid()))
while True:
    print("error: the grammar of the prompt 'my secret' is bad", flush=True)
    time.sleep(0.05)
"""


def start(folder: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    engine = folder / "engine.py"
    engine.write_text(ENGINE)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "agent.engines.quiet_server"),
                *(sys.executable, str(engine), *arguments),
            ],
            env={**os.environ, PORT_VARIABLE: str(port), "HOME": str(folder)},
            stderr=log,
            start_new_session=True,
        )


def until_quiet(folder: Path) -> None:
    """Its engine talks all the time: once the log stands still, nobody passes it on."""
    deadline_s = time.monotonic() + WAIT_S
    size = -1
    while time.monotonic() < deadline_s:
        now = (folder / "log").stat().st_size
        if (folder / "pid").exists() and now == size:
            return
        size = now
        time.sleep(0.4)
    pytest.fail("it never fell silent")


def test_it_falls_silent_once_the_engine_serves_and_ends_it_when_killed(tmp_path: Path) -> None:
    process = start(tmp_path)
    until_quiet(tmp_path)
    assert "loading the model" in (tmp_path / "log").read_text()
    engine = int((tmp_path / "pid").read_text())
    process.kill()
    assert process.wait(WAIT_S) == -signal.SIGKILL
    deadline_s = time.monotonic() + WAIT_S
    while (seen := host.process_stat(engine)) is not None and seen.state not in {"Z", "X"}:
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def test_it_ends_with_the_engine_the_same_way(tmp_path: Path) -> None:
    process = start(tmp_path, "5")
    assert process.wait(WAIT_S) == 5
    assert "loading the model" in (tmp_path / "log").read_text()
    process = start(tmp_path)
    until_quiet(tmp_path)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGSEGV)
    assert process.wait(WAIT_S) == -signal.SIGSEGV


def test_a_term_to_the_group_ends_both(tmp_path: Path) -> None:
    process = start(tmp_path)
    until_quiet(tmp_path)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(WAIT_S) == -signal.SIGTERM
