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
    first = archive.sync_state(connection).first_key_pem
    pems = [first] if first else []
    for kept in archive.documents(connection, Kind.KEY_ROTATION)[-_LIST_MAX:]:
        pems.append(decode(parse(kept.envelope).payload, KeyRotation).new_key_pem)
    for kept in archive.documents(connection, Kind.EPOCH_GRANT)[-_LIST_MAX:]:
        pems.append(decode(parse(kept.envelope).payload, EpochGrant).key_pem)
    return tuple(PublicKey.from_pem(pem).key_id for pem in pems)


def key_chain(connection: sqlite3.Connection) -> KeyChain:
    """What a bundle carries, so that a stranger comes from the first key to today's."""
    return KeyChain(
        first_key_pem=archive.sync_state(connection).first_key_pem,
        rotations=_envelopes(connection, Kind.KEY_ROTATION),
        grants=_envelopes(connection, Kind.EPOCH_GRANT),
    )


def _envelopes(connection: sqlite3.Connection, kind: Kind) -> tuple[str, ...]:
    return tuple(kept.envelope.decode() for kept in archive.documents(connection, kind))
