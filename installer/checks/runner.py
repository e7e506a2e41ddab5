"""Runs checks at the same time; what hangs or fails becomes a finding and never ends the run."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from installer.checks.catalogue import CHECKS
from installer.checks.findings import Check, Finding, Verdict, Wanted, finding, unknown
from installer.checks.host import Host

DEADLINE_S = 4.0
_HANGS = "journalctl -k -p err; what hangs often hangs for its device: look at it, then reboot"
_FAILS = "run it again as root; look at the file or program that is named, and send this report"


def run_checks(
    host: Host,
    wanted: Wanted,
    checks: Sequence[Check] | None = None,
    *,
    deadline_s: float = DEADLINE_S,
) -> list[Finding]:
    """One finding for each check, in their order, within the deadline.

    Each check has a daemon thread: a program that hangs in the kernel cannot be ended, and must
    hold up neither the other checks nor the end of this process.
    """
    asked = checks if checks is not None else [one for one in CHECKS if wanted.role in one.roles]
    verdicts: dict[str, Verdict] = {}

    def ask(one: Check) -> None:
        verdicts[one.id] = _decided(one, host, wanted)

    threads = [threading.Thread(target=ask, args=(one,), daemon=True) for one in asked]
    ends_at = time.monotonic() + deadline_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, ends_at - time.monotonic()))
    return [finding(one, verdicts.get(one.id) or _no_answer()) for one in asked]


def _no_answer() -> Verdict:
    return unknown("no answer in time: the system hangs there", _HANGS)


def _decided(one: Check, host: Host, wanted: Wanted) -> Verdict:
    """What the check decides. Messages of errors are not shown: they may hold anything."""
    try:
        return one.decide(host, wanted)
    except PermissionError:
        return unknown("run as root to see", "run it again with sudo")
    except TimeoutError:
        return _no_answer()
    except FileNotFoundError:
        return unknown("what it looks at is not there", _FAILS)
    except Exception as error:  # noqa: BLE001 (one check that fails must not end the others)
        return unknown(f"the check failed ({type(error).__name__})", _FAILS)
