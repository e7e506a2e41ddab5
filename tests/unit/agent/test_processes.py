"""Real processes: recorded, found again, told from strangers, ended with all they started."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent import host
from agent.durable import write_message
from agent.processes import LAUNCH_VARIABLE, LOG_BYTES_MAX, Command, Processes, Record
from appliance.wire.agent import DesiredReplica

WAIT_S = 10.0
REPLICA = DesiredReplica(
    replica_id="rep_1",
    deployment_id="dep_1",
    generation=1,
    engine="llamacpp",
    model_name="m",
    model_path="/m.gguf",
)
# Starts a child of its own, tells its pid, and waits for ever.
PARENT = (
    "import subprocess,sys,signal;"
    "c=subprocess.Popen([sys.executable,'-c','import signal;signal.pause()']);"
    "print(c.pid,flush=True);sys.stderr.write('hello log\\n');sys.stderr.flush();signal.pause()"
)
COMMAND = Command((sys.executable, "-c", PARENT), {"SECRET_KEY": "s3cret"})


def gone(pid: int) -> bool:
    seen = host.process_stat(pid)
    return seen is None or seen.state in {"Z", "X"}


def wait_until_gone(pid: int) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not gone(pid):
        assert time.monotonic() < deadline_s, f"{pid} runs on"
        time.sleep(0.01)


def wait_for_line(processes: Processes) -> bytes:
    deadline_s = time.monotonic() + WAIT_S
    while (line := processes.ready_line("rep_1")) is None:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    return line


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "engines"


def test_a_process_is_recorded_found_again_and_ended_with_its_child(folder: Path) -> None:
    first = Processes(folder, "boot-1")
    process = first.spawn(REPLICA, COMMAND, restarts=3)
    child_pid = int(wait_for_line(first))
    assert os.getsid(process.pid) == process.pid  # a session of its own
    assert os.getpgid(child_pid) == process.pid

    (found,) = Processes(folder, "boot-1").adopt()
    assert found.pid == process.pid
    assert found.record.restarts == 3
    assert found.alive()
    assert host.process_environ(found.pid)["SECRET_KEY"] == "s3cret"

    found.end(kill=True)
    assert process.exit_code() == -signal.SIGKILL
    wait_until_gone(child_pid)
    assert not found.alive()
    found.end(kill=True)  # nothing to end any more: no error
    first.forget(process)
    found.close()
    assert Processes(folder, "boot-1").adopt() == []


def test_files_are_for_this_account_alone_and_hold_no_secret(folder: Path) -> None:
    processes = Processes(folder, "boot-1")
    process = processes.spawn(REPLICA, COMMAND, restarts=0)
    try:
        wait_for_line(processes)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        for path in folder.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
            assert b"s3cret" not in path.read_bytes()
    finally:
        process.end(kill=True)
        process.exit_code()
        processes.forget(process)
    assert list(processes.log_tail("rep_1")) == ["hello log"]


def test_settings_and_secrets_of_ours_are_not_for_engines(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIC_SITE_NAME", "x")
    monkeypatch.setenv("SOME_TOKEN", "x")
    processes = Processes(folder, "boot-1")
    process = processes.spawn(REPLICA, COMMAND, restarts=0)
    try:
        environ = host.process_environ(process.pid)
        assert "PATH" in environ
        assert not {"CIC_SITE_NAME", "SOME_TOKEN"} & environ.keys()
    finally:
        process.end(kill=True)
        process.exit_code()
        processes.forget(process)


def test_a_process_that_lost_its_record_is_killed_and_not_doubled(folder: Path) -> None:
    processes = Processes(folder, "boot-1")
    process = processes.spawn(REPLICA, COMMAND, restarts=0)
    child_pid = int(wait_for_line(processes))
    (folder / "rep_1.json").unlink()  # as if the agent had died before it wrote it
    assert Processes(folder, "boot-1").adopt() == []
    assert process.exit_code() == -signal.SIGKILL
    wait_until_gone(child_pid)
    process.close()


def test_what_a_dead_engine_left_behind_is_ended(folder: Path) -> None:
    processes = Processes(folder, "boot-1")
    process = processes.spawn(REPLICA, COMMAND, restarts=0)
    child_pid = int(wait_for_line(processes))
    os.kill(process.pid, signal.SIGKILL)  # the leader alone
    assert process.exit_code() == -signal.SIGKILL
    assert not gone(child_pid)
    processes.forget(process)
    wait_until_gone(child_pid)


@pytest.mark.parametrize("change", ["boot", "start"])
def test_a_stranger_with_the_same_pid_is_not_adopted_and_not_harmed(
    folder: Path, change: str
) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import signal;signal.pause()"])
    try:
        seen = host.process_stat(stranger.pid)
        assert seen is not None
        processes = Processes(folder, "boot-1")
        record = Record(
            replica=REPLICA,
            launch_id="x",
            pid=stranger.pid,
            started_ticks=seen.started_ticks + (1 if change == "start" else 0),
            boot_id="boot-0" if change == "boot" else "boot-1",
            started_ns=1,
            restarts=0,
        )
        (folder / "rep_1.json").write_bytes(b"")  # a torn record is none
        assert processes.adopt() == []
        write_message(folder / "rep_1.json", record)
        assert processes.adopt() == []
        assert not (folder / "rep_1.json").exists()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


async def test_the_end_of_an_adopted_process_is_an_event(folder: Path) -> None:
    process = Processes(folder, "boot-1").spawn(REPLICA, COMMAND, restarts=0)
    (found,) = Processes(folder, "boot-1").adopt()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(found.pidfd, ended.set)
    process.end(kill=False)
    async with asyncio.timeout(WAIT_S):
        await ended.wait()
    asyncio.get_running_loop().remove_reader(found.pidfd)
    assert found.exit_code() is None  # not our child: nobody tells
    process.exit_code()
    found.close()
    process.close()


def test_a_log_is_bounded_and_the_engine_writes_on(folder: Path) -> None:
    processes = Processes(folder, "boot-1")
    path = processes.log_file("rep_1")
    with path.open("ab") as writer:
        writer.write(b"x" * (LOG_BYTES_MAX + 1))
        writer.flush()
        processes.bound_log("rep_1")
        writer.write(b"after\n")
    assert path.read_bytes() == b"after\n"
    assert path.with_suffix(".log.1").stat().st_size == LOG_BYTES_MAX // 2
    processes.bound_log("rep_1")
    assert path.read_bytes() == b"after\n"


def test_the_launch_of_an_engine_is_in_its_environment(folder: Path) -> None:
    processes = Processes(folder, "boot-1")
    process = processes.spawn(REPLICA, COMMAND, restarts=0)
    environ = host.process_environ(process.pid)
    process.end(kill=True)
    process.exit_code()
    processes.forget(process)
    assert environ[LAUNCH_VARIABLE] == process.record.launch_id


def test_what_a_gone_replica_wrote_is_removed_a_week_later(tmp_path: Path) -> None:
    processes = Processes(tmp_path / "engines", host.boot_id())
    folder = tmp_path / "engines"
    (folder / "cache").mkdir()
    for replica_id in ("rep_kept", "rep_gone"):
        (folder / f"{replica_id}.log").write_text("words")
        (folder / f"{replica_id}.files").mkdir()
        (folder / f"{replica_id}.files" / "sglang.yaml").write_text("{}")
    now_s = (folder / "rep_gone.log").stat().st_mtime
    processes.sweep({"rep_kept"}, now_s + 6 * 86_400)
    assert len(list(folder.iterdir())) == 5
    processes.sweep({"rep_kept"}, now_s + 8 * 86_400)
    assert {path.name for path in folder.iterdir()} == {
        *("cache", "rep_kept.log", "rep_kept.files"),
    }
