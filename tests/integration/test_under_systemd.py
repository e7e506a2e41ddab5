"""A real `cic serve` that is given its socket and tells of itself, as systemd would have it."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

CIC = Path(sys.executable).parent / "cic"
DEADLINE_S = 30.0
# What systemd does between fork and exec: the socket is descriptor 3, and the pid is the child's.
AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="endpoint")
os.execv(sys.argv[2], sys.argv[2:])
"""


class Manager:
    """The service manager's side: a listening socket, and where notifications come in."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.heard.bind(str(folder / "notify"))
        self.heard.settimeout(DEADLINE_S)
        self.endpoint = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.environment = {
            "PATH": os.environ["PATH"],
            "NOTIFY_SOCKET": str(folder / "notify"),
            "WATCHDOG_USEC": "600000",
        }
        self.running: list[subprocess.Popen[bytes]] = []
        subprocess.run([CIC, "--home", self.home, "init"], check=True, capture_output=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.endpoint.getsockname()[1]}"

    def start(self) -> subprocess.Popen[bytes]:
        number = self.endpoint.fileno()
        command = [sys.executable, "-c", AS_SYSTEMD, str(number), str(CIC)]
        process = subprocess.Popen(
            [*command, "--home", str(self.home), "serve"],
            env=self.environment,
            pass_fds=(number,),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.running.append(process)
        return process

    def hears(self, wanted: str) -> str:
        """The first notification that begins so."""
        ends_at = time.monotonic() + DEADLINE_S
        while time.monotonic() < ends_at:
            told = self.heard.recv(4096).decode()
            if told.startswith(wanted):
                return told
        raise TimeoutError(wanted)

    def silent_within(self, seconds: float) -> bool:
        """What was said before is heard first."""
        self.heard.settimeout(seconds)
        ends_at = time.monotonic() + DEADLINE_S
        try:
            while time.monotonic() < ends_at:
                self.heard.recv(4096)
        except TimeoutError:
            return True
        finally:
            self.heard.settimeout(DEADLINE_S)
        return False


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path)
    yield made
    for process in made.running:
        process.kill()
        process.wait()
    made.endpoint.close()
    made.heard.close()


def test_it_says_when_it_serves_lives_and_stops(manager: Manager) -> None:
    process = manager.start()
    assert manager.hears("READY=1") == f"READY=1\nSTATUS=serving {manager.url}/v1"
    assert httpx.get(f"{manager.url}/readyz").status_code == 200
    for _ in range(3):
        manager.hears("WATCHDOG=1")
    process.terminate()
    manager.hears("STOPPING=1")
    assert manager.hears("EXTEND_TIMEOUT_USEC=")
    assert process.wait(DEADLINE_S) == 0


def test_a_hung_loop_falls_silent(manager: Manager) -> None:
    process = manager.start()
    manager.hears("READY=1")
    manager.hears("WATCHDOG=1")
    process.send_signal(19)  # SIGSTOP: as a loop that hangs
    assert manager.silent_within(1.5)
    process.send_signal(18)
    manager.hears("WATCHDOG=1")


def test_who_connects_during_a_restart_waits_and_is_served(manager: Manager) -> None:
    first = manager.start()
    manager.hears("READY=1")
    first.terminate()
    assert first.wait(DEADLINE_S) == 0
    with socket.create_connection(manager.endpoint.getsockname(), timeout=DEADLINE_S) as waiting:
        waiting.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        manager.start()
        assert waiting.recv(4096).startswith(b"HTTP/1.1 200 ")
