"""What joining added to registry.db: tokens of nodes, and the certificates they got."""

from typing import Final

from appliance.storage.database import Migration, Schema


def _extend(schema: Schema) -> None:
    # `digest` is the SHA-256 of the secret: 32 random bytes need no slow hash.
    schema.execute(
        """CREATE TABLE node_tokens (
        id TEXT PRIMARY KEY,
        digest BLOB NOT NULL,
        node_name TEXT,
        created_at_ns INTEGER NOT NULL,
        created_by TEXT NOT NULL,
        expires_at_ns INTEGER NOT NULL,
        used_at_ns INTEGER,
        used_by TEXT REFERENCES nodes,
        revoked_at_ns INTEGER) WITHOUT ROWID"""
    )
    schema.execute(
        """CREATE TABLE node_certificates (
        serial TEXT PRIMARY KEY,
        node_id TEXT NOT NULL REFERENCES nodes,
        issued_at_ns INTEGER NOT NULL,
        expires_at_ns INTEGER NOT NULL,
        revoked_at_ns INTEGER) WITHOUT ROWID"""
    )
    schema.execute("CREATE INDEX node_certificates_of_node ON node_certificates (node_id)")


MIGRATION: Final = Migration("0006 joining of nodes", _extend)
