"""What the vendor decides about a site's keys and its chain: each act signed, kept and audited."""

import json
import logging
from dataclasses import replace
from typing import Final

from sqlalchemy import Connection, delete, select

from appliance.controlplane import audit, documents, evidence, licences, receipts, sites
from appliance.controlplane.enrolment import Act
from appliance.controlplane.errors import NotPossible
from appliance.controlplane.evidence import Caps, Refused
from appliance.controlplane.examined import unpack
from appliance.controlplane.site_tables import MANIFESTS, ManifestState
from appliance.controlplane.sites import Site
from appliance.manifests.canonical import encode
from appliance.manifests.codes import Code
from appliance.manifests.documents import (
    EPOCH_GRANT_TYPE,
    REVOCATION_TYPE,
    EpochGrant,
    KeyRevocation,
)
from appliance.manifests.envelope import sign
from appliance.manifests.epochs import granted_state, make_grant
from appliance.manifests.errors import ManifestError
from appliance.manifests.keys import Place, granted, open_enrolment, revoked, rotated
from appliance.manifests.moments import MS_NS, moment
from appliance.manifests.verify import Finding
from appliance.security.signing import PublicKey

log = logging.getLogger(__name__)

GRANT: Final = "epoch-grant"
REVOCATION: Final = "key-revocation"
ROTATION: Final = "key-rotation"
_PAGE: Final = 100


def freeze(connection: Connection, act: Act, reference: str, reason: str) -> Site:
    """Take nothing more from a site until it is freed. Raises UnknownSite."""
    site = sites.find(connection, reference, lock=True)
    return _set_frozen(connection, act, site, sites.frozen(site, reason), "freeze", reason)


def unfreeze(connection: Connection, act: Act, reference: str, reason: str) -> Site:
    """Take manifests again: the chain that was accepted is the true one. Raises UnknownSite."""
    site = sites.find(connection, reference, lock=True)
    return _set_frozen(connection, act, site, sites.freed(site), "unfreeze", reason)


def revoke_key(
    connection: Connection, act: Act, reference: str, key_id: str, place: Place | None, reason: str
) -> KeyRevocation:
    """Refuse what a key signs from `place` on; without one, from the next manifest on.

    Raises UnknownSite, or NotPossible: no such key, or manifests from there are accepted already.
    """
    site = sites.find(connection, reference, lock=True)
    of_id = {
        one.key.key_id for one in site.known.keys if key_id and one.key.key_id.startswith(key_id)
    }
    if len(of_id) != 1:
        raise NotPossible(
            f"'{key_id}' names {len(of_id)} keys of {site.name}.",
            next_step=f"`cic control-plane sites show {site.name}` lists them.",
        )
    following = (site.state.epoch, site.state.accepted_through + 1)
    at = place or following
    if at < following:
        raise NotPossible(
            f"Manifests from {at[0]}-{at[1]} on are accepted and posted already.",
            next_step=f"Revoke from {following[0]}-{following[1]} on, and correct what was billed"
            " with an adjustment.",
        )
    revocation = KeyRevocation(
        appliance_id=site.appliance_id,
        key_id=of_id.pop(),
        epoch=at[0],
        seq=at[1],
        reason=reason,
        at=moment(act.now_ns // MS_NS),
    )
    envelope = sign(REVOCATION_TYPE, encode(revocation), act.key).to_bytes()
    document_id = f"{revocation.key_id[:32]}-{at[0]}-{at[1]}"
    if documents.by_id(connection, site.appliance_id, REVOCATION, document_id) is not None:
        raise NotPossible("The key is revoked from there on already.", next_step="")
    changed = replace(site, known=revoked(site.known, revocation))
    sites.store_keys(connection, changed)
    documents.store(connection, site.appliance_id, REVOCATION, document_id, act.now_ns, envelope)
    after = json.dumps({"key_id": revocation.key_id, "epoch": at[0], "seq": at[1]})
    _note(connection, act, site, "revoke-key", None, after, reason)
    return revocation


def grant_epoch(
    connection: Connection, act: Act, reference: str, key: PublicKey | None, reason: str
) -> EpochGrant:
    """Let `key`, or the site's newest, begin a new epoch on the head that was accepted last.

    What waited behind a gap of the old epoch becomes evidence. Raises UnknownSite, NotPossible.
    """
    site = sites.find(connection, reference, lock=True)
    newest = site.known.keys[-1]
    signer = key or newest.key
    grant = make_grant(site.state, site.appliance_id, signer, reason, moment(act.now_ns // MS_NS))
    try:
        known = granted(site.known, grant)
        state = granted_state(site.state, grant)
    except ManifestError as error:
        raise NotPossible(
            error.message,
            next_step="Let the site show a new key: `cic sync request --new-key --out FILE`,"
            " then `grant-epoch --request FILE`.",
        ) from error
    envelope = sign(EPOCH_GRANT_TYPE, encode(grant), act.key).to_bytes()
    _set_aside_waiting(connection, site, act.now_ns)
    begun = replace(site, known=known, state=state, frozen_reason="", waiting=0)
    sites.store_keys(connection, begun)
    sites.store_state(connection, begun)
    documents.store(
        connection, site.appliance_id, GRANT, f"epoch-{grant.epoch}", act.now_ns, envelope
    )
    terms = licences.terms_of(connection, site.appliance_id)
    if signer != newest.key and terms is not None:
        licences.issue(connection, begun, terms, act.key, act.now_ns, act.entropy)
    receipts.state_of_things(connection, begun, act.key, act.now_ns, act.entropy, renew=False)
    after = json.dumps({"epoch": grant.epoch, "key_id": signer.key_id})
    _note(
        connection, act, site, "grant-epoch", json.dumps({"epoch": site.state.epoch}), after, reason
    )
    return grant


def requested_key(connection: Connection, reference: str, request: bytes) -> PublicKey:
    """The key that a site asks a new epoch for, from its signed request.

    Raises UnknownSite, or NotPossible when the request is another site's or cannot be verified.
    """
    site = sites.find(connection, reference)
    try:
        document, key = open_enrolment(request)
    except ManifestError as error:
        raise NotPossible(
            f"The request cannot be verified: {error.message}",
            next_step="Make it again on the site: `cic sync request --new-key --out FILE`.",
        ) from error
    if document.appliance_id != site.appliance_id:
        raise NotPossible(
            f"The request is of {document.appliance_id}, not of {site.name}.",
            next_step="Name the site whose request this is.",
        )
    return key


def adopt_rotations(
    connection: Connection, appliance_id: str, rotations: tuple[bytes, ...], now_ns: int
) -> int:
    """Take over the key rotations that came with a bundle; how many were new.

    One that does not continue the site's keys is passed over: the signatures of the manifests say
    whether it mattered.
    """
    site = sites.lock(connection, appliance_id)
    if site is None:
        return 0
    new = 0
    for raw in rotations:
        newest = site.known.keys[-1]
        try:
            known = rotated(site.known, raw)
        except ManifestError as error:
            fields = {"appliance_id": appliance_id, "reason": error.message}
            log.warning("key rotation passed over", extra=fields)
            continue
        if known == site.known:
            continue
        following = (site.state.epoch, site.state.accepted_through + 1)
        if newest.revoked is not None or known.keys[-1].since < following:
            continue  # a revoked key names no successor, and what was accepted stays as it is
        site = replace(site, known=known)
        documents.store(connection, appliance_id, ROTATION, known.keys[-1].key.key_id, now_ns, raw)
        new += 1
    if new:
        sites.store_keys(connection, site)
    return new


def _set_frozen(
    connection: Connection, act: Act, site: Site, changed: Site, action: str, reason: str
) -> Site:
    if site.frozen == changed.frozen:
        word = "frozen" if site.frozen else "not frozen"
        raise NotPossible(f"{site.name} is {word} already.", next_step="")
    sites.store_state(connection, changed)
    # The site learns of it by a receipt, whichever way it comes.
    receipts.state_of_things(connection, changed, act.key, act.now_ns, act.entropy, renew=False)
    _note(connection, act, site, action, json.dumps({"reason": site.frozen_reason}), None, reason)
    return changed


def _set_aside_waiting(connection: Connection, site: Site, now_ns: int) -> None:
    waiting = (
        MANIFESTS.c.appliance_id == site.appliance_id,
        MANIFESTS.c.state == ManifestState.WAITING.value,
    )
    finding = Finding(Code.EPOCH_CLOSED, "it waited behind a gap when the epoch was closed")
    while rows := connection.execute(select(MANIFESTS).where(*waiting).limit(_PAGE)).all():
        for row in rows:
            place = (row.epoch, row.seq)
            came = Refused(bytes(row.envelope), unpack(bytes(row.lines)), finding, place, row.via)
            evidence.keep(connection, site.appliance_id, came, Caps(), now_ns)
            connection.execute(
                delete(MANIFESTS).where(
                    *waiting, MANIFESTS.c.epoch == row.epoch, MANIFESTS.c.seq == row.seq
                )
            )


def _note(
    connection: Connection,
    act: Act,
    site: Site,
    action: str,
    before: str | None,
    after: str | None,
    reason: str,
) -> None:
    whole = json.dumps({"reason": reason, "after": json.loads(after) if after else None})
    audit.record(
        connection,
        act.now_ns,
        actor=act.actor,
        action=action,
        kind="site",
        object_id=site.appliance_id,
        name=site.name,
        before=before,
        after=whole,
    )
