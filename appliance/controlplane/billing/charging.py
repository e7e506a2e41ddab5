"""From usage to what is owed: allowance, capacity, price, outbox rows, journal; one transaction.

Everything is gathered and written by `save`, so that many manifests share few statements. A row of
the outbox is customer x meter x hour x source; its id and its identifier are made of these, so a
second posting of the same source cannot make a second row.
"""

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection

from appliance.controlplane.billing import price_book
from appliance.controlplane.billing.capacity import CapacityUse
from appliance.controlplane.billing.credits import CreditUse
from appliance.controlplane.billing.free_tier import FreeUse
from appliance.controlplane.billing.journal import (
    USAGE_REVENUE,
    Entry,
    credit_account,
    post,
    receivable,
)
from appliance.controlplane.billing.outbox_table import OUTBOX, OutboxState
from appliance.controlplane.billing.pricing import (
    FREE_PLAN,
    RESERVED,
    SERVERLESS,
    Kind,
    Rate,
    Tokens,
    amount_micros,
    first_of,
    meter_key,
)
from appliance.controlplane.billing.tenants import Party
from appliance.controlplane.billing.usage_table import CAPACITY_MISSING, PRICE_MISSING
from appliance.controlplane.bulk import insert_rows

NOTHING: Final = Tokens()


class Subject(NamedTuple):
    """What was used: all that its price depends on but the plan."""

    model: str
    region: str
    price_class: str
    hour_s: int


@dataclass(frozen=True, slots=True)
class Charged:
    """What was not billed as tokens, and why; the rest is in the outbox."""

    free: Tokens
    reserved: Tokens


class _RowKey(NamedTuple):
    source: str
    customer_id: str
    hour_s: int
    kind: Kind
    model: str
    region: str
    plan: str


class Charging:
    """For one transaction. `save` must be called before its commit."""

    def __init__(self, connection: Connection, now_ns: int) -> None:
        self._connection = connection
        self._now_ns = now_ns
        self._book = price_book.current(connection)
        self._free = FreeUse(connection)
        self._capacity = CapacityUse(connection)
        self._credits = CreditUse(connection)
        self._quantities: dict[_RowKey, int] = defaultdict(int)
        self._rates: dict[_RowKey, Rate] = {}
        self._known: dict[tuple[str, Kind, str, str, int], Rate | None] = {}  # asked of the book

    def charge(self, party: Party, subject: Subject, used: Tokens, source: str) -> Charged | str:
        """Charge usage, or say the code that holds it; then nothing of it was counted."""
        takes: list[tuple[str, int]] = []
        free = reserved = NOTHING
        if subject.price_class == RESERVED:
            covered = self._capacity.cover(party.customer_id, subject.model, subject.hour_s, used)
            if covered is None:
                return CAPACITY_MISSING
            reserved, takes = covered
        elif subject.price_class == SERVERLESS and party.plan == FREE_PLAN:
            allowance = self._book.free_tokens(subject.hour_s)
            if allowance:
                left = allowance - self._free.used(party.customer_id, subject.hour_s)
                free = first_of(used, left)
        rows: list[tuple[_RowKey, int, Rate]] = []
        for kind, quantity in used.minus(free).minus(reserved).kinds():
            rate = self._rate(subject, kind, party.plan)
            if rate is None:
                return PRICE_MISSING
            key = _RowKey(
                source,
                party.customer_id,
                subject.hour_s,
                kind,
                subject.model,
                subject.region,
                party.plan,
            )
            rows.append((key, quantity, rate))
        for key, quantity, rate in rows:
            self._quantities[key] += quantity
            self._rates[key] = rate
        if free.total:
            self._free.add(party.customer_id, subject.hour_s, free.total)
        self._capacity.take(subject.hour_s, takes)
        return Charged(free, reserved)

    def _rate(self, subject: Subject, kind: Kind, plan: str) -> Rate | None:
        asked = (subject.model, kind, plan, subject.region, subject.hour_s)
        if asked not in self._known:
            self._known[asked] = self._book.rate(*asked)
        return self._known[asked]

    def save(self) -> None:
        """Write what was charged since the last time."""
        rows = []
        owed: dict[tuple[str, str, int], int] = defaultdict(int)
        for key, quantity in self._quantities.items():
            row = outbox_row(
                **key._asdict(), quantity=quantity, rate=self._rates[key], now_ns=self._now_ns
            )
            rows.append(row)
            owed[key.source, key.customer_id, key.hour_s] += row["amount_micros"]
        insert_rows(self._connection, OUTBOX, rows)
        post(
            self._connection,
            [self._entry(*key, owed_micros=sum_) for key, sum_ in owed.items() if sum_],
        )
        self._free.save()
        self._capacity.save()
        self._credits.save()
        self._quantities.clear()
        self._rates.clear()

    def _entry(self, source: str, customer_id: str, hour_s: int, *, owed_micros: int) -> Entry:
        paid = self._credits.pay(customer_id, hour_s, owed_micros)
        rest = owed_micros - sum(micros for _, micros in paid)
        lines = [(credit_account(credit_id), micros) for credit_id, micros in paid]
        lines += [(receivable(customer_id), rest)] if rest else []
        return Entry(
            f"usage:{source}:{customer_id}:{hour_s}",
            customer_id,
            hour_s,
            self._now_ns,
            (*lines, (USAGE_REVENUE, -owed_micros)),
        )


def identity(source: str, customer_id: str, meter: str, hour_s: int) -> str:
    """40 hex digits that are the same for the same piece of usage, whenever it is posted."""
    told = "\n".join((source, customer_id, meter, str(hour_s)))
    return hashlib.sha256(told.encode()).hexdigest()[:40]


def outbox_row(
    *,
    source: str,
    customer_id: str,
    kind: str,
    model: str,
    region: str,
    plan: str,
    hour_s: int,
    quantity: int,
    rate: Rate,
    now_ns: int,
) -> dict[str, Any]:
    """A row of the outbox that waits for delivery; its amount is rounded here and nowhere else."""
    meter = meter_key(kind, model, region, plan)
    digest = identity(source, customer_id, meter, hour_s)
    return {
        "row_id": f"out_{digest}",
        "customer_id": customer_id,
        "meter": meter,
        "kind": str(kind),
        "model": model,
        "region": region,
        "plan": plan,
        "hour_s": hour_s,
        "quantity": quantity,
        "micros_per_million": rate.micros_per_million,
        "multiplier_bp": rate.multiplier_bp,
        "amount_micros": amount_micros(quantity, rate),
        "source": source,
        "state": OutboxState.PENDING.value,
        "identifier": f"clx-{digest}",
        "created_at_ns": now_ns,
        "note": "",
    }
