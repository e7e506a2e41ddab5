"""What a site is given when it asks: everything that is in force, and now and then a new lease."""

from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection

from appliance.controlplane import documents, receipts, sites
from appliance.controlplane.signed_requests import Signed, admit
from appliance.controlplane.sites import Site
from appliance.manifests.bundle import write_receipts
from appliance.manifests.keys import open_receipt
from appliance.manifests.moments import MS_NS, moment_ms
from appliance.security.signing import SigningKey

RENEW_MS: Final = 86_400_000  # a site that has nothing to report gets a new lease once a day


def pulled(
    connection: Connection,
    signed: Signed,
    epoch: str,
    head: str,
    key: SigningKey,
    now_ns: int,
    entropy: Callable[[int], bytes],
) -> bytes:
    """The `.receipt` for the site that signed. `epoch`, `head`: how far it knows it is accepted.

    With a revoked key it is told of the revocation and of grants, and nothing else. Raises
    RequestRefused.
    """
    caller = admit(connection, signed, now_ns)
    site = caller.site
    if caller.revoked:
        return write_receipts(site.appliance_id, receipts.decisions_for(connection, site))
    agrees = epoch == str(site.state.epoch) and head == site.state.head_sha256
    if agrees and not site.frozen and _is_old(connection, site, key, now_ns):
        locked = sites.lock(connection, site.appliance_id)
        assert locked is not None  # sites are never deleted
        receipts.state_of_things(connection, locked, key, now_ns, entropy, renew=True)
    return write_receipts(site.appliance_id, receipts.all_for(connection, site, key))


def _is_old(connection: Connection, site: Site, key: SigningKey, now_ns: int) -> bool:
    newest = documents.newest(connection, site.appliance_id, receipts.KIND)
    if newest is None:
        return True
    told = open_receipt(newest, key.public)
    return moment_ms(told.received_at) + RENEW_MS <= now_ns // MS_NS
