"""When a subscription's periods begin and end.

Source: page "Set the subscription billing renewal date" of the documentation: periods count from
the anchor; a month without its day ends on its last day.
"""

import calendar
from datetime import UTC, datetime, timedelta
from typing import Any


def _moment(moment_s: int) -> datetime:
    return datetime.fromtimestamp(moment_s, UTC)


def _months_on(start: datetime, months: int) -> datetime:
    index = start.year * 12 + start.month - 1 + months
    year, month = divmod(index, 12)
    day = min(start.day, calendar.monthrange(year, month + 1)[1])
    return start.replace(year=year, month=month + 1, day=day)


def anchor_plus(anchor_s: int, interval: str, count: int) -> int:
    """The anchor moved by `count` intervals."""
    anchor = _moment(anchor_s)
    match interval:
        case "day":
            moved = anchor + timedelta(days=count)
        case "week":
            moved = anchor + timedelta(weeks=count)
        case "month":
            moved = _months_on(anchor, count)
        case _:
            moved = _months_on(anchor, 12 * count)
    return int(moved.timestamp())


def period_end(anchor_s: int, interval: str, interval_count: int, start_s: int) -> int:
    """The first end of a period after `start_s`."""
    if anchor_s > start_s:
        return anchor_s
    number = 1
    while (end := anchor_plus(anchor_s, interval, number * interval_count)) <= start_s:
        number += 1
    return end


def configured_anchor(config: dict[str, Any], start_s: int) -> int:
    """The first moment from `start_s` on that `billing_cycle_anchor_config` describes."""
    start = _moment(start_s)
    for months in range(14):
        first = _months_on(start.replace(day=1), months)
        if config.get("month") is not None and first.month != config["month"]:
            continue
        last_day = calendar.monthrange(first.year, first.month)[1]
        found = first.replace(
            day=min(config["day_of_month"], last_day),
            hour=config.get("hour", start.hour),
            minute=config.get("minute", start.minute),
            second=config.get("second", start.second),
        )
        if found >= start:
            return int(found.timestamp())
    return start_s
