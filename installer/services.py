"""Starting and stopping the appliance: by systemd where it runs, else as a child of the installer.

Below a --prefix, in a container and in an image that is being made no systemd runs. There the
appliance is started for as long as the installation needs it, and stopped again.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from installer.errors import StepFailed
from installer.layout import Layout
from installer.product import Product, ProductRefused, wait_until
from installer.programs import ENVIRONMENT, find, must, run

START_S = 60.0
STOP_S = 60.0
AGENT = "crosslogic-agent.service"
_PR_SET_PDEATHSIG = 1  # prctl(2)


class Services(Protocol):
    """The processes of one installation."""

    @property
    def is_systemd(self) -> bool: ...

    def reload(self) -> None:
        """Unit files have changed."""

    def start(self, product: Product) -> None:
        """Returns when the endpoint answers. Raises StepFailed with why it does not."""

    def restart(self, product: Product) -> None:
        """As `start`, of another version."""

    def stop(self) -> None:
        """Streams in flight finish first. Nothing happens when nothing runs."""


def systemd_runs(layout: Layout) -> bool:
    return (
        layout.is_this_system
        and Path("/run/systemd/system").is_dir()
        and find("systemctl") is not None
    )


class SystemdServices:
    """`units` are those that are started, sockets before services."""

    is_systemd = True

    def __init__(self, layout: Layout, units: Sequence[str]) -> None:
        self._layout, self._units = layout, list(units)

    def reload(self) -> None:
        must(["systemctl", "daemon-reload"], next_step="systemctl daemon-reload; journalctl -xe")

    def start(self, product: Product) -> None:
        self._act("start", product)

    def restart(self, product: Product) -> None:
        sockets = [unit for unit in self._units if unit.endswith((".socket", ".timer"))]
        if sockets:
            # Sockets stay open: what connects in between waits instead of being refused.
            self._systemctl("start", sockets)
        rest = [unit for unit in self._units if unit not in sockets]
        self._act("restart", product, [unit for unit in rest if unit != AGENT])
        if AGENT in rest:
            self._hand_over_engines()

    def _hand_over_engines(self) -> None:
        """SIGHUP ends the agent and leaves its engines running for the next one."""
        run(["systemctl", "kill", "--kill-who=main", "--signal=HUP", AGENT])
        wait_until(
            lambda: run(["systemctl", "is-active", "--quiet", AGENT]).code != 0,
            deadline_s=STOP_S,
            clock=time.monotonic,
            sleep=time.sleep,
        )
        self._systemctl("start", [AGENT])

    def stop(self) -> None:
        there = [unit for unit in self._units if (self._layout.units / unit).exists()]
        if there:
            must(
                ["systemctl", "stop", *there],
                next_step="systemctl status crosslogic-gateway; then run this again.",
                deadline_s=STOP_S * 2,
            )

    def _act(self, verb: str, product: Product, units: Sequence[str] | None = None) -> None:
        try:
            self._systemctl(verb, self._units if units is None else units)
        except StepFailed as failed:
            raise StepFailed(
                _last_words() or failed.message, next_step=failed.next_step
            ) from failed
        _wait_for_endpoint(self._layout, product, lambda: None)

    def _systemctl(self, verb: str, units: Sequence[str]) -> None:
        run(["systemctl", "reset-failed", *units])
        must(
            ["systemctl", verb, *units],
            next_step="journalctl -u crosslogic-gateway -u crosslogic-agent -n 50 tells why.",
            deadline_s=START_S + STOP_S,
        )


def _last_words() -> str:
    """What the gateway said before it ended; systemctl only tells that it ended."""
    unit = ["--unit=crosslogic-gateway.service", "--output=cat", "--no-pager", "--lines=20"]
    said = run(["journalctl", *unit, "SYSLOG_IDENTIFIER=cic"]).out.strip().splitlines()
    return f"The gateway does not start: {said[-1]}" if said else ""


class OwnProcess:
    """`cic serve` as a child, which ends with the installer whatever ends that."""

    is_systemd = False

    def __init__(self, layout: Layout, *, with_agent: bool) -> None:
        self._layout, self._with_agent = layout, with_agent
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def _log(self) -> Path:
        return self._layout.logs / "set-up.log"

    def reload(self) -> None:
        pass

    def start(self, product: Product) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        self._wait_for_the_last(product)
        command = [str(product.program), "--home", str(product.home), "serve"]
        command += ["--with-agent"] if self._with_agent else []
        account = product.account
        other = account is not None and account.uid != os.geteuid()
        libc = ctypes.CDLL(None)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=dict(ENVIRONMENT),
                start_new_session=True,
                user=account.uid if account is not None and other else None,
                group=account.gid if account is not None and other else None,
                extra_groups=[] if other else None,
                # Between fork and exec; nothing but one system call happens in it.
                preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0),  # noqa: PLW1509
            )
        _wait_for_endpoint(self._layout, product, self._raise_if_ended)

    def restart(self, product: Product) -> None:
        self.stop()
        self.start(product)

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _raise_if_ended(self) -> None:
        if self._process is None or self._process.poll() is None:
            return
        lines = self._log.read_text(errors="replace").strip().splitlines() or ["nothing"]
        raise StepFailed(
            f"cic serve ended with exit code {self._process.returncode}: {lines[-1]}",
            next_step=f"The whole of it is in {self._log}.",
        )

    def _wait_for_the_last(self, product: Product) -> None:
        """One that an installer left which was killed ends by itself; somebody else's does not."""
        if not (self._layout.run / "endpoint").exists():
            return
        if wait_until(
            lambda: not _answers(product), deadline_s=10, clock=time.monotonic, sleep=time.sleep
        ):
            with contextlib.suppress(FileNotFoundError):
                (self._layout.run / "endpoint").unlink()  # left by one that was killed
            return
        raise StepFailed(
            "The appliance runs already, and systemd does not manage it here.",
            next_step="Stop the `cic serve` of this system, then run this again.",
        )


def _answers(product: Product) -> bool:
    try:
        product.ask("status")
    except ProductRefused:
        return False
    return True


class _Ended(Protocol):
    def __call__(self) -> None:
        """Raises StepFailed when what is waited for has ended."""


def _wait_for_endpoint(layout: Layout, product: Product, ended: _Ended) -> None:
    """Until the endpoint's file is there and the appliance answers."""

    def up() -> bool:
        ended()
        return (layout.run / "endpoint").exists() and _answers(product)

    if not wait_until(up, deadline_s=START_S, clock=time.monotonic, sleep=time.sleep, every_s=0.05):
        raise StepFailed(
            f"The appliance was started and did not answer within {START_S:.0f} s.",
            next_step=f"journalctl -u crosslogic-gateway -n 50, or {layout.logs}, tells why.",
        )
