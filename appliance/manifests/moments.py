"""Moments and hours as they stand in signed documents, and back.

Everything is UTC, so neither a time zone nor daylight saving can move a line into another hour.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

from appliance.domain.clock import iso
from appliance.manifests.errors import BadDocument

HOUR_NS: Final = 3_600 * 1_000_000_000
MS_NS: Final = 1_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)


def moment(at_ms: int) -> str:
    """`2026-11-22T19:22:03.250Z` of milliseconds since 1970."""
    return iso(at_ms * MS_NS)


def moment_ms(text: str) -> int:
    """Milliseconds since 1970 of a moment in exactly that form. Raises BadDocument."""
    try:
        at_ms = (datetime.fromisoformat(text) - _EPOCH) // _MS
    except (ValueError, TypeError) as error:  # TypeError: there is no time zone
        raise BadDocument(f"{text!r} is no moment.") from error
    if moment(at_ms) != text:
        raise BadDocument(f"{text!r} is not written as moments are.")
    return at_ms


def hour(at_ns: int) -> str:
    """The start of the UTC hour of a moment: `2026-11-22T19:00:00Z`."""
    return f"{iso(at_ns)[:13]}:00:00Z"


def hour_ms(text: str) -> int:
    """Milliseconds since 1970 of the start of an hour in exactly that form. Raises BadDocument."""
    if not text.endswith(":00:00Z"):
        raise BadDocument(f"{text!r} is no hour.")
    return moment_ms(f"{text[:-1]}.000Z")
