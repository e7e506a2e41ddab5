"""The real control plane as a process of its own, in a home of its own, on loopback."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_S = 30.0
STOP_S = 30.0


class VendorProcess:
    """`cic control-plane init`, `serve` and whatever else is typed."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "control-plane"
        self.stdout = folder / "control-plane.stdout"
        self.stderr = folder / "control-plane.stderr"
        self.url = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    @property
    def command(self) -> list[str]:
        cic = [sys.executable, "-m", "appliance.cli", "--json"]
        return [*cic, "control-plane", "--home", str(self.home)]

    def cic(self, *arguments: object) -> Any:
        """What the command printed; it must succeed."""
        done = self.run(*arguments)
        assert done.returncode == 0, f"{done.args}: {done.stdout}{done.stderr}"
        return json.loads(done.stdout) if done.stdout.strip() else None

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("CICP_")}
        return subprocess.run(
            [*self.command, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=environ,
        )

    def start(self) -> None:
        """On the port of before, if there was one: sites find it again."""
        listen = f"127.0.0.1:{self._port}"
        with self.stdout.open("wb") as out, self.stderr.open("ab") as err:
            self._process = subprocess.Popen(
                [*self.command, "serve", "--listen", listen],
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_S
        while b"http://" not in self.stdout.read_bytes():
            assert self._process.poll() is None, self.stderr.read_text()
            assert time.monotonic() < deadline, self.stderr.read_text()
            time.sleep(0.05)
        text = self.stdout.read_text()
        self.url = text[text.index("http://") :].split()[0].strip('",}')
        self._port = int(self.url.rpartition(":")[2])

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(STOP_S)
            self._process = None


@contextmanager
def vendor_process(folder: Path) -> Iterator[VendorProcess]:
    """Made, served, and stopped at the end."""
    vendor = VendorProcess(folder)
    assert vendor.run("init").returncode == 0
    vendor.start()
    try:
        yield vendor
    finally:
        vendor.stop()
