"""Whose model packs are taken on this site, and which licences somebody accepted for it."""

import sqlite3
from dataclasses import dataclass
from typing import Final

from appliance.registry.store import Change, Store

PUBLISHER: Final = "publisher"
LICENCE: Final = "licence"


@dataclass(frozen=True, slots=True)
class PublisherRow:
    key_id: str  # SHA-256 of the key, 64 hex digits
    pem: str
    trusted_by: str
    trusted_at_ns: int


@dataclass(frozen=True, slots=True)
class LicenceRow:
    sha256: str  # of its name and text
    name: str
    model: str  # it was accepted with
    accepted_by: str
    accepted_at_ns: int


class Packs:
    __slots__ = ("_store",)

    def __init__(self, store: Store) -> None:
        self._store = store

    async def publishers(self) -> list[PublisherRow]:
        """By the time they were first trusted."""
        return await self._store.read(
            lambda connection: [
                PublisherRow(*row)
                for row in connection.execute("SELECT * FROM publishers ORDER BY trusted_at_ns")
            ]
        )

    async def trust(self, actor: str, key_id: str, pem: str) -> None:
        """Take packs with this signature from now on. Again: nothing changes."""

        def run(change: Change) -> None:
            row = PublisherRow(key_id, pem, change.actor, change.now_ns)
            known = change.connection.execute(
                "SELECT 1 FROM publishers WHERE key_id = ?", [key_id]
            ).fetchone()
            if known is None:
                change.connection.execute(
                    "INSERT INTO publishers VALUES (?, ?, ?, ?)",
                    [row.key_id, row.pem, row.trusted_by, row.trusted_at_ns],
                )
                change.record("trust", PUBLISHER, key_id, key_id[:16], None, row)

        await self._store.change(actor, run)

    async def accepted(self, sha256: str) -> LicenceRow | None:
        return await self._store.read(lambda connection: _licence(connection, sha256))

    async def accept(self, actor: str, sha256: str, name: str, model: str) -> None:
        """Note who accepted a licence. Again: the first one stays."""

        def run(change: Change) -> None:
            if _licence(change.connection, sha256) is None:
                row = LicenceRow(sha256, name, model, change.actor, change.now_ns)
                change.connection.execute(
                    "INSERT INTO licences VALUES (?, ?, ?, ?, ?)",
                    [row.sha256, row.name, row.model, row.accepted_by, row.accepted_at_ns],
                )
                change.record("accept", LICENCE, sha256, name, None, row)

        await self._store.change(actor, run)


def _licence(connection: sqlite3.Connection, sha256: str) -> LicenceRow | None:
    row = connection.execute("SELECT * FROM licences WHERE sha256 = ?", [sha256]).fetchone()
    return None if row is None else LicenceRow(*row)
