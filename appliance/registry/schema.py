"""The tables of registry.db.

Rows are never removed, but for settings and replaced limits: `deleted_at_ns` says when a row
ceased to live, and names are unique among the living only. Foreign keys are enforced.
"""

from typing import Final

from appliance.registry import (
    schema_bursts,
    schema_faults,
    schema_fleet,
    schema_joining,
    schema_models,
    schema_notices,
    schema_reservations,
)
from appliance.registry.chain import GENESIS
from appliance.storage.database import Migration, Schema

_FIRST: Final = (
    # One row: the version of the tables, and the end of the audit's chain.
    """CREATE TABLE state (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        version INTEGER NOT NULL,
        audit_seq INTEGER NOT NULL,
        audit_head BLOB NOT NULL)""",
    """CREATE TABLE tenants (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        plan TEXT NOT NULL,
        suspended INTEGER NOT NULL,
        created_at_ns INTEGER NOT NULL,
        deleted_at_ns INTEGER)""",
    "CREATE UNIQUE INDEX tenants_living ON tenants (name) WHERE deleted_at_ns IS NULL",
    """CREATE TABLE environments (
        id TEXT PRIMARY KEY,
        tenant_id TEXT NOT NULL REFERENCES tenants,
        name TEXT NOT NULL,
        region TEXT NOT NULL,
        models TEXT,
        suspended INTEGER NOT NULL,
        created_at_ns INTEGER NOT NULL,
        deleted_at_ns INTEGER)""",
    """CREATE UNIQUE INDEX environments_living ON environments (tenant_id, name)
        WHERE deleted_at_ns IS NULL""",
    """CREATE TABLE api_keys (
        id TEXT PRIMARY KEY,
        environment_id TEXT NOT NULL REFERENCES environments,
        name TEXT NOT NULL,
        role TEXT NOT NULL,
        suspended INTEGER NOT NULL,
        expires_at_ns INTEGER,
        created_at_ns INTEGER NOT NULL,
        deleted_at_ns INTEGER)""",
    """CREATE UNIQUE INDEX api_keys_living ON api_keys (environment_id, name)
        WHERE deleted_at_ns IS NULL""",
    # One row for each secret a key has had. The newest has retires_at_ns NULL.
    """CREATE TABLE key_secrets (
        digest BLOB PRIMARY KEY,
        key_id TEXT NOT NULL REFERENCES api_keys,
        prefix TEXT NOT NULL,
        created_at_ns INTEGER NOT NULL,
        retires_at_ns INTEGER) WITHOUT ROWID""",
    "CREATE UNIQUE INDEX key_secrets_newest ON key_secrets (key_id) WHERE retires_at_ns IS NULL",
    "CREATE INDEX key_secrets_of_key ON key_secrets (key_id)",
    """CREATE TABLE limits (
        layer TEXT NOT NULL,
        scope_id TEXT NOT NULL,
        requests_per_min INTEGER,
        tokens_per_min INTEGER,
        tokens_per_day INTEGER,
        concurrency INTEGER,
        PRIMARY KEY (layer, scope_id)) WITHOUT ROWID""",
    """CREATE TABLE regions (
        name TEXT NOT NULL,
        multiplier_bp INTEGER NOT NULL,
        created_at_ns INTEGER NOT NULL,
        deleted_at_ns INTEGER)""",
    "CREATE UNIQUE INDEX regions_living ON regions (name) WHERE deleted_at_ns IS NULL",
    """CREATE TABLE models (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        path TEXT NOT NULL,
        digest TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        family TEXT NOT NULL,
        licence TEXT NOT NULL,
        architecture TEXT NOT NULL,
        context_tokens INTEGER,
        suspended INTEGER NOT NULL,
        created_at_ns INTEGER NOT NULL,
        deleted_at_ns INTEGER)""",
    "CREATE UNIQUE INDEX models_living ON models (name) WHERE deleted_at_ns IS NULL",
    """CREATE TABLE deployments (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        engine TEXT NOT NULL,
        model_id TEXT REFERENCES models,
        url TEXT,
        sealed_api_key BLOB,
        upstream_model TEXT,
        replicas INTEGER NOT NULL,
        parallel INTEGER NOT NULL,
        context_tokens INTEGER,
        embedding INTEGER NOT NULL,
        operations TEXT NOT NULL,
        region TEXT NOT NULL,
        suspended INTEGER NOT NULL,
        generation INTEGER NOT NULL,
        created_at_ns INTEGER NOT NULL,
        deleted_at_ns INTEGER)""",
    "CREATE UNIQUE INDEX deployments_living ON deployments (name) WHERE deleted_at_ns IS NULL",
    """CREATE TABLE nodes (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        region TEXT NOT NULL,
        suspended INTEGER NOT NULL,
        created_at_ns INTEGER NOT NULL,
        deleted_at_ns INTEGER)""",
    "CREATE UNIQUE INDEX nodes_living ON nodes (name) WHERE deleted_at_ns IS NULL",
    """CREATE TABLE replicas (
        id TEXT PRIMARY KEY,
        deployment_id TEXT NOT NULL REFERENCES deployments,
        ordinal INTEGER NOT NULL,
        node_id TEXT REFERENCES nodes,
        created_at_ns INTEGER NOT NULL,
        deleted_at_ns INTEGER)""",
    """CREATE UNIQUE INDEX replicas_living ON replicas (deployment_id, ordinal)
        WHERE deleted_at_ns IS NULL""",
    # Capacity that tenants will be guaranteed, in tokens/s of a deployment. Nothing writes it yet.
    """CREATE TABLE reservations (
        id TEXT PRIMARY KEY,
        tenant_id TEXT NOT NULL REFERENCES tenants,
        deployment_id TEXT NOT NULL REFERENCES deployments,
        tokens_per_s INTEGER NOT NULL,
        created_at_ns INTEGER NOT NULL,
        deleted_at_ns INTEGER)""",
    """CREATE UNIQUE INDEX reservations_living ON reservations (tenant_id, deployment_id)
        WHERE deleted_at_ns IS NULL""",
    "CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE audit (
        seq INTEGER PRIMARY KEY,
        at_ns INTEGER NOT NULL,
        actor TEXT NOT NULL,
        action TEXT NOT NULL,
        object_kind TEXT NOT NULL,
        object_id TEXT NOT NULL,
        object_name TEXT NOT NULL,
        before TEXT,
        after TEXT,
        sha256 BLOB NOT NULL)""",
    """CREATE TRIGGER audit_keeps_entries BEFORE DELETE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END""",
    """CREATE TRIGGER audit_keeps_content BEFORE UPDATE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END""",
)


def _create(schema: Schema) -> None:
    for statement in _FIRST:
        schema.execute(statement)
    schema.execute("INSERT INTO state VALUES (1, 0, 0, ?)", [GENESIS])


MIGRATIONS: Final = (
    Migration("0001 first tables", _create),
    schema_fleet.MIGRATION,
    schema_models.MIGRATION,
    schema_notices.MIGRATION,
    schema_faults.MIGRATION,
    schema_bursts.MIGRATION,
    schema_joining.MIGRATION,
    schema_reservations.MIGRATION,
)
