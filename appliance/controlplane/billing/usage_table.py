"""The control plane's ledger: what accepted manifests say was used, and what became of it.

A row is manifest x tenant x model x region x price class x UTC hour, and never changes in what was
used. `input_tokens` is without the cached ones. Of what was used, `free_…` fell under the monthly
allowance, `reserved_…` under the customer's capacity units; the rest is in the outbox.
"""

from enum import StrEnum
from typing import Final

from sqlalchemy import BigInteger, Column, Index, Integer, Table, Text

from appliance.controlplane.schema import METADATA


class UsageState(StrEnum):
    HELD = "held"  # not billed: see its holds
    BILLED = "billed"  # free, reserved, or in the outbox
    WRITTEN_OFF = "written_off"  # a person decided not to bill it


class HoldState(StrEnum):
    OPEN = "open"
    RELEASED = "released"
    WRITTEN_OFF = "written_off"


# Reasons of billing's own, beside the codes of `appliance.manifests.codes.HELD`.
PRICE_MISSING: Final = "PRICE_MISSING"
CAPACITY_MISSING: Final = "CAPACITY_MISSING"

USAGE: Final = Table(
    "usage",
    METADATA,
    Column("appliance_id", Text, primary_key=True),
    Column("epoch", BigInteger, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("part", Integer, primary_key=True, autoincrement=False),  # from 0 in every manifest
    Column("tenant_id", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("region", Text, nullable=False),
    Column("price_class", Text, nullable=False),
    Column("hour_s", BigInteger, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("customer_id", Text, nullable=False, default=""),  # "" while the tenant is not mapped
    Column("plan", Text, nullable=False, default=""),
    Column("free_input", BigInteger, nullable=False, default=0),
    Column("free_cached", BigInteger, nullable=False, default=0),
    Column("free_output", BigInteger, nullable=False, default=0),
    Column("reserved_input", BigInteger, nullable=False, default=0),
    Column("reserved_cached", BigInteger, nullable=False, default=0),
    Column("reserved_output", BigInteger, nullable=False, default=0),
    Column("posted_at_ns", BigInteger, nullable=False),
    Column("settled_at_ns", BigInteger),  # when it left `held`
    Index("usage_customer", "customer_id", "hour_s"),
    Index("usage_hour", "hour_s"),
)
Index(
    "usage_held",
    USAGE.c.appliance_id,
    USAGE.c.tenant_id,
    postgresql_where=USAGE.c.state == "held",
    sqlite_where=USAGE.c.state == "held",
)

# Why a row of usage is not billed; several reasons may hold one row. Never deleted.
HOLDS: Final = Table(
    "holds",
    METADATA,
    Column("appliance_id", Text, primary_key=True),
    Column("epoch", BigInteger, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("part", Integer, primary_key=True, autoincrement=False),
    Column("code", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("opened_at_ns", BigInteger, nullable=False),
    Column("decided_at_ns", BigInteger),
    Column("decided_by", Text, nullable=False, default=""),
    Column("reason", Text, nullable=False, default=""),
    Index("holds_open", "state", "code"),
)
