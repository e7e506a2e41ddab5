"""What the health of nodes added to registry.db: the faults that are open."""

from typing import Final

from appliance.storage.database import Migration, Schema


def _extend(schema: Schema) -> None:
    # `gpu_uuid` is "" for a fault of the node itself; `fault` is the GpuFault as JSON.
    schema.execute(
        """CREATE TABLE node_faults (
        node_id TEXT NOT NULL REFERENCES nodes,
        code TEXT NOT NULL,
        gpu_uuid TEXT NOT NULL,
        fault TEXT NOT NULL,
        PRIMARY KEY (node_id, code, gpu_uuid)) WITHOUT ROWID"""
    )


MIGRATION: Final = Migration("0004 open faults of nodes", _extend)
