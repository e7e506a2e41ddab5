"""Which keys this appliance ever signed with, by its own rotations and the grants it was given."""

import sqlite3
from typing import Final

from appliance.manifests import archive
from appliance.manifests.archive import Kind
from appliance.manifests.bundle import KeyChain
from appliance.manifests.canonical import decode
from appliance.manifests.documents import EpochGrant, KeyRotation
from appliance.manifests.envelope import parse
from appliance.security.signing import PublicKey

_LIST_MAX: Final = 1_000  # a site that rotates every day would need three years


def own_key_ids(connection: sqlite3.Connection) -> tuple[str, ...]:
    """Oldest first. Empty only in a file that never belonged to a site."""
    return tuple(key.key_id for key in own_keys(connection))


def known_keys(connection: sqlite3.Connection) -> list[PublicKey]:
    """Every public key that this site trusts: its own, and its control plane's when pinned."""
    pinned = archive.sync_state(connection).control_plane_key_pem
    return [*own_keys(connection), *([PublicKey.from_pem(pinned)] if pinned else [])]


def own_keys(connection: sqlite3.Connection) -> list[PublicKey]:
    """Oldest first, as `own_key_ids`."""
    first = archive.sync_state(connection).first_key_pem
    pems = [first] if first else []
    rotations = archive.documents(connection, Kind.KEY_ROTATION)[-_LIST_MAX:]
    grants = archive.documents(connection, Kind.EPOCH_GRANT)[-_LIST_MAX:]
    pems += [decode(parse(one.envelope).payload, KeyRotation).new_key_pem for one in rotations]
    pems += [decode(parse(one.envelope).payload, EpochGrant).key_pem for one in grants]
    return [PublicKey.from_pem(pem) for pem in pems]


def key_chain(connection: sqlite3.Connection) -> KeyChain:
    """What a bundle carries, so that a stranger comes from the first key to today's."""
    return KeyChain(
        first_key_pem=archive.sync_state(connection).first_key_pem,
        rotations=_envelopes(connection, Kind.KEY_ROTATION),
        grants=_envelopes(connection, Kind.EPOCH_GRANT),
    )


def _envelopes(connection: sqlite3.Connection, kind: Kind) -> tuple[str, ...]:
    return tuple(kept.envelope.decode() for kept in archive.documents(connection, kind))
