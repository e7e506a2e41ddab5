"""What models of several files and model packs added to registry.db."""

from typing import Final

from appliance.storage.database import Migration, Schema

_STATEMENTS: Final = (
    # Every file as JSON; '[]': one file, whose name is the last part of `path` (before packs).
    "ALTER TABLE models ADD COLUMN files TEXT NOT NULL DEFAULT '[]'",
    # What a pack says beside the weights, as JSON.
    "ALTER TABLE models ADD COLUMN facts TEXT NOT NULL DEFAULT '{}'",
    # Whose signature on a model pack is accepted here.
    """CREATE TABLE publishers (
        key_id TEXT PRIMARY KEY,
        pem TEXT NOT NULL,
        trusted_by TEXT NOT NULL,
        trusted_at_ns INTEGER NOT NULL) WITHOUT ROWID""",
    # Licences that somebody accepted for this site, by the SHA-256 of their name and text.
    """CREATE TABLE licences (
        sha256 TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        model TEXT NOT NULL,
        accepted_by TEXT NOT NULL,
        accepted_at_ns INTEGER NOT NULL) WITHOUT ROWID""",
)


def _extend(schema: Schema) -> None:
    for statement in _STATEMENTS:
        schema.execute(statement)


MIGRATION: Final = Migration("0003 models of several files, model packs", _extend)
