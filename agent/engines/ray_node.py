"""Runs this node's part of a Ray cluster, and beside it the engine where this node leads.

The engine starts once the cluster's head can be reached. When either ends, so does the other, and
this process ends as the first of them did. When this process is killed, the kernel kills both.

usage: python -m agent.engines.ray_node HOST PORT RAY ARGUMENT… [-- ENGINE ARGUMENT…]
"""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1  # prctl(2)
_HEAD_S = 120.0  # until the head answers
_LOOK_S = 0.2
_END_S = 30.0


def _start(command: Sequence[str]) -> "subprocess.Popen[bytes]":
    libc = ctypes.CDLL(None)
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        preexec_fn=lambda: libc.prctl(  # noqa: PLW1509 - no other thread exists
            _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0
        ),
    )


def _reached(host: str, port: int, ray: "subprocess.Popen[bytes]") -> bool:
    """Whether the head came up in time, and Ray did not end meanwhile."""
    deadline_s = time.monotonic() + _HEAD_S
    while ray.poll() is None and time.monotonic() < deadline_s:
        with contextlib.suppress(OSError), socket.create_connection((host, port), _LOOK_S):
            return True
        time.sleep(_LOOK_S)
    return False


def _first_end(children: "Sequence[subprocess.Popen[bytes]]") -> int:
    """The status of whichever ends first."""
    while True:
        for child in children:
            code = child.poll()
            if code is not None:
                return code
        time.sleep(_LOOK_S)


def main(argv: Sequence[str]) -> int:
    host, port, *command = argv
    at = command.index("--") if "--" in command else len(command)
    # The whole group is asked to end: both heard it too, and we wait for them.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    children = [_start(command[:at])]
    engine = command[at + 1 :]
    if engine:
        if not _reached(host, int(port), children[0]):
            sys.stderr.write(f"RuntimeError: Ray's head does not answer at {host}:{port}.\n")
            children[0].kill()
            return children[0].wait() or 1
        children.append(_start(engine))
    code = _first_end(children)
    for child in children:
        child.terminate()
    for child in children:
        try:
            child.wait(_END_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    if code < 0:  # end the same way, so that whoever waits for us learns how
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
