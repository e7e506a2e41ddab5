"""Starts the real programs with fault points: a process that is told to kills itself with SIGKILL.

    python -m tests.integration.conservation.launcher ARMED SHIFT

One process that has loaded everything and forks a child for each line of JSON on its input,
{"argv": […], "log": FILE, "points": "site" | "control" | "", "naive": NAME | ""}. It answers with
{"pid": N}, and with {"pid": N, "status": S} once that child has ended. A fork saves the second that
loading the programs takes; what runs in the child is the program itself, from `appliance.cli` on.

ARMED is a file of 64 bytes that the children share: which point kills, and at which hit. SHIFT is
a file of 8 bytes: how many seconds the wall clock of every child is ahead. The product knows of
neither: points are functions of it that are wrapped here, before it runs.
"""

import functools
import importlib
import inspect
import json
import mmap
import os
import pkgutil
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import appliance
from appliance.controlplane.payments import stripe_billing
from appliance.domain.clock import SystemClock
from tests.integration.conservation.naive import NAIVE
from tests.integration.conservation.points import POINTS, Point

ARMED_BYTES = 64


class Armed:
    """The shared memory: the number of hits that are left, and the name of the point."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(ARMED_BYTES))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), ARMED_BYTES)

    def arm(self, name: str, hit: int) -> None:
        encoded = name.encode()
        assert len(encoded) < ARMED_BYTES
        self._memory[1:ARMED_BYTES] = encoded.ljust(ARMED_BYTES - 1, b"\0")
        self._memory[0] = hit

    def disarm(self) -> None:
        self._memory[0] = 0

    def hit(self, name: bytes) -> None:
        """Die when it is this point's turn."""
        left = self._memory[0]
        if left and self._memory[1 : 2 + len(name)] == name + b"\0":
            self._memory[0] = left - 1
            if left == 1:
                os.kill(os.getpid(), signal.SIGKILL)


class Shift:
    """How far the wall clock of the programs is ahead, in seconds."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(8))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 8)

    @property
    def seconds(self) -> int:
        found: int = struct.unpack("<q", self._memory[:8])[0]
        return found

    @seconds.setter
    def seconds(self, value: int) -> None:
        self._memory[:8] = struct.pack("<q", value)


def wrapped(function: Callable[..., Any], point: str, armed: Armed) -> Callable[..., Any]:
    """The function with a point before and one after it; also for coroutines."""
    before, after = f"{point} before".encode(), f"{point} after".encode()
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def later(*args: Any, **kwargs: Any) -> Any:
            armed.hit(before)
            result = await function(*args, **kwargs)
            armed.hit(after)
            return result

        return later

    @functools.wraps(function)
    def now(*args: Any, **kwargs: Any) -> Any:
        armed.hit(before)
        result = function(*args, **kwargs)
        armed.hit(after)
        return result

    return now


def place(point: Point) -> tuple[Any, str, Any]:
    """Where a point is: what holds the attribute, its name, and what it is now."""
    module, _, path = point.where.partition(":")
    holder: Any = importlib.import_module(module)
    *parts, name = path.split(".")
    for part in parts:
        holder = getattr(holder, part)
    return holder, name, inspect.getattr_static(holder, name)


def install(program: str, armed: Armed) -> None:
    for point in POINTS:
        if point.program == program:
            holder, name, found = place(point)
            if isinstance(found, staticmethod | classmethod):
                kind = type(found)
                setattr(holder, name, kind(wrapped(found.__func__, point.name, armed)))
            else:
                setattr(holder, name, wrapped(found, point.name, armed))


def quicken() -> None:
    """Billing pauses for moments instead of seconds: the wall clock is moved, not waited for."""
    stripe_billing.PAUSE_S = 0.05  # type: ignore[misc]
    defaults = stripe_billing.StripeBilling.__init__.__kwdefaults__
    defaults["late_quiet_s"] = 0


def _child(order: dict[str, Any], armed: Armed, shift: Shift) -> None:
    """Become the program. Does not return."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    SystemClock.wall_ns = lambda _self: (  # type: ignore[method-assign]  # the test's own time
        time.time_ns() + shift.seconds * 1_000_000_000
    )
    sys.argv = ["cic", *order["argv"]]
    status = 1
    try:
        quicken()
        if order["points"]:
            install(order["points"], armed)
        if order["naive"]:
            NAIVE[order["naive"]]()
        from appliance.cli import main  # noqa: PLC0415 - after the points are in place

        status = int(main())
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001 - whatever it is belongs into the child's log
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def serve(armed: Armed, shift: Shift) -> None:
    """Fork a child for each order; tell of its end."""
    wake, waker = socket.socketpair()
    wake.setblocking(False)
    waker.setblocking(False)
    signal.set_wakeup_fd(waker.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ)
    selector.register(wake, selectors.EVENT_READ)
    while True:
        ready = {key.fileobj for key, _ in selector.select()}
        if wake in ready:
            wake.recv(4096)
            _reap()
        if sys.stdin in ready:
            line = sys.stdin.readline()
            if not line:
                return
            pid = os.fork()
            if pid == 0:
                wake.close()
                waker.close()
                _child(json.loads(line), armed, shift)
            _say({"pid": pid})


def _reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _say({"pid": pid, "status": os.waitstatus_to_exitcode(status)})


def _say(what: dict[str, int]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.stdin = os.fdopen(0, "r", buffering=1)
    for module in pkgutil.walk_packages(appliance.__path__, "appliance."):
        importlib.import_module(module.name)
    serve(Armed(Path(sys.argv[1])), Shift(Path(sys.argv[2])))
