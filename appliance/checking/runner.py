"""Runs checks side by side, each with its deadline, and tells each result when it is there."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Final

from appliance.admin.errors import ChecksRunning
from appliance.checking.findings import Check, Finding, span
from appliance.domain.clock import Clock
from appliance.domain.errors import CrossLogicError
from appliance.wire.checks import CheckResult

log = logging.getLogger(__name__)

_AT_ONCE: Final = 6
_Told = tuple[Check, Sequence[Finding], int]


class Checks:
    """The checks of a site. One run at a time: engines and disks are asked for real work."""

    def __init__(self, checks: Sequence[Check], clock: Clock) -> None:
        self._checks = checks
        self._clock = clock
        self._busy = False

    async def run(self, only: str = "") -> AsyncIterator[CheckResult]:
        """Results as they are done. Raises ChecksRunning while another run goes on."""
        wanted = [check for check in self._checks if check.name.startswith(only)]
        if self._busy:
            raise ChecksRunning(
                "The health checks run for somebody else.", next_step="Try again in a minute."
            )
        self._busy = True
        told: asyncio.Queue[_Told] = asyncio.Queue()
        room = asyncio.Semaphore(_AT_ONCE)
        tasks = [asyncio.ensure_future(self._look(check, room, told)) for check in wanted]
        try:
            number, total = 0, len(wanted)
            for _ in wanted:
                check, findings, took_ms = await told.get()
                total += len(findings) - 1
                for found in findings:
                    number += 1
                    yield _result(check, found, took_ms, number, total)
        finally:
            self._busy = False
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(
        self, check: Check, room: asyncio.Semaphore, told: asyncio.Queue[_Told]
    ) -> None:
        async with room:
            began_s = self._clock.monotonic_s()
            findings = await _found(check)
            took_ms = round((self._clock.monotonic_s() - began_s) * 1_000)
            told.put_nowait((check, findings, took_ms))


async def _found(check: Check) -> Sequence[Finding]:
    try:
        async with asyncio.timeout(check.deadline_s):
            found = await check.look()
    except TimeoutError:
        late = f"It did not end within {span(check.deadline_s)}."
        return [Finding("failed", late, "Look at what hangs: a disk, or a machine without time.")]
    except CrossLogicError as error:
        return [Finding("failed", error.message, error.next_step)]
    except OSError as error:
        return [
            Finding("failed", f"{error.strerror or error}: {error.filename or ''}".rstrip(": "))
        ]
    # The supervision of a check: a defect in one must not hide what the others find.
    except Exception as error:
        log.exception("check failed", extra={"check": check.name})
        return [
            Finding("failed", f"The check itself failed: {type(error).__name__}.", "See the log.")
        ]
    return found or [Finding("skipped", "There is nothing to check.")]


def _result(check: Check, found: Finding, took_ms: int, number: int, total: int) -> CheckResult:
    return CheckResult(
        name=check.name,
        subject=found.subject,
        outcome=found.outcome,
        seen=found.seen,
        why=check.why,
        fix=found.fix,
        took_ms=took_ms,
        number=number,
        total=total,
    )
