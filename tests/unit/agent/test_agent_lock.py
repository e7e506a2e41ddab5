"""One agent for each state folder."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agent.errors import AgentRunning
from agent.lock import held

HOLDER = (
    "import sys,pathlib;from agent.lock import held;"
    "w=held(pathlib.Path(sys.argv[1]),0);w.__enter__();print('held',flush=True);sys.stdin.read()"
)


def test_a_held_lock_is_waited_for_then_refused_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "agent.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(AgentRunning, match=f"pid {holder.pid}"), held(path, 0.2):
            pytest.fail("two hold one lock")
        threading.Timer(0.2, holder.kill).start()  # killed, it holds nothing any more
        with held(path, 10.0):
            assert path.read_text() not in {"", str(holder.pid)}
