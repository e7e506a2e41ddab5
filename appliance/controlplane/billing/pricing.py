"""What usage costs: pure, exact, and rounded once.

- The price of an hour is the newest of its model, kind and plan whose `since` is not after the
  hour; a model without one takes the price of "*". A price of the model that begins later does not
  hide that of "*" before it.
- The multiplier is the newest of the region, in whatever case it is written, else of "*".
- An amount is quantity x price x multiplier in whole numbers, rounded to a micro, half to even,
  once, at the row of the outbox.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, NamedTuple, TypeVar

K = TypeVar("K")

ANY: Final = "*"
FREE_PLAN: Final = "free"  # the plan whose serverless usage has a monthly allowance
SERVERLESS: Final = "serverless"  # price classes, as the lines name them
RESERVED: Final = "reserved"
HOUR_S: Final = 3_600
NEUTRAL_BP: Final = 10_000
_DIVISOR: Final = 1_000_000 * NEUTRAL_BP


class Kind(StrEnum):
    """What is priced apart. Input is what was not read from a cache."""

    INPUT = "input"
    CACHED = "cached"
    OUTPUT = "output"


class Tokens(NamedTuple):
    """Quantities by kind, in the order of `Kind`."""

    input: int = 0
    cached: int = 0
    output: int = 0

    @property
    def total(self) -> int:
        return self.input + self.cached + self.output

    def minus(self, other: "Tokens") -> "Tokens":
        return Tokens(
            self.input - other.input, self.cached - other.cached, self.output - other.output
        )

    def kinds(self) -> list[tuple[Kind, int]]:
        """The kinds of which there are any."""
        return [(kind, count) for kind, count in zip(Kind, self, strict=True) if count]


def first_of(tokens: Tokens, allowance: int) -> Tokens:
    """As much of `tokens` as the allowance covers: input first, then cached, then output."""
    left = max(0, allowance)
    taken = []
    for count in tokens:
        part = min(count, left)
        taken.append(part)
        left -= part
    return Tokens(*taken)


@dataclass(frozen=True, slots=True)
class Rate:
    """The price of one hour: micros of the currency for a million tokens, and the region's part."""

    micros_per_million: int
    multiplier_bp: int


def amount_micros(quantity: int, rate: Rate) -> int:
    """Half to even at the half micro. Quantities may be negative: of a correction."""
    exact = quantity * rate.micros_per_million * rate.multiplier_bp
    whole, rest = divmod(exact, _DIVISOR)
    half = rest * 2 - _DIVISOR
    return whole + (half > 0 or (half == 0 and whole % 2 == 1))


def meter_key(kind: str, model: str, region: str, plan: str) -> str:
    """Our name of a meter. Only a model's name has slashes, so it can be taken apart again."""
    return f"{kind}/{model}/{region}/{plan}"


def month_start_s(moment_s: int) -> int:
    """The first second of the UTC month of a moment."""
    moment = datetime.fromtimestamp(moment_s, UTC)
    return int(moment.replace(day=1, hour=0, minute=0, second=0).timestamp())


def next_month_s(moment_s: int) -> int:
    """The first second of the UTC month after that of a moment."""
    moment = datetime.fromtimestamp(month_start_s(moment_s), UTC)
    year, month = (moment.year + 1, 1) if moment.month == 12 else (moment.year, moment.month + 1)
    return int(moment.replace(year=year, month=month).timestamp())


class History:
    """A value that changed at known hours."""

    __slots__ = ("_since", "_values")

    def __init__(self, points: Iterable[tuple[int, int]]) -> None:
        ordered = sorted(points)
        self._since = [since for since, _ in ordered]
        self._values = [value for _, value in ordered]

    def at(self, hour_s: int) -> int | None:
        place = bisect_right(self._since, hour_s)
        return self._values[place - 1] if place else None


@dataclass(frozen=True, slots=True)
class Book:
    """Every price with its history. Keys of `prices`: model, kind, plan."""

    version: int
    currency: str
    prices: Mapping[tuple[str, str, str], History]
    regions: Mapping[str, History]
    free: History  # tokens for each customer and month, since the start of a month

    def rate(self, model: str, kind: str, plan: str, region: str, hour_s: int) -> Rate | None:
        """None: nobody said what that costs, so it must not be billed."""
        price = _newest(hour_s, self.prices, (model, kind, plan), (ANY, kind, plan))
        multiplier = _newest(hour_s, self.regions, region.lower(), ANY)
        if price is None or multiplier is None:
            return None
        return Rate(price, multiplier)

    def free_tokens(self, hour_s: int) -> int:
        """The month's allowance: one for the whole month, whenever it was changed in it."""
        return self.free.at(month_start_s(hour_s)) or 0

    def has_plan(self, plan: str) -> bool:
        return any(key[2] == plan for key in self.prices)


def _newest(hour_s: int, histories: Mapping[K, History], *keys: K) -> int | None:
    for key in keys:
        history = histories.get(key)
        if history is not None and (value := history.at(hour_s)) is not None:
            return value
    return None


NO_BOOK: Final = Book(0, "", {}, {}, History(()))
