"""What is kept of an engine that hung."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.dumps import harmless, take
from agent.processes import Command, Processes
from appliance.wire.engine_traces import LOG_LINES_MAX
from tests.unit.agent.test_processes import REPLICA
from tests.unit.agent.test_shared_memory import FIT


def test_all_its_processes_are_looked_at_with_where_they_stand() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        time.sleep(0.2)
        dump = take("rep_1", child.pid, [child.pid, os.getpid()], "It hangs.", ["a line"], 5)
    finally:
        child.kill()
        child.wait()
    assert (dump.replica_id, dump.reason, dump.at_ns, dump.log) == (
        *("rep_1", "It hangs.", 5),
        ("a line",),
    )
    (seen,) = (process for process in dump.processes if process.pid == child.pid)
    assert seen.name.startswith("python")
    assert seen.memory_bytes is not None
    assert seen.memory_bytes > 1_000_000
    assert seen.threads[0].tid == child.pid
    assert seen.threads[0].state == "S"


def test_processes_that_are_gone_are_left_out() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert take("rep_1", child.pid, [], "x", [], 0).processes == ()


def test_lines_that_may_quote_a_request_or_a_key_are_left_out() -> None:
    secret = "the patient's name"
    lines = [
        "INFO serving",
        f"INFO Received request chatcmpl-1: prompt: '{secret}', params: SamplingParams()",
        f'{{"messages": [{{"role": "user", "content": "{secret}"}}]}}',
        f"prompt_token_ids: [1, 2], {secret}",
        "Authorization: Bearer abc123 api_key=abc123",
        *["x" * 10_000] * 300,
    ]
    kept = harmless(lines)
    assert len(kept) == LOG_LINES_MAX
    assert all(len(line) <= 400 for line in kept)
    kept = harmless(lines[:5])
    assert kept[0] == "INFO serving"
    assert secret not in "".join(kept)
    assert "abc123" not in "".join(kept)


def test_the_latest_is_kept_for_this_account_alone(tmp_path: Path) -> None:
    processes = Processes(tmp_path / "engines", "boot-1")
    assert processes.last_dump("rep_1") is None
    for reason in ("first", "second"):
        processes.keep_dump(take("rep_1", os.getpid(), [], reason, [], 0))
    kept = processes.last_dump("rep_1")
    assert kept is not None
    assert kept.reason == "second"
    for path in (tmp_path / "engines").iterdir():
        assert path.stat().st_mode & 0o077 == 0


def test_a_log_of_an_earlier_run_is_not_this_runs(tmp_path: Path) -> None:
    processes = Processes(tmp_path / "engines", "boot-1")
    for word in ("first", "second"):
        command = Command((sys.executable, "-c", f"import sys; sys.stderr.write('{word}\\n')"), {})
        process = processes.spawn(REPLICA, command, restarts=0)
        process.exit_code()
        processes.forget(process)
    assert list(processes.log_tail("rep_1")) == ["second"]
    assert "first" in processes.log_file("rep_1").read_text()


def test_a_full_disk_costs_the_note_and_not_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = Processes(tmp_path / "engines", "boot-1")
    command = Command((sys.executable, "-c", "import signal; signal.pause()"), {})
    process = processes.spawn(REPLICA, command, restarts=0)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("agent.processes.write_message", full)
    processes.note(process, FIT)
    assert process.record.fitness == FIT
    assert process.alive()
    monkeypatch.undo()
    (found,) = Processes(tmp_path / "engines", "boot-1").adopt()
    found.close()
    process.end(kill=True)
    process.exit_code()
    processes.forget(process)
