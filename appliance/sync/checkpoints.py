"""The site's own statement of its log of manifests, as it stands."""

import sqlite3

from appliance.manifests import archive
from appliance.manifests.checkpoint import sign_checkpoint
from appliance.manifests.merkle import Frontier
from appliance.security.signing import SigningKey


def site_checkpoint(connection: sqlite3.Connection, appliance_id: str, key: SigningKey) -> bytes:
    """A signed note over everything that was sealed so far."""
    raw = archive.chain_state(connection).frontier
    log = Frontier.from_bytes(raw) if raw else Frontier()
    return sign_checkpoint(appliance_id, log, key).note().encode()
