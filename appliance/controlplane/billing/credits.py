"""Credits: money a customer need not pay, given by a person or owed after a correction.

A credit pays for usage of the hours it is valid for, the one that ends first before the others, as
the usage is posted; the journal moves it from the debt to the customer to what the customer owes.
In Stripe it becomes a credit grant, which Stripe applies when an invoice is finalised, so that the
month in which it is spent can differ; its sum cannot.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import BigInteger, Column, Connection, Index, Table, Text, insert, select, update

from appliance.controlplane.billing.billing_errors import BadAmount
from appliance.controlplane.billing.journal import PROMOTION, Entry, credit_account, post
from appliance.controlplane.schema import METADATA

CREDIT_MICROS_MAX: Final = 10**15

CREDITS: Final = Table(
    "credits",
    METADATA,
    Column("credit_id", Text, primary_key=True),
    Column("customer_id", Text, nullable=False),
    Column("granted_micros", BigInteger, nullable=False),
    Column("left_micros", BigInteger, nullable=False),
    Column("since_s", BigInteger, nullable=False),
    Column("until_s", BigInteger),  # NULL: it does not expire
    Column("reason", Text, nullable=False),
    Column("adjustment_id", Text, nullable=False, default=""),  # of the correction it is owed for
    Column("created_at_ns", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Index("credits_customer", "customer_id"),
)


@dataclass(frozen=True, slots=True)
class Credit:
    credit_id: str
    customer_id: str
    granted_micros: int
    left_micros: int
    since_s: int
    until_s: int | None
    reason: str
    adjustment_id: str


class CreditUse:
    """What is left of each credit within one transaction, as `free_tier.FreeUse`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._credits: dict[str, list[Credit]] = {}
        self._changed: dict[str, int] = {}

    def pay(self, customer_id: str, hour_s: int, owed_micros: int) -> list[tuple[str, int]]:
        """(credit, micros) that pay for usage of an hour, as far as they go."""
        if customer_id not in self._credits:
            found = list_credits(self._connection, customer_id)
            self._credits[customer_id] = [credit for credit in found if credit.left_micros]
        paid = []
        usable = self._credits[customer_id]
        for place, credit in enumerate(usable):
            valid = credit.since_s <= hour_s and (credit.until_s is None or hour_s < credit.until_s)
            part = min(owed_micros, credit.left_micros) if valid else 0
            if part > 0:
                paid.append((credit.credit_id, part))
                owed_micros -= part
                usable[place] = replace(credit, left_micros=credit.left_micros - part)
                self._changed[credit.credit_id] = usable[place].left_micros
        return paid

    def save(self) -> None:
        for credit_id, left_micros in sorted(self._changed.items()):
            self._connection.execute(
                update(CREDITS)
                .where(CREDITS.c.credit_id == credit_id)
                .values(left_micros=left_micros)
            )
        self._changed.clear()


def list_credits(connection: Connection, customer_id: str | None = None) -> list[Credit]:
    """In the order in which they are spent."""
    query = select(CREDITS)
    if customer_id is not None:
        query = query.where(CREDITS.c.customer_id == customer_id)
    found = [
        Credit(
            row.credit_id,
            row.customer_id,
            row.granted_micros,
            row.left_micros,
            row.since_s,
            row.until_s,
            row.reason,
            row.adjustment_id,
        )
        for row in connection.execute(query)
    ]
    return sorted(found, key=_order)


def grant(
    connection: Connection,
    customer_id: str,
    *,
    micros: int,
    reason: str,
    since_s: int,
    until_s: int | None,
    by: str,
    now_ns: int,
    entropy: Callable[[int], bytes],
    account: str = PROMOTION,
    adjustment_id: str = "",
) -> Credit:
    """Give a credit; `account` bears it. Raises BadAmount."""
    if not 0 < micros <= CREDIT_MICROS_MAX or not reason.strip():
        raise BadAmount(
            "A credit needs an amount above nothing, and a reason.",
            next_step=f"Give 1 to {CREDIT_MICROS_MAX:,} micros and a reason.",
        )
    if until_s is not None and until_s <= since_s:
        raise BadAmount("The credit would end before it begins.", next_step="Give a later end.")
    made = Credit(
        f"crd_{entropy(12).hex()}",
        customer_id,
        micros,
        micros,
        since_s,
        until_s,
        reason,
        adjustment_id,
    )
    connection.execute(
        insert(CREDITS).values(
            credit_id=made.credit_id,
            customer_id=customer_id,
            granted_micros=micros,
            left_micros=micros,
            since_s=since_s,
            until_s=until_s,
            reason=reason,
            adjustment_id=adjustment_id,
            created_at_ns=now_ns,
            created_by=by,
        )
    )
    lines = ((account, micros), (credit_account(made.credit_id), -micros))
    entry = Entry(f"credit:{made.credit_id}", customer_id, since_s, now_ns, lines, reason)
    post(connection, [entry])
    return made


def _order(credit: Credit) -> tuple[int, int, str]:
    return (
        credit.until_s if credit.until_s is not None else 2**63,
        credit.since_s,
        credit.credit_id,
    )
