"""Certificates that nodes got: which are good, and which are denied before they expire."""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from appliance.domain.ids import NodeId
from appliance.registry.errors import CertificateRefused
from appliance.registry.nodes import KIND, NodeRow, find_node
from appliance.registry.store import Change, Store
from appliance.security.site_ca import Issued

_OF_SERIAL: Final = (
    "SELECT c.*, n.name AS node_name FROM node_certificates c"
    " JOIN nodes n ON n.id = c.node_id AND n.deleted_at_ns IS NULL WHERE c.serial = ?"
)
# Of a node that is renewed twice a day, a month.
_KEPT_OF_NODE: Final = 64
_JOIN: Final = "Join again: `cic node token create --node NAME` on the appliance."


@dataclass(frozen=True, slots=True)
class Certificate:
    serial: str
    node_id: NodeId
    node_name: str
    issued_at_ns: int
    expires_at_ns: int
    revoked_at_ns: int | None


class NodeCertificates:
    __slots__ = ("_store",)

    def __init__(self, store: Store) -> None:
        self._store = store

    async def check(self, serial: str) -> Certificate:
        """The good certificate of that serial. Raises CertificateRefused: revoked, or not ours."""
        return await self._store.read(lambda connection: _good(connection, serial))

    async def list(self, ref: str | None = None) -> list[Certificate]:
        """Of one node or of all that there are; the newest first."""

        def query(connection: sqlite3.Connection) -> list[Certificate]:
            node = None if ref is None else find_node(connection, ref).id
            rows = connection.execute(
                "SELECT c.*, n.name AS node_name FROM node_certificates c"
                " JOIN nodes n ON n.id = c.node_id AND n.deleted_at_ns IS NULL"
                " WHERE ? IS NULL OR c.node_id = ?"
                " ORDER BY c.issued_at_ns DESC, c.serial",
                [node, node],
            )
            return [_row(row) for row in rows]

        return await self._store.read(query)

    async def holders(self) -> set[NodeId]:
        """The nodes with a certificate that is not revoked."""
        return await self._store.read(
            lambda connection: {
                row["node_id"]
                for row in connection.execute(
                    "SELECT DISTINCT c.node_id FROM node_certificates c JOIN nodes n"
                    " ON n.id = c.node_id AND n.deleted_at_ns IS NULL"
                    " WHERE c.revoked_at_ns IS NULL"
                )
            }
        )

    async def denied(self) -> set[NodeId]:
        """The nodes that hold revoked certificates alone."""
        return await self._store.read(
            lambda connection: {
                row["node_id"]
                for row in connection.execute(
                    "SELECT node_id FROM node_certificates GROUP BY node_id"
                    " HAVING count(*) = count(revoked_at_ns)"
                )
            }
        )

    async def renew(self, actor: str, serial: str, issue: Callable[[NodeId], Issued]) -> Issued:
        """Another certificate for the holder of a good one. Raises CertificateRefused."""

        def run(change: Change) -> Issued:
            held = _good(change.connection, serial)
            issued = issue(held.node_id)
            after = enter(change, held.node_id, issued)
            change.record("renew", KIND, held.node_id, held.node_name, held, after)
            return issued

        return await self._store.change(actor, run)

    async def revoke(self, actor: str, ref: str) -> int:
        """Deny every certificate of a node, at once; how many those are. Raises NotFound."""

        def run(change: Change) -> int:
            node = find_node(change.connection, ref)
            count = revoke_all(change, node)
            change.record("revoke", KIND, node.id, node.name, None, {"certificates": count})
            return count

        return await self._store.change(actor, run)


def enter(change: Change, node_id: NodeId, issued: Issued) -> Certificate:
    """Remember a certificate; what is older than a month of renewals is forgotten."""
    change.connection.execute(
        "INSERT INTO node_certificates VALUES (?, ?, ?, ?, NULL)",
        [issued.serial, node_id, change.now_ns, issued.not_after_ns],
    )
    change.connection.execute(
        "DELETE FROM node_certificates WHERE node_id = ? AND serial NOT IN (SELECT serial FROM"
        " node_certificates WHERE node_id = ? ORDER BY issued_at_ns DESC LIMIT ?)",
        [node_id, node_id, _KEPT_OF_NODE],
    )
    return _good(change.connection, issued.serial)


def revoke_all(change: Change, node: NodeRow) -> int:
    """Deny what the node holds."""
    return change.connection.execute(
        "UPDATE node_certificates SET revoked_at_ns = ?"
        " WHERE node_id = ? AND revoked_at_ns IS NULL",
        [change.now_ns, node.id],
    ).rowcount


def _good(connection: sqlite3.Connection, serial: str) -> Certificate:
    row = connection.execute(_OF_SERIAL, [serial]).fetchone()
    if row is None:
        raise CertificateRefused("This certificate is of no node of this site.", next_step=_JOIN)
    if row["revoked_at_ns"] is not None:
        raise CertificateRefused("This certificate was revoked.", next_step=_JOIN)
    return _row(row)


def _row(row: sqlite3.Row) -> Certificate:
    return Certificate(
        serial=row["serial"],
        node_id=row["node_id"],
        node_name=row["node_name"],
        issued_at_ns=row["issued_at_ns"],
        expires_at_ns=row["expires_at_ns"],
        revoked_at_ns=row["revoked_at_ns"],
    )
