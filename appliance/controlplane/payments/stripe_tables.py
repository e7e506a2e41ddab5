"""What delivery to Stripe remembers: objects made there, lanes, attempts, late items, webhooks.

All of it is written before Stripe is called (what is about to happen) and again after (what came
of it), so that a program killed in between finds on its next start what it has to look up first.
"""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import BigInteger, Column, Connection, Index, Integer, Table, Text
from sqlalchemy.dialects import postgresql, sqlite

from appliance.controlplane.schema import METADATA

# What we made, or are making, in Stripe: kind (meter, product, price, customer, subscription,
# item, grant) and our own key of it. `stripe_id` stays NULL until Stripe answered.
STRIPE_OBJECTS: Final = Table(
    "stripe_objects",
    METADATA,
    Column("kind", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("stripe_id", Text),
    Column("parent", Text, nullable=False, default=""),  # of an item: its subscription
    Column("covered_from_s", BigInteger),  # of an item: usage from here on is billed by it
    Column("ended", Integer, nullable=False, default=0),  # of an item: an earlier one ended
    Column("intended_at_ns", BigInteger, nullable=False),
    Column("made_at_ns", BigInteger),
    Column("tried_at_ns", BigInteger, nullable=False),  # since when this idempotency key is used
    Column("tries", Integer, nullable=False, default=0),  # idempotency keys used up
    Column("holder", Text, nullable=False, default=""),
    Column("held_until_ns", BigInteger, nullable=False, default=0),
    Column("next_try_ns", BigInteger, nullable=False, default=0),
    Column("note", Text, nullable=False, default=""),  # why it could not be made
    Index("stripe_objects_id", "stripe_id"),
)

# One lane is one customer and meter: whoever holds its lease may have one call in flight.
STRIPE_LANES: Final = Table(
    "stripe_lanes",
    METADATA,
    Column("customer_id", Text, primary_key=True),
    Column("meter", Text, primary_key=True),
    Column("holder", Text, nullable=False, default=""),
    Column("leased_until_ns", BigInteger, nullable=False, default=0),
    Column("next_try_ns", BigInteger, nullable=False, default=0),
    Column("failures", Integer, nullable=False, default=0),  # in a row
    Column("note", Text, nullable=False, default=""),  # why it waits
    Index("stripe_lanes_due", "next_try_ns"),
)

# What delivery knows of one outbox row beside its state.
STRIPE_DELIVERIES: Final = Table(
    "stripe_deliveries",
    METADATA,
    Column("row_id", Text, primary_key=True),
    Column("event_name", Text, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("doubt_since_ns", BigInteger),  # first attempt since Stripe surely did not have it
    Column("last_attempt_ns", BigInteger),
    Column("suspect", Text, nullable=False, default=""),  # the error report that names it
)

# Every call for a meter event, with the idempotency key that error reports name. Never deleted.
STRIPE_ATTEMPTS: Final = Table(
    "stripe_attempts",
    METADATA,
    Column("idempotency_key", Text, primary_key=True),
    Column("row_id", Text, nullable=False),
    Column("sent_at_ns", BigInteger, nullable=False),
    Column("ended_at_ns", BigInteger),  # NULL: the program ended before an answer
    Column("outcome", Text, nullable=False, default=""),
    Column("message", Text, nullable=False, default=""),
    Index("stripe_attempts_row", "row_id"),
    Index("stripe_attempts_sent", "sent_at_ns"),
)

# Stripe's sums as last read; a decision wants the same value twice, some time apart.
STRIPE_READINGS: Final = Table(
    "stripe_readings",
    METADATA,
    Column("customer_id", Text, primary_key=True),
    Column("event_name", Text, primary_key=True),
    Column("hour_s", BigInteger, primary_key=True),
    Column("meter", Text, nullable=False),  # ours
    Column("quantity", BigInteger, nullable=False),
    Column("same_since_ns", BigInteger, nullable=False),
    Column("read_at_ns", BigInteger, nullable=False),
)

# Usage billed as an invoice item of its own period: the rows of the outbox name it by `late_key`.
LATE_ITEMS: Final = Table(
    "late_items",
    METADATA,
    Column("late_key", Text, primary_key=True),
    Column("customer_id", Text, nullable=False),
    Column("meter", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("micros_per_million", BigInteger, nullable=False),
    Column("multiplier_bp", Integer, nullable=False),
    Column("period_start_s", BigInteger, nullable=False),
    Column("period_end_s", BigInteger, nullable=False),
    Column("quantity", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("planned_at_ns", BigInteger, nullable=False),
    Column("tries", Integer, nullable=False, default=0),
    Column("stored_failures", Integer, nullable=False, default=0),  # answers that Stripe replays
    Column("next_try_ns", BigInteger, nullable=False, default=0),
    Column("holder", Text, nullable=False, default=""),
    Column("held_until_ns", BigInteger, nullable=False, default=0),
    Column("stripe_id", Text),  # NULL: not made yet, or not known to be
    Column("made_at_ns", BigInteger),
    Column("refused", Text, nullable=False, default=""),  # Stripe's words; a person decides
    Column("invoice_id", Text),
    Index("late_items_customer", "customer_id", "meter"),
)

# Every event Stripe told us, stored before it is answered; handled once.
STRIPE_EVENTS: Final = Table(
    "stripe_events",
    METADATA,
    Column("event_id", Text, primary_key=True),
    Column("type", Text, nullable=False),
    Column("object_id", Text, nullable=False, default=""),
    Column("received_at_ns", BigInteger, nullable=False),
    Column("handled_at_ns", BigInteger),
    Column("tries", Integer, nullable=False, default=0),
    Column("next_try_ns", BigInteger, nullable=False, default=0),
    Column("note", Text, nullable=False, default=""),
    Index("stripe_events_open", "handled_at_ns", "next_try_ns"),
)

# Invoices as Stripe's API last described them.
STRIPE_INVOICES: Final = Table(
    "stripe_invoices",
    METADATA,
    Column("invoice_id", Text, primary_key=True),
    Column("stripe_customer", Text, nullable=False),
    Column("subscription", Text, nullable=False, default=""),
    Column("status", Text, nullable=False),  # draft, open, paid, uncollectible, void
    Column("period_start_s", BigInteger, nullable=False),
    Column("period_end_s", BigInteger, nullable=False),
    Column("finalizes_at_s", BigInteger),
    Column("held", Integer, nullable=False, default=0),  # times we put its finalisation off
    Column("currency", Text, nullable=False),
    Column("total_minor", BigInteger, nullable=False),
    Column("paid_minor", BigInteger, nullable=False),
    Column("read_at_ns", BigInteger, nullable=False),
    Index("stripe_invoices_period", "stripe_customer", "subscription", "period_end_s"),
)


def insert_new(connection: Connection, table: Table, values: Mapping[str, Any]) -> bool:
    """Insert a row unless one with its key is there, also while others insert; True if it did."""
    if connection.dialect.name == "postgresql":
        of_postgres = postgresql.insert(table).values(**values).on_conflict_do_nothing()
        return connection.execute(of_postgres).rowcount == 1
    of_sqlite = sqlite.insert(table).values(**values).on_conflict_do_nothing()
    return connection.execute(of_sqlite).rowcount == 1
