"""What reserved capacity added to registry.db: who was promised how many tokens a second."""

from typing import Final

from appliance.storage.database import Migration, Schema

_STATEMENTS: Final = (
    # The first tables had one that nothing ever wrote.
    "DROP TABLE reservations",
    """CREATE TABLE reservations (
        id TEXT PRIMARY KEY,
        tenant_id TEXT NOT NULL REFERENCES tenants,
        environment_id TEXT REFERENCES environments,
        deployment_id TEXT NOT NULL REFERENCES deployments,
        tokens_per_s INTEGER NOT NULL,
        priority INTEGER NOT NULL,
        from_ns INTEGER NOT NULL,
        until_ns INTEGER,
        created_at_ns INTEGER NOT NULL,
        ended_at_ns INTEGER)""",
    "CREATE INDEX reservations_living ON reservations (deployment_id) WHERE ended_at_ns IS NULL",
)


def _extend(schema: Schema) -> None:
    for statement in _STATEMENTS:
        schema.execute(statement)


MIGRATION: Final = Migration("0007 reserved capacity", _extend)
