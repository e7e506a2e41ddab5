"""What becomes of a row of the outbox: sent as a meter event, billed late, looked up, or held.

Pure: facts and a moment in, a decision out. Facts of Stripe:

- A meter event's timestamp lies within the past 35 days and at most 5 minutes ahead; an identifier
  is unique for at least 24 hours; a value has at most 15 digits ("Create a billing meter event",
  "Record usage for billing with the API").
- A subscription item bills usage from its creation on ("Manage your usage-based billing setup").
- Sums lag behind events ("Meter event summary": eventually consistent).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import combinations
from typing import Final

HOUR_S: Final = 3_600
DAY_S: Final = 86_400
LATE_AFTER_S: Final = 34 * DAY_S  # a day before Stripe's own edge of 35 days
AHEAD_MAX_S: Final = 300
RESEND_WITHIN_S: Final = 12 * HOUR_S  # half of the time an identifier is sure to be unique
SETTLED_AFTER_S: Final = HOUR_S  # of the last attempt, before a sum is believed
SAME_FOR_S: Final = 600  # how long a sum must have stayed the same
GIVE_UP_AFTER_S: Final = 3 * DAY_S  # a sum that does not fit for so long needs a person
VALUE_MAX: Final = 10**15 - 1
DOUBTFUL_MAX: Final = 12  # rows of one hour whose combinations are tried


class Fate(Enum):
    """What can become of usage of an hour that Stripe does not have yet."""

    METERED = "metered"
    LATE = "late"
    WAIT = "wait"


class PeriodState(Enum):
    """The invoice that an hour's usage would be on."""

    OPEN = "open"  # still running, or a draft with time left
    FINAL = "final"
    UNKNOWN = "unknown"  # over, and its invoice is not there yet


@dataclass(frozen=True, slots=True)
class HourFate:
    fate: Fate
    timestamp_s: int  # for a meter event, inside the hour
    reason: str


def hour_fate(hour_s: int, covered_from_s: int, period: PeriodState, now_s: int) -> HourFate:
    """How usage of that hour reaches an invoice, if none of it has reached Stripe.

    `covered_from_s` is the moment from which the subscription item bills usage. No usage is ever
    given another hour than its own.
    """
    timestamp_s = max(hour_s, covered_from_s)
    if timestamp_s >= hour_s + HOUR_S:
        return HourFate(Fate.LATE, timestamp_s, "before the subscription began to bill this meter")
    if now_s - timestamp_s >= LATE_AFTER_S:
        return HourFate(Fate.LATE, timestamp_s, "34 days old or more: Stripe takes events to 35")
    if period is PeriodState.FINAL:
        return HourFate(Fate.LATE, timestamp_s, "the invoice of its period is final")
    if timestamp_s > now_s + AHEAD_MAX_S:
        return HourFate(Fate.WAIT, timestamp_s, "its hour has not begun")
    if period is PeriodState.UNKNOWN:
        return HourFate(Fate.WAIT, timestamp_s, "the invoice of its period is not there yet")
    return HourFate(Fate.METERED, timestamp_s, "")


class Step(Enum):
    SEND = "send"
    BILL_LATE = "bill late"
    LOOK_UP = "look up"  # read Stripe's sum of the hour before anything else
    WAIT = "wait"


def next_step(fate: Fate, doubt_since_s: int | None, *, suspect: bool, now_s: int) -> Step:
    """`doubt_since_s`: the first attempt that may have arrived, None when none may have.

    - Nothing in doubt: as the hour's fate says.
    - In doubt for less than 12 hours and still to be metered: again, with the same identifier;
      should it be there, Stripe says so.
    - Else its presence is looked up first: Stripe may have forgotten the identifier, or would
      take an event that no invoice will ever count.
    """
    if suspect:
        return Step.LOOK_UP
    if doubt_since_s is None:
        return {Fate.METERED: Step.SEND, Fate.LATE: Step.BILL_LATE, Fate.WAIT: Step.WAIT}[fate]
    if fate is Fate.METERED and now_s - doubt_since_s < RESEND_WITHIN_S:
        return Step.SEND
    return Step.LOOK_UP


@dataclass(frozen=True, slots=True)
class Doubtful:
    row_id: str
    quantity: int


@dataclass(frozen=True, slots=True)
class Sum:
    """Stripe's sum of one customer, meter and hour, and since when it has read the same."""

    quantity: int
    same_since_s: int
    read_at_s: int


class Presence(Enum):
    KNOWN = "known"
    NOT_YET = "not yet"
    UNDECIDABLE = "undecidable"


@dataclass(frozen=True, slots=True)
class Verdict:
    presence: Presence
    arrived: frozenset[str] = frozenset()  # ids of the rows that Stripe has
    reason: str = ""


def verdict(
    sum_: Sum, accepted: int, doubtful: Sequence[Doubtful], last_attempt_s: int, now_s: int
) -> Verdict:
    """Which rows in doubt are part of Stripe's sum: all, none, or the one set that fits.

    `accepted` is the quantity Stripe certainly took for the hour, `last_attempt_s` the newest
    attempt of any row of it. A sum is believed when it is older than the lag and stood still.
    """
    settled = (
        sum_.read_at_s - last_attempt_s >= SETTLED_AFTER_S
        and sum_.read_at_s - sum_.same_since_s >= SAME_FOR_S
    )
    if not settled:
        return Verdict(Presence.NOT_YET, reason="Stripe's sums lag; waiting for this one to settle")
    beyond = sum_.quantity - accepted
    fitting = _fitting(beyond, doubtful)
    if len(fitting) == 1:
        return Verdict(Presence.KNOWN, arrived=fitting[0])
    if now_s - last_attempt_s < GIVE_UP_AFTER_S and not fitting:
        return Verdict(Presence.NOT_YET, reason=_misfit(sum_.quantity, accepted, doubtful))
    return Verdict(Presence.UNDECIDABLE, reason=_misfit(sum_.quantity, accepted, doubtful))


def _fitting(beyond: int, doubtful: Sequence[Doubtful]) -> list[frozenset[str]]:
    """The sets of rows whose quantities add up to what Stripe has beyond the accepted ones."""
    if len(doubtful) > DOUBTFUL_MAX:
        whole = [(), tuple(doubtful)]
        sets = [some for some in whole if sum(row.quantity for row in some) == beyond]
    else:
        sets = [
            some
            for count in range(len(doubtful) + 1)
            for some in combinations(doubtful, count)
            if sum(row.quantity for row in some) == beyond
        ]
    return [frozenset(row.row_id for row in some) for some in sets]


def _misfit(stripe: int, accepted: int, doubtful: Sequence[Doubtful]) -> str:
    return (
        f"Stripe counts {stripe} tokens, {accepted} are accepted and {len(doubtful)} rows of "
        f"{sum(row.quantity for row in doubtful)} are in doubt: it cannot be told which arrived"
    )


def pieces(quantity: int) -> list[int]:
    """A quantity in values that one meter event can carry."""
    whole, rest = divmod(quantity, VALUE_MAX)
    return [VALUE_MAX] * whole + ([rest] if rest else [])


def back_off_s(failures: int, jitter: int) -> int:
    """Seconds to wait after so many failures in a row: 1, 2, 4 … 300, of which half is by chance.

    `jitter` is any number, so that many lanes do not return at the same moment.
    """
    longest = min(300, 1 << min(failures, 9))
    return longest // 2 + 1 + jitter % (longest // 2 + 1)
