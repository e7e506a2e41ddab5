"""Tokens with which machines become nodes: `clnt_<id>.<secret>.<sha256 of the CA's certificate>`.

A token is good once, until it expires. It is bound to a node's name where it gives one; without, it
makes a node that was not known before. What is kept of the secret is its SHA-256.
"""

import hmac
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

from appliance.domain.ids import NodeId
from appliance.registry.errors import InvalidValue, NotFound, TokenRefused
from appliance.registry.names import NAME_CHARS_MAX, check_name
from appliance.registry.node_certificates import Certificate, enter, revoke_all
from appliance.registry.nodes import KIND as NODE
from appliance.registry.nodes import NodeRow, ensure_node, living_node
from appliance.registry.store import Change, Store
from appliance.security.site_ca import Issued

KIND: Final = "node token"
TTL_S_MAX: Final = 30 * 86_400
_ID_BYTES: Final = 8
_SECRET_BYTES: Final = 32
_MAKE_ONE: Final = "Make a new one on the appliance: `cic node token create`."


@dataclass(frozen=True, slots=True)
class TokenRow:
    """`used_at_ns`, `revoked_at_ns`: None where it was not."""

    id: str
    node_name: str | None
    created_at_ns: int
    created_by: str
    expires_at_ns: int
    used_at_ns: int | None
    used_by: NodeId | None
    revoked_at_ns: int | None


class NodeTokens:
    __slots__ = ("_entropy", "_site_region", "_store")

    def __init__(self, store: Store, site_region: str, entropy: Callable[[int], bytes]) -> None:
        self._store = store
        self._site_region = site_region
        self._entropy = entropy

    async def create(
        self, actor: str, *, ttl_s: int, node_name: str | None = None
    ) -> tuple[TokenRow, str]:
        """The token's row, and `<id>.<secret>`, which nobody can show again."""
        if not 1 <= ttl_s <= TTL_S_MAX:
            raise InvalidValue(
                "A token lives from a second to 30 days.", next_step="Give another --ttl."
            )
        if node_name is not None:
            check_name(NODE, node_name)
        identifier, secret = self._entropy(_ID_BYTES).hex(), self._entropy(_SECRET_BYTES).hex()

        def run(change: Change) -> TokenRow:
            row = TokenRow(
                id=identifier,
                node_name=node_name,
                created_at_ns=change.now_ns,
                created_by=change.actor,
                expires_at_ns=change.now_ns + ttl_s * 1_000_000_000,
                used_at_ns=None,
                used_by=None,
                revoked_at_ns=None,
            )
            change.connection.execute(
                "INSERT INTO node_tokens VALUES (?, ?, ?, ?, ?, ?, NULL, NULL, NULL)",
                [
                    *(row.id, _digest(secret), node_name),
                    *(row.created_at_ns, row.created_by, row.expires_at_ns),
                ],
            )
            change.record("create", KIND, row.id, node_name or "", None, row)
            return row

        return await self._store.change(actor, run), f"{identifier}.{secret}"

    async def list(self) -> list[TokenRow]:
        """The newest first, used and expired ones included."""
        return await self._store.read(
            lambda connection: [
                _row(row)
                for row in connection.execute(
                    "SELECT * FROM node_tokens ORDER BY created_at_ns DESC, id"
                )
            ]
        )

    async def revoke(self, actor: str, identifier: str) -> TokenRow:
        """Nobody joins with it any more. Raises NotFound."""

        def run(change: Change) -> TokenRow:
            before = _find(change.connection, identifier)
            if before is None:
                raise NotFound(
                    f"There is no token {identifier!r}.",
                    next_step="List them with `cic node token list`.",
                )
            return before if before.revoked_at_ns is not None else _revoke(change, before)

        return await self._store.change(actor, run)

    async def revoke_of(self, actor: str, node_name: str) -> None:
        """Nobody becomes that node any more with a token that was not used."""

        def run(change: Change) -> None:
            rows = change.connection.execute(
                "SELECT * FROM node_tokens WHERE node_name = ? AND used_at_ns IS NULL"
                " AND revoked_at_ns IS NULL AND expires_at_ns > ?",
                [node_name, change.now_ns],
            ).fetchall()
            for row in rows:
                _revoke(change, _row(row))

        await self._store.change(actor, run)

    async def redeem(
        self,
        actor: str,
        identifier: str,
        secret: str,
        node_name: str,
        host_name: str,
        issue: Callable[[NodeId], Issued],
    ) -> tuple[NodeRow, Certificate, Issued]:
        """Use a token up for a node and its certificate, all in one transaction.

        `node_name` "": the token's, else `host_name`, with a number behind it where it is taken.
        `issue` makes the certificate when the node's id is known; what it raises leaves the token
        unused. Raises TokenRefused, InvalidValue.
        """

        def run(change: Change) -> tuple[NodeRow, Certificate, Issued]:
            token = self._usable(change, identifier, secret)
            name = node_name or token.node_name or _free(change.connection, host_name)
            if token.node_name not in (None, name):
                raise TokenRefused(
                    f"This token is for the node {token.node_name!r}.",
                    next_step=f"Join with --name {token.node_name}, or make another token.",
                )
            known = living_node(change.connection, name)
            if known is not None and token.node_name is None:
                raise TokenRefused(
                    f"There is a node {name!r} already.",
                    next_step="Join with another --name; or, if it is the same machine, with a"
                    f" token of its own: `cic node token create --node {name}`.",
                )
            node = known or ensure_node(change, name, self._site_region)
            issued = issue(node.id)
            revoke_all(change, node)  # what it had before is nobody's now
            certificate = enter(change, node.id, issued)
            change.connection.execute(
                "UPDATE node_tokens SET used_at_ns = ?, used_by = ? WHERE id = ?",
                [change.now_ns, node.id, identifier],
            )
            change.record("join", NODE, node.id, node.name, None, certificate)
            return node, certificate, issued

        return await self._store.change(actor, run)

    def _usable(self, change: Change, identifier: str, secret: str) -> TokenRow:
        row = change.connection.execute(
            "SELECT * FROM node_tokens WHERE id = ?", [identifier]
        ).fetchone()
        stored = b"" if row is None else bytes(row["digest"])
        # Who does not have the secret learns nothing about the token.
        if not hmac.compare_digest(stored, _digest(secret)):
            raise TokenRefused("This token is none of this site's.", next_step=_MAKE_ONE)
        token = _row(row)
        if token.revoked_at_ns is not None:
            raise TokenRefused("This token was revoked.", next_step=_MAKE_ONE)
        if token.used_at_ns is not None:
            raise TokenRefused("This token was used before: it is good once.", next_step=_MAKE_ONE)
        if change.now_ns >= token.expires_at_ns:
            raise TokenRefused("This token has expired.", next_step=_MAKE_ONE)
        return token


def _free(connection: sqlite3.Connection, name: str) -> str:
    """That name, or the first with a number that no living node has."""
    check_name(NODE, name)
    number, free = 1, name
    while living_node(connection, free) is not None:
        number += 1
        free = f"{name[: NAME_CHARS_MAX - 8]}-{number}"
    return free


def _revoke(change: Change, before: TokenRow) -> TokenRow:
    change.connection.execute(
        "UPDATE node_tokens SET revoked_at_ns = ? WHERE id = ?", [change.now_ns, before.id]
    )
    after = replace(before, revoked_at_ns=change.now_ns)
    change.record("revoke", KIND, before.id, before.node_name or "", before, after)
    return after


def _digest(secret: str) -> bytes:
    return sha256(secret.encode()).digest()


def _find(connection: sqlite3.Connection, identifier: str) -> TokenRow | None:
    row = connection.execute("SELECT * FROM node_tokens WHERE id = ?", [identifier]).fetchone()
    return None if row is None else _row(row)


def _row(row: sqlite3.Row) -> TokenRow:
    return TokenRow(
        id=row["id"],
        node_name=row["node_name"],
        created_at_ns=row["created_at_ns"],
        created_by=row["created_by"],
        expires_at_ns=row["expires_at_ns"],
        used_at_ns=row["used_at_ns"],
        used_by=row["used_by"],
        revoked_at_ns=row["revoked_at_ns"],
    )
