"""What bursts added to registry.db: machines lent from clouds, and what they cost."""

from typing import Final

from appliance.storage.database import Migration, Schema

_STATEMENTS: Final = (
    """CREATE TABLE bursts (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        spec TEXT NOT NULL,
        wish TEXT NOT NULL,
        reason TEXT NOT NULL,
        created_at_ns INTEGER NOT NULL,
        ended_at_ns INTEGER)""",
    "CREATE UNIQUE INDEX bursts_living ON bursts (name) WHERE ended_at_ns IS NULL",
    # A machine that was asked for. `paid_from_ns` to `paid_until_ns` is what it is reckoned for.
    """CREATE TABLE burst_members (
        id TEXT PRIMARY KEY,
        burst_id TEXT NOT NULL REFERENCES bursts,
        ordinal INTEGER NOT NULL,
        node_name TEXT NOT NULL,
        state TEXT NOT NULL,
        reason TEXT NOT NULL,
        since_ns INTEGER NOT NULL,
        not_before_ns INTEGER NOT NULL,
        request TEXT,
        offer TEXT,
        price_micro INTEGER NOT NULL,
        paid_from_ns INTEGER,
        paid_until_ns INTEGER)""",
    "CREATE INDEX members_of_burst ON burst_members (burst_id, ordinal)",
)


def _extend(schema: Schema) -> None:
    for statement in _STATEMENTS:
        schema.execute(statement)


MIGRATION: Final = Migration("0005 bursts into clouds", _extend)
