"""Receipts: the control plane's signed answer, and all that a site is to be told with it."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from appliance.controlplane import documents, licences
from appliance.controlplane.billing import price_book, tenants
from appliance.controlplane.sites import Site
from appliance.manifests.bundle import CarriedDocument
from appliance.manifests.canonical import encode
from appliance.manifests.checkpoint import cosign, open_checkpoint
from appliance.manifests.documents import (
    PLANS_TYPE,
    PRICE_BOOK_TYPE,
    RECEIPT_TYPE,
    Disposition,
    Receipt,
)
from appliance.manifests.envelope import sign
from appliance.manifests.errors import BadCheckpoint
from appliance.manifests.moments import MS_NS, moment
from appliance.security.signing import SigningKey

log = logging.getLogger(__name__)

KIND: Final = "receipt"
_ID_BYTES: Final = 12
_NONCE_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Signed:
    """A receipt and the envelope that carries it, byte for byte as it is kept."""

    receipt: Receipt
    envelope: bytes


def new_id(entropy: Callable[[int], bytes]) -> str:
    return f"rcp_{entropy(_ID_BYTES).hex()}"


def make(
    site: Site,
    dispositions: Sequence[Disposition],
    *,
    receipt_id: str,
    lease_until: str,
    checkpoint: str,
    key: SigningKey,
    now_ns: int,
    entropy: Callable[[int], bytes],
) -> Signed:
    """Sign what became of manifests, and where the site stands after them."""
    state = site.state
    receipt = Receipt(
        receipt_id=receipt_id,
        appliance_id=site.appliance_id,
        epoch=state.epoch,
        accepted_through=state.accepted_through,
        head_sha256=state.head_sha256,
        log_size=state.log.size,
        log_root=state.log.root().hex(),
        dispositions=tuple(dispositions),
        frozen=state.frozen,
        received_at=moment(now_ns // MS_NS),
        nonce=entropy(_NONCE_BYTES).hex(),
        lease_until=lease_until,
        checkpoint=checkpoint,
    )
    return Signed(receipt, sign(RECEIPT_TYPE, encode(receipt), key).to_bytes())


def cosigned(raw: bytes, site: Site, name: str, key: SigningKey, now_ns: int) -> str:
    """The site's checkpoint with our signature beside its own, if it is of this very log."""
    if not raw:
        return ""
    try:
        checkpoint = open_checkpoint(raw, site.known)
    except BadCheckpoint as error:
        log.warning(
            "checkpoint not cosigned",
            extra={"appliance_id": site.appliance_id, "reason": error.message},
        )
        return ""
    if checkpoint.size != site.state.log.size or checkpoint.root != site.state.log.root():
        return ""  # of a log that has not arrived yet, or did before
    return cosign(checkpoint, name, key, now_ns // 1_000_000_000).note()


def keep(connection: Connection, signed: Signed, now_ns: int) -> None:
    """Store a receipt in the transaction of what it says."""
    receipt = signed.receipt
    documents.store(
        connection, receipt.appliance_id, KIND, receipt.receipt_id, now_ns, signed.envelope
    )


def state_of_things(
    connection: Connection,
    site: Site,
    key: SigningKey,
    now_ns: int,
    entropy: Callable[[int], bytes],
    *,
    renew: bool,
) -> Signed:
    """A receipt about no manifest: where the site stands now. `renew` begins the lease anew."""
    signed = make(
        site,
        (),
        receipt_id=new_id(entropy),
        lease_until=lease_of(connection, site, now_ns, renew=renew),
        checkpoint="",
        key=key,
        now_ns=now_ns,
        entropy=entropy,
    )
    keep(connection, signed, now_ns)
    return signed


def lease_of(connection: Connection, site: Site, now_ns: int, *, renew: bool) -> str:
    """Until when the site may work: from now on if it is to be renewed, else as told last."""
    last = documents.newest(connection, site.appliance_id, KIND)
    entitlement = licences.in_force(connection, site.appliance_id)
    if renew and not site.frozen:
        return licences.next_lease(entitlement, site.lease_days, now_ns // MS_NS)
    if entitlement is None:
        return ""
    told = "" if last is None else licences.lease_told(last)
    return min(told or entitlement.lease_until, entitlement.expires)


def all_for(connection: Connection, site: Site, key: SigningKey) -> list[CarriedDocument]:
    """Everything a site needs to know: the newest of each kind, every revocation and grant.

    Price book and plans are signed as they are now; the same ones give the same bytes.
    """
    found = decisions_for(connection, site)
    for kind in (KIND, licences.KIND):
        newest = documents.newest(connection, site.appliance_id, kind)
        if newest is not None:
            found.append(CarriedDocument(kind, newest))
    book = price_book.document(connection)
    if book is not None:
        envelope = sign(PRICE_BOOK_TYPE, encode(book), key).to_bytes()
        found.append(CarriedDocument("price-book", envelope))
    plans = tenants.document(connection, site.appliance_id)
    if plans is not None:
        found.append(CarriedDocument("plans", sign(PLANS_TYPE, encode(plans), key).to_bytes()))
    return found


def decisions_for(connection: Connection, site: Site) -> list[CarriedDocument]:
    """Every revocation and epoch grant: what a site must be told even when its key is revoked."""
    return [
        CarriedDocument(kind, raw)
        for kind in ("key-revocation", "epoch-grant")
        for raw in documents.envelopes(connection, site.appliance_id, kind)
    ]
