"""The vendor's side on this machine: a control plane and a Stripe double, as processes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

START_S = 30.0
STOP_S = 30.0
POLL_S = 0.05


class VendorFailure(AssertionError):
    """A command or a process of the vendor's side did not do what the story needs."""


def _stop(process: subprocess.Popen[Any]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def stripe_double(folder: Path) -> Iterator[dict[str, str]]:
    """What the double tells of itself: url, api_key, webhook_secret."""
    with (folder / "stripe.stderr").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.stripe", "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        assert process.stdout is not None
        with process.stdout:
            line = process.stdout.readline()
        if not line:
            raise VendorFailure((folder / "stripe.stderr").read_text())
        yield json.loads(line)
    finally:
        _stop(process)


class ControlPlane:
    """One home of `cic control-plane`, and the process that serves it."""

    def __init__(self, folder: Path, stripe: dict[str, str]) -> None:
        self.folder = folder
        self.home = folder / "control-plane"
        self.url = ""
        self._stripe = stripe
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "appliance.cli", "control-plane", "--home", str(self.home)]

    @property
    def environ(self) -> dict[str, str]:
        rest = {name: text for name, text in os.environ.items() if not name.startswith("CIC")}
        return {
            **rest,
            "CICP_STRIPE_API_KEY": self._stripe["api_key"],
            "CICP_STRIPE_API_BASE": self._stripe["url"],
            "CICP_STRIPE_WEBHOOK_SECRET": self._stripe["webhook_secret"],
        }

    def run(self, *arguments: str, ok: tuple[int, ...] = (0,)) -> str:
        done = subprocess.run(
            [*self.command, *arguments],
            capture_output=True,
            text=True,
            env=self.environ,
            timeout=120,
            check=False,
        )
        if done.returncode not in ok:
            raise VendorFailure(f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def json(self, *arguments: str, ok: tuple[int, ...] = (0,)) -> Any:
        printed = self.run("--json", *arguments, ok=ok)
        return json.loads(printed) if printed.strip() else None

    def start(self) -> None:
        out, errors = self.folder / "control-plane.stdout", self.folder / "control-plane.stderr"
        with out.open("wb") as stdout, errors.open("ab") as stderr:
            self._process = subprocess.Popen(
                [*self.command, "serve"],
                stdout=stdout,
                stderr=stderr,
                env={**self.environ, "CICP_LISTEN_ADDRESS": "127.0.0.1:0"},
                start_new_session=True,
            )
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            ready = [line for line in out.read_text().splitlines() if line.startswith("ready ")]
            if ready:
                self.url = ready[0].split()[1]
                return
            if self._process.poll() is not None:
                break
            time.sleep(POLL_S)
        raise VendorFailure(f"the control plane did not start\n{errors.read_text()[-3000:]}")

    def stop(self) -> None:
        if self._process is not None:
            _stop(self._process)
            self._process = None
