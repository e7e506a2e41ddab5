"""What of the control plane's documents is in the books, and the lease's basis beside it."""

import sqlite3
from typing import Any

import msgspec

from appliance.manifests import archive
from appliance.manifests.archive import Kind, SyncState
from appliance.manifests.canonical import decode
from appliance.manifests.documents import Entitlement
from appliance.manifests.envelope import parse
from appliance.sync.lease import Basis


def installed_entitlements(connection: sqlite3.Connection) -> list[Entitlement]:
    """In the order of their installation."""
    return [
        payload(kept.envelope, Entitlement)
        for kept in archive.documents(connection, Kind.ENTITLEMENT)
    ]


def payload(envelope: bytes, cls: type[Any]) -> Any:
    """The document in an envelope that was verified when it was stored."""
    return decode(parse(envelope).payload, cls)


def basis_of(state: SyncState) -> Basis:
    return Basis(state.lease_seen_ns, state.lease_warned_ns, state.receipt_lease)


def with_basis(state: SyncState, basis: Basis) -> SyncState:
    return msgspec.structs.replace(
        state,
        lease_seen_ns=basis.seen_ns,
        lease_warned_ns=basis.warned_ns,
        receipt_lease=basis.receipt_lease,
    )
