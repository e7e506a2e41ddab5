"""What lent machines added to registry.db: the notices that people give of a node's end."""

from typing import Final

from appliance.storage.database import Migration, Schema


def _extend(schema: Schema) -> None:
    schema.execute(
        """CREATE TABLE node_notices (
        node_id TEXT PRIMARY KEY REFERENCES nodes,
        at_ns INTEGER NOT NULL,
        seen_ns INTEGER NOT NULL,
        detail TEXT NOT NULL) WITHOUT ROWID"""
    )


MIGRATION: Final = Migration("0003 notices of ends of nodes", _extend)
