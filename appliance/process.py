"""What the serving process asks of its system and its interpreter, and where it says it serves."""

import gc
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from appliance.wire.home import Home


def prepare() -> None:
    """Before the first part is made, while the process has one thread."""
    _allow_open_files()
    _tune_interpreter()
    # A core file would be prompts and keys on disk. The agent and its engines inherit this.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _allow_open_files() -> None:
    """As many sockets as the system lets us have; a shell's usual 1,024 is for a person."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _tune_interpreter() -> None:
    """Fewer interruptions of the event loop: together about 5% of a request's CPU time.

    - What was loaded so far lives as long as the process: the collector need not look at it again,
      nor as often as for a program that makes cycles.
    - The ledger's thread gets its turn whenever the loop waits or writes to a socket; taking the
      turn from it every 5 ms only costs switches.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    sys.setswitchinterval(0.02)


@contextmanager
def announced(home: Home, endpoint: str) -> Iterator[None]:
    """Say where the endpoint is, on standard output and in the home, for as long as it answers."""
    home.endpoint_file.write_text(endpoint + "\n")
    sys.stdout.write(f"ready {endpoint}\n")
    sys.stdout.flush()
    try:
        yield
    finally:
        home.endpoint_file.unlink(missing_ok=True)
