"""What a fleet of GPU nodes added to registry.db: wishes for nodes, settings of engines, seats of
replicas, measured profiles.
"""

from typing import Final

from appliance.storage.database import Migration, Schema

_COLUMNS: Final = (
    # What an administrator wants of a node, why, by whom and since when.
    "ALTER TABLE nodes ADD COLUMN wish TEXT NOT NULL DEFAULT 'serving'",
    "ALTER TABLE nodes ADD COLUMN wish_reason TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE nodes ADD COLUMN wish_actor TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE nodes ADD COLUMN wished_at_ns INTEGER",
    "UPDATE nodes SET wish = 'maintenance' WHERE suspended",
    "ALTER TABLE nodes DROP COLUMN suspended",
    "ALTER TABLE deployments ADD COLUMN settings TEXT NOT NULL DEFAULT '{}'",
    "ALTER TABLE deployments ADD COLUMN strategy TEXT NOT NULL DEFAULT 'auto'",
    "ALTER TABLE deployments ADD COLUMN pins TEXT NOT NULL DEFAULT '[]'",  # ids of nodes
    "ALTER TABLE deployments ADD COLUMN idle_s INTEGER",
    # A replica belongs to one generation of its deployment for life. While a change is rolled out,
    # or a replica moves, two living ones have the same ordinal.
    "DROP INDEX replicas_living",
    "ALTER TABLE replicas ADD COLUMN generation INTEGER NOT NULL DEFAULT 1",
    "ALTER TABLE replicas ADD COLUMN gpu_uuids TEXT NOT NULL DEFAULT '[]'",
    # The further nodes of a replica that spans several, in the order of their ranks.
    "ALTER TABLE replicas ADD COLUMN followers TEXT NOT NULL DEFAULT '[]'",
    """UPDATE replicas SET generation =
        (SELECT generation FROM deployments d WHERE d.id = deployment_id)""",
    """CREATE INDEX replicas_living ON replicas (deployment_id, ordinal)
        WHERE deleted_at_ns IS NULL""",
)

_TABLES: Final = (
    # What replicas of a generation are made from. An old one is needed for as long as it serves.
    """CREATE TABLE generations (
        deployment_id TEXT NOT NULL REFERENCES deployments,
        generation INTEGER NOT NULL,
        model_id TEXT NOT NULL REFERENCES models,
        parallel INTEGER NOT NULL,
        context_tokens INTEGER,
        embedding INTEGER NOT NULL,
        settings TEXT NOT NULL,
        PRIMARY KEY (deployment_id, generation)) WITHOUT ROWID""",
    """INSERT INTO generations SELECT id, generation, model_id, parallel, context_tokens,
        embedding, settings FROM deployments WHERE model_id IS NOT NULL""",
    # What an engine with that model, those settings and those GPUs was seen to need and to give.
    """CREATE TABLE profiles (
        model_digest TEXT NOT NULL,
        shape TEXT NOT NULL,
        hardware TEXT NOT NULL,
        engine_version TEXT NOT NULL,
        gpu_memory_bytes INTEGER,
        loaded_ms INTEGER,
        tokens_per_s INTEGER,
        prefill_tokens_per_s INTEGER,
        measured_at_ns INTEGER NOT NULL,
        PRIMARY KEY (model_digest, shape, hardware)) WITHOUT ROWID""",
)


def _extend(schema: Schema) -> None:
    for statement in (*_COLUMNS, *_TABLES):
        schema.execute(statement)


MIGRATION: Final = Migration("0002 fleet of GPU nodes", _extend)
