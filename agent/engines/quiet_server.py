"""Runs llama-server and passes on what it prints until it serves, and nothing after.

From then on it sees requests, and its errors quote them (grammars, schemas, the prompt they begin
with). The engine's address and key come by its own arguments and environment. This process ends
when the engine does, the same way; when this process is killed, the kernel kills the engine.

usage: python -m agent.engines.quiet_server PROGRAM ARGUMENT…
"""

import ctypes
import http.client
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

from agent.engines.variables import PORT_VARIABLE, port_of

_PR_SET_PDEATHSIG = 1  # prctl(2)
_ASK_EACH_S = 0.3
_ANSWER_S = 5.0
_BYTES_MAX = 64 * 1024


def _serves(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_S)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _wait(port: int, ended: threading.Event, quiet: threading.Event) -> None:
    """Set `quiet` once the server answers."""
    while not ended.wait(_ASK_EACH_S):
        if _serves(port):
            quiet.set()
            return


def main(command: Sequence[str]) -> int:
    port = port_of(os.environ)
    if port is None or not command:
        sys.stderr.write(f"Give a program, and its port with {PORT_VARIABLE}.\n")
        return 2
    # The whole group is asked to end: the engine heard it too, and we wait for it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    libc = ctypes.CDLL(None)
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=lambda: libc.prctl(  # noqa: PLW1509 - no other thread exists yet
            _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0
        ),
    )
    assert child.stdout is not None
    ended, quiet = threading.Event(), threading.Event()
    asking = threading.Thread(target=_wait, args=(port, ended, quiet), daemon=True)
    asking.start()
    while part := os.read(child.stdout.fileno(), _BYTES_MAX):
        if not quiet.is_set():
            sys.stderr.buffer.write(part)
            sys.stderr.buffer.flush()
    code = child.wait()
    ended.set()
    if code < 0:  # end the same way, so that whoever waits for us learns how
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
