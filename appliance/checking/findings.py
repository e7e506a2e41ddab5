"""What a check is, and what it finds."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from appliance.wire.checks import CheckOutcome

T = TypeVar("T")

DEADLINE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What was seen, with figures, and what to do where something is to be done."""

    outcome: CheckOutcome
    seen: str
    fix: str = ""
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """`why` says why it matters. `look` returns one finding for each subject."""

    name: str
    why: str
    look: Callable[[], Awaitable[Sequence[Finding]]]
    deadline_s: float = DEADLINE_S


def good(seen: str, subject: str = "") -> Finding:
    return Finding("ok", seen, subject=subject)


async def aside(work: Callable[[], T]) -> T:
    """Run what blocks in a thread of its own, which nobody waits for when a disk hangs."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)  # type: ignore[arg-type]  # of type T where nothing was raised
        else:
            future.set_exception(error)

    def run() -> None:
        try:
            result, error = work(), None
        # Whoever waits gets it; a thread has nobody else to tell.
        except BaseException as raised:  # noqa: BLE001
            result, error = None, raised
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, result, error)

    threading.Thread(target=run, name="health check", daemon=True).start()
    return await future


def count(number: int, noun: str) -> str:
    """`1 node`, `3 nodes`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size(count_bytes: float) -> str:
    """`12.3 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count_bytes) < 1024:
            return f"{count_bytes:.0f} {unit}" if unit == "B" else f"{count_bytes:.1f} {unit}"
        count_bytes /= 1024
    return f"{count_bytes:.1f} TiB"


def span(seconds: float) -> str:
    """`350 ms`, `4.2 s`, `3 min`, `5 h`, `12 d`."""
    if seconds < 1:
        return f"{seconds * 1_000:.1f} ms"
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.1f} s"
