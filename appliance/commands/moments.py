"""Moments as people type them: `24h` ago, `30d` from now, or ISO 8601."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

import click

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SPAN: Final = re.compile(r"([1-9][0-9]{0,5})([smhdw])")


def span_of(text: str) -> timedelta | None:
    """`30m` -> 30 minutes; None when the text is no span."""
    match = _SPAN.fullmatch(text)
    return None if match is None else timedelta(**{_UNITS[match[2]]: int(match[1])})


class Moment(click.ParamType[str]):
    """A moment as ISO 8601 in UTC. A span counts from now, `direction` -1 back and 1 ahead."""

    name = "TIME"

    def __init__(self, direction: int) -> None:
        self._direction = direction

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        span = span_of(value)
        try:
            if span is not None:
                return _written(datetime.now(UTC) + self._direction * span)
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=UTC)
            return _written(moment.astimezone(UTC))
        # OverflowError: a year that no calendar of Python's has.
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is no time: write 24h, 7d, 30m or 2026-11-22T19:22:03Z.", param, ctx
            )


class Span(click.ParamType[int]):
    """A span in seconds: a number of them, or `30m`, `24h`, `7d`."""

    name = "SPAN"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        span = span_of(value)
        if span is not None:
            return int(span.total_seconds())
        if value in {f"0{unit}" for unit in _UNITS}:
            return 0
        if not (value.isascii() and value.isdecimal()):
            self.fail(f"{value!r} is no span: write 0, 3600, 30m, 24h or 7d.", param, ctx)
        return int(value)


def _written(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
