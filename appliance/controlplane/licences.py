"""Entitlements: what a site may do, for how long, and the lease that receipts renew."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import msgspec
from sqlalchemy import Connection, select

from appliance.controlplane import documents, sites
from appliance.controlplane.site_tables import SITES
from appliance.controlplane.sites import Site
from appliance.manifests.canonical import decode, encode
from appliance.manifests.documents import ENTITLEMENT_TYPE, Entitlement, Receipt
from appliance.manifests.envelope import parse, sign
from appliance.manifests.moments import moment, moment_ms
from appliance.security.signing import SigningKey

DAY_MS: Final = 86_400_000
MS_NS: Final = 1_000_000
KIND: Final = "entitlement"
_ID_BYTES: Final = 12


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator grants. Limits of 0 and an empty list of models mean: none is set."""

    customer: str
    expires: str = ""  # a moment; "" is `valid_days` after the issue
    valid_days: int = 365
    lease_days: int = 30
    grace_days: int = 14
    gpu_count: int = 0
    reserved_tokens_per_s: int = 0
    models: tuple[str, ...] = ()
    offline_report_days_max: int = 0
    throttle_tokens_per_s: int = 0


def issue(
    connection: Connection,
    site: Site,
    terms: Terms,
    key: SigningKey,
    now_ns: int,
    entropy: Callable[[int], bytes],
) -> Entitlement:
    """Sign an entitlement for a locked site and keep it; the newest is the one in force."""
    now_ms = now_ns // MS_NS
    expires_ms = moment_ms(terms.expires) if terms.expires else now_ms + terms.valid_days * DAY_MS
    entitlement = Entitlement(
        entitlement_id=f"ent_{entropy(_ID_BYTES).hex()}",
        customer=terms.customer,
        appliance_id=site.appliance_id,
        appliance_key_id=site.known.keys[-1].key.key_id,
        not_before=moment(now_ms),
        expires=moment(expires_ms),
        lease_until=moment(min(now_ms + terms.lease_days * DAY_MS, expires_ms)),
        grace_days=terms.grace_days,
        gpu_count=terms.gpu_count,
        reserved_tokens_per_s=terms.reserved_tokens_per_s,
        models=terms.models,
        offline_report_days_max=terms.offline_report_days_max,
        revocation_epoch=len(documents.envelopes(connection, site.appliance_id, "key-revocation")),
        throttle_tokens_per_s=terms.throttle_tokens_per_s,
        issued_at=moment(now_ms),
    )
    envelope = sign(ENTITLEMENT_TYPE, encode(entitlement), key).to_bytes()
    documents.store(
        connection, site.appliance_id, KIND, entitlement.entitlement_id, now_ns, envelope
    )
    sites.store_terms(
        connection, replace(site, customer=terms.customer, lease_days=terms.lease_days)
    )
    return entitlement


def in_force(connection: Connection, appliance_id: str) -> Entitlement | None:
    """The newest entitlement of a site."""
    raw = documents.newest(connection, appliance_id, KIND)
    return None if raw is None else decode(parse(raw).payload, Entitlement)


def terms_of(connection: Connection, appliance_id: str) -> Terms | None:
    """What was granted last, as a beginning of what is granted next."""
    entitlement = in_force(connection, appliance_id)
    if entitlement is None:
        return None
    lease_days = connection.execute(
        select(SITES.c.lease_days).where(SITES.c.appliance_id == appliance_id)
    ).scalar_one()
    return Terms(
        customer=entitlement.customer,
        expires=entitlement.expires,
        lease_days=lease_days,
        grace_days=entitlement.grace_days,
        gpu_count=entitlement.gpu_count,
        reserved_tokens_per_s=entitlement.reserved_tokens_per_s,
        models=entitlement.models,
        offline_report_days_max=entitlement.offline_report_days_max,
        throttle_tokens_per_s=entitlement.throttle_tokens_per_s,
    )


def next_lease(entitlement: Entitlement | None, lease_days: int, now_ms: int) -> str:
    """Until when a receipt of now lets the site work; "" without an entitlement."""
    if entitlement is None:
        return ""
    return moment(min(now_ms + lease_days * DAY_MS, moment_ms(entitlement.expires)))


def lease_told(receipt_envelope: bytes) -> str:
    """What a receipt of our own said of the lease."""
    return decode(parse(receipt_envelope).payload, Receipt).lease_until
