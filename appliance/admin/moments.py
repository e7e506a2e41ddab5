"""Moments in time as requests write them."""

from datetime import UTC, datetime
from typing import Final

from appliance.admin.errors import BadRequest

_LAST_NS: Final = 2**63 - 1  # what SQLite holds; 2262-04-11


def parse_moment(text: str, field: str) -> int:
    """ISO 8601 to nanoseconds since 1970. A moment without an offset is UTC.

    Raises BadRequest naming the field.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadRequest(
            f"{field}: {text!r} is not a moment in time.",
            next_step="Write it as 2026-11-22T19:22:03Z.",
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since_epoch = moment - datetime(1970, 1, 1, tzinfo=UTC)
    seconds = since_epoch.days * 86_400 + since_epoch.seconds
    moment_ns = seconds * 1_000_000_000 + since_epoch.microseconds * 1_000
    if not 0 <= moment_ns <= _LAST_NS:
        raise BadRequest(
            f"{field}: {text!r} is before 1970 or after 2262.", next_step="Give another year."
        )
    return moment_ns
