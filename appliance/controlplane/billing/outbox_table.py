"""What is to be billed through Stripe, and how far each piece is: the hand-off to delivery."""

from enum import StrEnum
from typing import Final

from sqlalchemy import BigInteger, Column, Index, Integer, Table, Text

from appliance.controlplane.schema import METADATA


class OutboxState(StrEnum):
    """pending → sending (committed before the call) → accepted → reconciled, or one of the rest."""

    PENDING = "pending"
    SENDING = "sending"
    ACCEPTED = "accepted"  # Stripe took the meter event, or said that it has it already
    RECONCILED = "reconciled"  # Stripe's own sums agree
    AMBIGUOUS = "ambiguous"  # sent, unanswered, and too old to send again blindly
    LATE = "late"  # billed as an invoice item for its own period
    QUARANTINED = "quarantined"  # refused by Stripe; a person decides
    CANCELLED = "cancelled"  # a person decided not to bill it


# A row is customer × meter × UTC hour × what one manifest (or adjustment) added. Never deleted.
OUTBOX: Final = Table(
    "outbox",
    METADATA,
    Column("row_id", Text, primary_key=True),
    Column("customer_id", Text, nullable=False),
    Column("meter", Text, nullable=False),  # our key of the meter: kind, model, region, plan
    Column("kind", Text, nullable=False),  # input, cached, output
    Column("model", Text, nullable=False),
    Column("region", Text, nullable=False),
    Column("plan", Text, nullable=False),
    Column("hour_s", BigInteger, nullable=False),
    Column("quantity", BigInteger, nullable=False),  # tokens, > 0
    Column("micros_per_million", BigInteger, nullable=False),  # the price of that hour
    Column("multiplier_bp", Integer, nullable=False),
    Column("amount_micros", BigInteger, nullable=False),  # what we reckon it costs
    Column("source", Text, nullable=False),  # `<appliance>/<epoch>/<seq>`, or an adjustment's id
    Column("state", Text, nullable=False),
    Column("identifier", Text, nullable=False, unique=True),  # of the meter event, at most 100
    Column("created_at_ns", BigInteger, nullable=False),
    Column("first_sent_at_ns", BigInteger),  # when the first attempt was committed
    Column("settled_at_ns", BigInteger),  # when it reached its present, last state
    Column("late_key", Text),  # of the invoice item that bills it
    Column("note", Text, nullable=False, default=""),  # for a person
    Index("outbox_state", "state", "customer_id", "meter"),
    Index("outbox_late", "late_key"),
    Index("outbox_hour", "customer_id", "meter", "hour_s"),
)
