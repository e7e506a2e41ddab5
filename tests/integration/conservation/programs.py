"""The processes of a run, as the test sees them: started through the launcher, killed by points."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.integration.conservation.launcher import Armed, Shift

ROOT = Path(__file__).parents[3]
LOAD_S = 60.0
END_S = 30.0


class Launcher:
    """The launcher process, and what it said of its children."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self.armed = Armed(folder / "armed")
        self.shift = Shift(folder / "shift")
        self._ended: dict[int, int] = {}
        self._changed = threading.Condition()
        self._pids: queue.Queue[int] = queue.Queue()
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.integration.conservation.launcher"),
                *(str(folder / "armed"), str(folder / "shift")),
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environ},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            if "status" in told:
                with self._changed:
                    self._ended[told["pid"]] = told["status"]
                    self._changed.notify_all()
            else:
                self._pids.put(told["pid"])
        self._pids.put(0)  # it ended: nobody starts anything any more

    def start(self, order: dict[str, Any]) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        pid = self._pids.get(timeout=LOAD_S)
        assert pid, "the launcher ended"
        return pid

    def status(self, pid: int) -> int | None:
        """How a child ended: negative is a signal; None while it runs."""
        with self._changed:
            return self._ended.get(pid)

    def wait(self, pid: int, timeout_s: float = END_S) -> int:
        with self._changed:
            if not self._changed.wait_for(lambda: pid in self._ended, timeout_s):
                raise AssertionError(f"process {pid} did not end within {timeout_s} s")
            return self._ended[pid]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(END_S)
        self._reader.join(END_S)
        if self._process.stdout is not None:
            self._process.stdout.close()


class Program:
    """A program that is started again and again in one place."""

    def __init__(self, launcher: Launcher, points: str, log: Path, *, naive: str = "") -> None:
        self._launcher = launcher
        self._order = {"points": points, "log": str(log), "naive": naive}
        self.points = points
        self.log = log
        self.pid = 0

    def start(self, *argv: str) -> None:
        self.pid = self._launcher.start({**self._order, "argv": list(argv)})

    @property
    def running(self) -> bool:
        return self.pid != 0 and self._launcher.status(self.pid) is None

    def ready_line(self, word: str, begin: int, timeout_s: float = LOAD_S) -> str | None:
        """The line that begins with `word`, after `begin` bytes of log; None if it ended first."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            text = self.log.read_bytes()[begin:].decode(errors="replace")
            for line in text.splitlines(keepends=True):
                if line.startswith(word) and line.endswith("\n"):
                    return line.strip()
            if not self.running:
                return None
            time.sleep(0.01)
        raise AssertionError(f"no line {word!r}\n{self.told()}")

    def kill(self) -> None:
        if self.running:
            os.kill(self.pid, signal.SIGKILL)
            self._launcher.wait(self.pid)

    def stop(self) -> int:
        os.kill(self.pid, signal.SIGTERM)
        return self._launcher.wait(self.pid)

    def told(self) -> str:
        return f"--- {self.log.name}\n{self.log.read_text(errors='replace')[-6_000:]}"
