"""The `cic` command in another year: the wall clock of the whole program is moved.

    python -m tests.integration.years.moved

One process that has loaded everything and forks a child for each line of JSON on its input,
{"argv": […], "environ": {…}, "shift_ns": N, "stdout": FILE, "stderr": FILE}. It answers with
{"code", "seconds", "rss_bytes"} once that child has ended. A fork saves the second that loading the
programs takes; what runs in the child is the program itself. The product has one clock for the time
of day (`SystemClock`), and knows nothing of this.
"""

import importlib
import json
import os
import pkgutil
import sys
import time
from typing import Any

import appliance
from appliance.cli import main
from appliance.domain.clock import SystemClock


class MovedClock:
    """The machine's clock, moved by so many nanoseconds."""

    def __init__(self, shift_ns: int) -> None:
        self.shift_ns = shift_ns

    def wall_ns(self) -> int:
        return time.time_ns() + self.shift_ns

    def monotonic_s(self) -> float:
        return time.monotonic()


def _child(order: dict[str, Any]) -> None:
    """Become the program. Does not return."""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(order[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(order["environ"])
    time.tzset()
    moved = MovedClock(order["shift_ns"])
    SystemClock.wall_ns = lambda _self: moved.wall_ns()  # type: ignore[method-assign]  # the test's
    sys.argv = ["cic", *order["argv"]]
    code = 1
    try:
        code = int(main())
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001 - whatever it is belongs into what the command said
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve() -> None:
    """One command after the other, until the input ends."""
    for line in sys.stdin:
        begun_s = time.monotonic()
        pid = os.fork()
        if pid == 0:
            _child(json.loads(line))
        _, status, used = os.wait4(pid, 0)
        told = {
            "code": os.waitstatus_to_exitcode(status),
            "seconds": time.monotonic() - begun_s,
            "rss_bytes": used.ru_maxrss * 1024,
        }
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    for module in pkgutil.walk_packages(appliance.__path__, "appliance."):
        importlib.import_module(module.name)
    serve()
