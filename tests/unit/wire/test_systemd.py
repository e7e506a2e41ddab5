"""The service's side of systemd's protocol, over real datagrams and inherited descriptors."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.wire.systemd import Notifier, take_sockets

PID = 4242

CHILD = """
import os, socket
from appliance.wire.systemd import take_sockets
os.environ["LISTEN_PID"] = str(os.getpid())
taken = take_sockets(os.environ, os.getpid())
left = [name for name in os.environ if name.startswith("LISTEN_")]
print(sorted(taken), left, [os.get_inheritable(s.fileno()) for s in taken.values()])
sock = taken["endpoint"]
sock.settimeout(5)
sock.accept()[0].sendall(b"served")
"""


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """The name given in NOTIFY_SOCKET, and the manager's end of it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        if request.param == "path":
            sock.bind(str(tmp_path / "notify"))
            yield str(tmp_path / "notify"), sock
        else:
            sock.bind("")  # the kernel chooses an abstract name
            yield "@" + sock.getsockname()[1:].decode(), sock


def test_what_is_said_in_order(manager: tuple[str, socket.socket]) -> None:
    name, sock = manager
    environment = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(PID)}
    notifier = Notifier.taken(environment, PID)
    assert environment == {}
    assert notifier.watchdog_s == 3.0
    notifier.ready("answers at :8080")
    notifier.alive()
    notifier.extend(1.5)
    notifier.status("two\nlines")
    notifier.stopping("drains", 90)
    said = [sock.recv(4096).decode() for _ in range(6)]
    assert said == [
        "READY=1\nSTATUS=answers at :8080",
        "WATCHDOG=1",
        "EXTEND_TIMEOUT_USEC=1500000",
        "STATUS=two lines",
        "STOPPING=1\nSTATUS=drains",
        "EXTEND_TIMEOUT_USEC=90000000",
    ]


@pytest.mark.parametrize(
    ("usec", "watched"), [("3000000", "1"), ("", str(PID)), ("many", ""), ("0", "")]
)
def test_no_watchdog_for_another_process_or_a_broken_time(usec: str, watched: str) -> None:
    environment = {"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": usec, "WATCHDOG_PID": watched}
    assert Notifier.taken(environment, PID).watchdog_s is None
    assert environment == {}


@pytest.mark.parametrize("name", ["", "relative", "vsock:2:1234"])
def test_without_a_manager_nothing_is_said(name: str) -> None:
    notifier = Notifier.taken({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1000000"}, PID)
    notifier.ready("nobody hears")
    assert notifier.watchdog_s is None


def test_a_manager_that_is_gone_stops_nobody(tmp_path: Path) -> None:
    Notifier(str(tmp_path / "gone"), None).alive()


def test_a_manager_that_does_not_read_stops_nobody(manager: tuple[str, socket.socket]) -> None:
    notifier = Notifier.taken({"NOTIFY_SOCKET": manager[0]}, PID)
    for _ in range(2_000):  # more than the socket's queue holds
        notifier.alive()


def test_sockets_for_another_process_are_left_alone() -> None:
    environment = {"LISTEN_FDS": "1", "LISTEN_PID": "1", "LISTEN_FDNAMES": "endpoint"}
    assert take_sockets(environment, PID) == {}
    assert environment == {}


def test_a_child_serves_on_the_socket_of_its_parent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as parent:
        held = parent.fileno()

        def hand_over() -> None:
            os.dup2(held, 3)
            os.dup2(held, 4)

        child = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            env={**os.environ, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "endpoint:endpoint"},
            preexec_fn=hand_over,  # noqa: PLW1509 - no other way to place descriptor 3
            close_fds=False,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            with socket.create_connection(parent.getsockname(), timeout=10) as client:
                assert client.recv(16) == b"served"
            out, _ = child.communicate(timeout=10)
        finally:
            child.kill()
            child.wait()
    assert child.returncode == 0
    assert out == "['endpoint'] [] [False]\n"
