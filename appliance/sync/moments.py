"""Moments of signed documents, `2026-11-22T19:22:03.250Z`, as nanoseconds since 1970."""

from datetime import UTC, datetime, timedelta
from typing import Final

from appliance.sync.errors import DocumentRefused

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def moment_ns(text: str) -> int:
    """Exact to the microsecond, without a float. Raises DocumentRefused."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise DocumentRefused(
            f"A moment in a signed document is not understood: {text!r}.",
            next_step="Ask the vendor for the document again.",
        ) from error
    if moment.tzinfo is None:
        raise DocumentRefused(
            f"A moment in a signed document has no time zone: {text!r}.",
            next_step="Ask the vendor for the document again.",
        )
    return (moment - _EPOCH) // _MICROSECOND * 1_000
