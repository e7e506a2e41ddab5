"""Money in double entry: every entry's lines add up to nothing, and no entry is ever changed.

Amounts are micros of the control plane's one currency; debits are positive. Accounts:

    receivable/<customer>   what a customer owes
    revenue/usage           tokens
    revenue/capacity        capacity units
    revenue/adjustments     corrections in the customer's favour
    promotion               credits given away
    credit/<credit>         what is left of one credit, as a debt to the customer
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    Table,
    Text,
    func,
    select,
)

from appliance.controlplane.billing.billing_errors import Unbalanced
from appliance.controlplane.bulk import insert_rows
from appliance.controlplane.schema import METADATA

USAGE_REVENUE: Final = "revenue/usage"
CAPACITY_REVENUE: Final = "revenue/capacity"
ADJUSTMENTS: Final = "revenue/adjustments"
PROMOTION: Final = "promotion"

ENTRIES: Final = Table(
    "journal_entries",
    METADATA,
    Column("entry_id", Text, primary_key=True),  # made of what it is for: a second one cannot be
    Column("customer_id", Text, nullable=False),
    Column("for_s", BigInteger, nullable=False),  # the hour or month it is about
    Column("at_ns", BigInteger, nullable=False),
    Column("memo", Text, nullable=False, default=""),
    Index("journal_customer", "customer_id", "for_s"),
)
LINES: Final = Table(
    "journal_lines",
    METADATA,
    Column("entry_id", Text, primary_key=True),
    Column("line", Integer, primary_key=True, autoincrement=False),
    Column("account", Text, nullable=False),
    Column("amount_micros", BigInteger, nullable=False),
    Index("journal_account", "account"),
)


def receivable(customer_id: str) -> str:
    return f"receivable/{customer_id}"


def credit_account(credit_id: str) -> str:
    return f"credit/{credit_id}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry; `lines` are (account, micros). Raises Unbalanced when they leave anything."""

    entry_id: str
    customer_id: str
    for_s: int
    at_ns: int
    lines: tuple[tuple[str, int], ...]
    memo: str = ""

    def __post_init__(self) -> None:
        rest = sum(amount for _, amount in self.lines)
        if rest:
            raise Unbalanced(f"The lines of {self.entry_id} leave {rest} micros.")


def post(connection: Connection, entries: Sequence[Entry]) -> None:
    """Write entries. One that is there already is an error of the database: nothing is doubled."""
    insert_rows(
        connection,
        ENTRIES,
        [
            {
                "entry_id": entry.entry_id,
                "customer_id": entry.customer_id,
                "for_s": entry.for_s,
                "at_ns": entry.at_ns,
                "memo": entry.memo,
            }
            for entry in entries
        ],
    )
    lines = [
        {"entry_id": entry.entry_id, "line": place, "account": account, "amount_micros": amount}
        for entry in entries
        for place, (account, amount) in enumerate(entry.lines)
    ]
    insert_rows(connection, LINES, lines)


def cancel(
    connection: Connection, row_id: str, customer_id: str, hour_s: int, micros: int, now_ns: int
) -> None:
    """Take back what a row of the outbox was booked as, because a person decided not to bill it."""
    if micros:
        lines = ((USAGE_REVENUE, micros), (receivable(customer_id), -micros))
        post(connection, [Entry(f"cancelled:{row_id}", customer_id, hour_s, now_ns, lines)])


def balance_micros(connection: Connection, account: str) -> int:
    total = connection.execute(
        select(func.coalesce(func.sum(LINES.c.amount_micros), 0)).where(LINES.c.account == account)
    ).scalar_one()
    return int(total)


def unbalanced(connection: Connection) -> Iterable[str]:
    """Entries whose stored lines no longer add up: somebody changed the database."""
    return connection.execute(
        select(LINES.c.entry_id)
        .group_by(LINES.c.entry_id)
        .having(func.sum(LINES.c.amount_micros) != 0)
    ).scalars()
