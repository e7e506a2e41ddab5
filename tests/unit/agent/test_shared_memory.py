"""Shared memory of engines that were killed: removed with them, and nobody else's."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing import shared_memory as python_shared
from pathlib import Path

import pytest

from agent import shared_memory
from agent.processes import Command, Fitness, Processes
from tests.unit.agent.test_processes import REPLICA, wait_for_line, wait_until_gone

pytestmark = pytest.mark.skipif(
    not os.access(shared_memory.SHM, os.W_OK), reason="there is no /dev/shm to write to"
)
# A front process with one behind it that holds a segment, as vLLM's are; both live for ever.
HOLDER = (
    "import signal,sys;from multiprocessing import shared_memory as s, resource_tracker as r;"
    "m=s.SharedMemory(create=True,size=4096);r.unregister(m._name,'shared_memory');"
    "print(m.name,flush=True);signal.pause()"
)
FRONT = f"import subprocess,sys;subprocess.run([sys.executable,'-c',{HOLDER!r}])"
COMMAND = Command((sys.executable, "-c", FRONT), {})
FIT = Fitness(
    host="127.0.0.1",
    port=1,
    slots=1,
    context_tokens=1,
    tokens_per_s=1.0,
    prompt_tokens_per_byte=1.0,
)


@pytest.fixture
def strangers() -> Iterator[Path]:
    """A segment of the same kind that somebody else of this account uses."""
    segment = python_shared.SharedMemory(create=True, size=4096)
    yield shared_memory.SHM / segment.name.lstrip("/")
    segment.close()
    segment.unlink()


@pytest.mark.parametrize("noted", [True, False])
def test_a_killed_front_leaves_neither_processes_nor_segments(
    tmp_path: Path, strangers: Path, *, noted: bool
) -> None:
    processes = Processes(tmp_path / "engines", "boot-1")
    process = processes.spawn(REPLICA, COMMAND, restarts=0)
    name = wait_for_line(processes).decode().strip()
    segment = shared_memory.SHM / name
    assert segment.exists()
    if noted:
        processes.note_shared(process)
        process.end(kill=True)  # the whole group: nobody is left to tell
    else:
        os.kill(process.pid, signal.SIGKILL)  # the one behind it tells
    process.exit_code()
    processes.forget(process)
    assert not segment.exists()
    assert strangers.exists()


def test_what_died_while_no_agent_ran_is_cleaned_by_the_next(
    tmp_path: Path, strangers: Path
) -> None:
    processes = Processes(tmp_path / "engines", "boot-1")
    process = processes.spawn(REPLICA, COMMAND, restarts=0)
    segment = shared_memory.SHM / wait_for_line(processes).decode().strip()
    processes.note_shared(process)
    processes.note(process, FIT)
    for pid in process.family():
        os.kill(pid, signal.SIGKILL)
    process.exit_code()
    process.close()
    assert segment.exists()
    assert Processes(tmp_path / "engines", "boot-1").adopt() == []
    assert not segment.exists()
    assert strangers.exists()


def test_orphans_of_a_dead_leader_are_ended_by_the_next_agent(tmp_path: Path) -> None:
    processes = Processes(tmp_path / "engines", "boot-1")
    process = processes.spawn(REPLICA, COMMAND, restarts=0)
    segment = shared_memory.SHM / wait_for_line(processes).decode().strip()
    _, *behind = process.family()
    assert behind
    os.kill(process.pid, signal.SIGKILL)
    process.exit_code()
    process.close()
    assert Processes(tmp_path / "engines", "boot-1").adopt() == []
    for pid in behind:
        wait_until_gone(pid)
    assert not segment.exists()


def test_a_segment_that_another_process_holds_stays(tmp_path: Path) -> None:
    segment = tmp_path / "psm_1"
    segment.write_bytes(b"x")
    wanted = {("psm_1", segment.stat().st_ino)}
    holder = subprocess.Popen(
        [sys.executable, "-c", f"f=open({str(segment)!r});input()"], stdin=subprocess.PIPE
    )
    try:
        deadline_s = time.monotonic() + 10
        while not shared_memory.held([holder.pid], tmp_path):
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        assert shared_memory.remove(wanted, folder=tmp_path) == []
        assert shared_memory.remove({("psm_1", 1)}, leaving=[holder.pid], folder=tmp_path) == []
        assert shared_memory.remove(wanted, leaving=[holder.pid], folder=tmp_path) == ["psm_1"]
    finally:
        holder.communicate()
    assert not segment.exists()
