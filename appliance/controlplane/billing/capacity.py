"""Capacity units: tokens/s that a customer pays for by the month, used or not.

One unit is one token/s of a model, so a unit promises 3,600 tokens in every hour; all kinds count.
Usage of the price class "reserved" inside the promise is not billed as tokens. Beyond it:

- with overage agreed it is billed at the prices of the tenant's plan;
- without, the flat price covers it, because the site itself keeps the rate.

Reserved usage of an hour without any capacity is held: nobody said what it costs.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Index,
    Table,
    Text,
    and_,
    insert,
    select,
    update,
)

from appliance.controlplane.billing.billing_errors import BadAmount, UnknownCapacity
from appliance.controlplane.billing.journal import (
    CAPACITY_REVENUE,
    ENTRIES,
    Entry,
    post,
    receivable,
)
from appliance.controlplane.billing.pricing import (
    ANY,
    HOUR_S,
    Tokens,
    first_of,
    month_start_s,
    next_month_s,
)
from appliance.controlplane.schema import METADATA

UNITS_MAX: Final = 10**9

# A subscription. It ends; it is never changed: more units are another row.
CAPACITY: Final = Table(
    "capacity",
    METADATA,
    Column("capacity_id", Text, primary_key=True),
    Column("customer_id", Text, nullable=False),
    Column("model", Text, nullable=False),  # "*": any
    Column("units", BigInteger, nullable=False),  # tokens/s
    Column("micros_per_unit_month", BigInteger, nullable=False),
    Column("overage", Boolean, nullable=False),
    Column("since_s", BigInteger, nullable=False),
    Column("until_s", BigInteger),  # NULL: until it is ended
    Column("created_at_ns", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Index("capacity_customer", "customer_id"),
)
CAPACITY_USE: Final = Table(
    "capacity_use",
    METADATA,
    Column("capacity_id", Text, primary_key=True),
    Column("hour_s", BigInteger, primary_key=True),
    Column("tokens", BigInteger, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Capacity:
    capacity_id: str
    customer_id: str
    model: str
    units: int
    micros_per_unit_month: int
    overage: bool
    since_s: int
    until_s: int | None

    def covers(self, model: str, hour_s: int) -> bool:
        in_time = self.since_s <= hour_s and (self.until_s is None or hour_s < self.until_s)
        return in_time and self.model in {model, ANY}


class CapacityUse:
    """What is used of the promises within one transaction, as `free_tier.FreeUse`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._units: dict[str, list[Capacity]] = {}
        self._used: dict[tuple[str, int], int] = {}
        self._new: set[tuple[str, int]] = set()
        self._changed: set[tuple[str, int]] = set()

    def cover(
        self, customer_id: str, model: str, hour_s: int, tokens: Tokens
    ) -> tuple[Tokens, list[tuple[str, int]]] | None:
        """What is not to be billed as tokens, and what that takes from each; None: no capacity."""
        if customer_id not in self._units:
            self._units[customer_id] = list_capacity(self._connection, customer_id)
        units = [unit for unit in self._units[customer_id] if unit.covers(model, hour_s)]
        if not units:
            return None
        left = tokens.total
        takes = []
        for unit in units:
            promised = unit.units * HOUR_S - self._read(unit.capacity_id, hour_s)
            part = min(left, max(0, promised))
            takes.append((unit.capacity_id, part))
            left -= part
        if left and not any(unit.overage for unit in units):
            takes[-1] = (takes[-1][0], takes[-1][1] + left)
            left = 0
        return first_of(tokens, tokens.total - left), takes

    def take(self, hour_s: int, takes: list[tuple[str, int]]) -> None:
        for capacity_id, tokens in takes:
            if tokens:
                key = (capacity_id, hour_s)
                self._used[key] = self._read(*key) + tokens
                self._changed.add(key)

    def save(self) -> None:
        for key in sorted(self._changed):
            capacity_id, hour_s = key
            values = {"capacity_id": capacity_id, "hour_s": hour_s, "tokens": self._used[key]}
            if key in self._new:
                self._connection.execute(insert(CAPACITY_USE).values(values))
            else:
                self._connection.execute(
                    update(CAPACITY_USE)
                    .where(CAPACITY_USE.c.capacity_id == key[0], CAPACITY_USE.c.hour_s == key[1])
                    .values(tokens=self._used[key])
                )
        self._new -= self._changed
        self._changed.clear()

    def _read(self, capacity_id: str, hour_s: int) -> int:
        key = (capacity_id, hour_s)
        if key not in self._used:
            found = self._connection.execute(
                select(CAPACITY_USE.c.tokens).where(
                    CAPACITY_USE.c.capacity_id == capacity_id, CAPACITY_USE.c.hour_s == hour_s
                )
            ).scalar()
            self._used[key] = 0 if found is None else int(found)
            if found is None:
                self._new.add(key)
        return self._used[key]


def list_capacity(connection: Connection, customer_id: str | None = None) -> list[Capacity]:
    """In the order in which their promises are used up."""
    query = select(CAPACITY).order_by(CAPACITY.c.since_s, CAPACITY.c.capacity_id)
    if customer_id is not None:
        query = query.where(CAPACITY.c.customer_id == customer_id)
    return [_capacity(row) for row in connection.execute(query)]


def add(
    connection: Connection,
    customer_id: str,
    *,
    model: str,
    units: int,
    micros_per_unit_month: int,
    overage: bool,
    since_s: int,
    by: str,
    now_ns: int,
    entropy: Callable[[int], bytes],
) -> Capacity:
    """A new subscription from the hour of `since_s` on. Raises BadAmount."""
    if not 0 < units <= UNITS_MAX or not 0 <= micros_per_unit_month <= 10**12:
        raise BadAmount(
            f"{units} units at {micros_per_unit_month} micros cannot be.",
            next_step=f"Give 1 to {UNITS_MAX:,} units, and a price that is not negative.",
        )
    made = Capacity(
        f"cap_{entropy(12).hex()}",
        customer_id,
        model,
        units,
        micros_per_unit_month,
        overage,
        since_s - since_s % HOUR_S,
        None,
    )
    connection.execute(
        insert(CAPACITY).values(
            capacity_id=made.capacity_id,
            customer_id=customer_id,
            model=model,
            units=units,
            micros_per_unit_month=micros_per_unit_month,
            overage=overage,
            since_s=made.since_s,
            until_s=None,
            created_at_ns=now_ns,
            created_by=by,
        )
    )
    return made


def end(connection: Connection, capacity_id: str, until_s: int) -> Capacity:
    """End a subscription at an hour that nothing was settled against.

    Raises UnknownCapacity, BadAmount.
    """
    found = [unit for unit in list_capacity(connection) if unit.capacity_id == capacity_id]
    if not found:
        raise UnknownCapacity(
            f"There is no capacity {capacity_id!r}.",
            next_step="See `cic control-plane capacity list`.",
        )
    until_s += -until_s % HOUR_S
    used = connection.execute(
        select(CAPACITY_USE.c.hour_s).where(
            and_(CAPACITY_USE.c.capacity_id == capacity_id, CAPACITY_USE.c.hour_s >= until_s)
        )
    ).first()
    if found[0].until_s is not None or until_s <= found[0].since_s or used is not None:
        raise BadAmount(
            "That capacity cannot end then: it has ended, begins later, or was used since.",
            next_step="Give a later hour.",
        )
    connection.execute(
        update(CAPACITY).where(CAPACITY.c.capacity_id == capacity_id).values(until_s=until_s)
    )
    return replace(found[0], until_s=until_s)


def fee_micros(unit: Capacity, month_s: int) -> int:
    """The flat price of a month, by the hours in which it ran; half to even."""
    begin, finish = month_start_s(month_s), next_month_s(month_s)
    until_s = finish if unit.until_s is None else min(finish, unit.until_s)
    hours = max(0, until_s - max(begin, unit.since_s)) // HOUR_S
    whole, rest = divmod(
        unit.units * unit.micros_per_unit_month * hours, (total := (finish - begin) // HOUR_S)
    )
    return whole + (rest * 2 > total or (rest * 2 == total and whole % 2 == 1))


def accrue(connection: Connection, now_ns: int) -> int:
    """Journal the flat price of every month that is over, each once; how many entries."""
    this_month_s = month_start_s(now_ns // 1_000_000_000)
    entries = []
    for unit in list_capacity(connection):
        month_s = month_start_s(unit.since_s)
        while month_s < this_month_s and (unit.until_s is None or month_s < unit.until_s):
            fee = fee_micros(unit, month_s)
            entry_id = f"capacity:{unit.capacity_id}:{month_s}"
            known = select(ENTRIES.c.entry_id).where(ENTRIES.c.entry_id == entry_id)
            if fee and connection.execute(known).first() is None:
                lines = ((receivable(unit.customer_id), fee), (CAPACITY_REVENUE, -fee))
                entries.append(Entry(entry_id, unit.customer_id, month_s, now_ns, lines))
            month_s = next_month_s(month_s)
    post(connection, entries)
    return len(entries)


def _capacity(row: Any) -> Capacity:
    return Capacity(
        row.capacity_id,
        row.customer_id,
        row.model,
        row.units,
        row.micros_per_unit_month,
        bool(row.overage),
        row.since_s,
        row.until_s,
    )
