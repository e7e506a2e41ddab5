"""What comes from the control plane, by wire or by hand, taken into ledger.db in one transaction.

Every document is opened with the pinned key before anything of it is believed, then judged by its
kind, one by one: one that is refused keeps no other from being taken. The order is that in which
they build on each other, however they came: grants, revocations, entitlements, receipts, the rest.
"""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import msgspec

from appliance.domain.errors import CrossLogicError
from appliance.manifests import archive
from appliance.manifests.archive import Kind, SyncState
from appliance.manifests.canonical import decode
from appliance.manifests.documents import (
    ENTITLEMENT_TYPE,
    EPOCH_GRANT_TYPE,
    PLANS_TYPE,
    PRICE_BOOK_TYPE,
    RECEIPT_TYPE,
    REVOCATION_TYPE,
    Document,
    Entitlement,
    EpochGrant,
    KeyRevocation,
    Plans,
    PriceBook,
    Receipt,
)
from appliance.manifests.envelope import parse, verify
from appliance.security.signing import PublicKey
from appliance.sync.entitlements import check_acceptable
from appliance.sync.epochs import begin
from appliance.sync.errors import DocumentRefused, EntitlementRefused, NotPinned, SyncError
from appliance.sync.identity import signing_key_now
from appliance.sync.installed import basis_of, installed_entitlements, payload, with_basis
from appliance.sync.lease import heard
from appliance.sync.moments import moment_ns
from appliance.sync.receipts import Own, Refused, Unchanged, judge
from appliance.sync.site_keys import own_key_ids
from appliance.wire.sync import DocumentOutcome, Outcome

_TYPES: Final[dict[str, tuple[Kind, type[Document]]]] = {
    EPOCH_GRANT_TYPE: (Kind.EPOCH_GRANT, EpochGrant),
    REVOCATION_TYPE: (Kind.REVOCATION, KeyRevocation),
    ENTITLEMENT_TYPE: (Kind.ENTITLEMENT, Entitlement),
    RECEIPT_TYPE: (Kind.RECEIPT, Receipt),
    PRICE_BOOK_TYPE: (Kind.PRICE_BOOK, PriceBook),
    PLANS_TYPE: (Kind.PLANS, Plans),
}
_ORDER: Final = {kind: place for place, (kind, _) in enumerate(_TYPES.values())}
_AGAIN: Final = "Ask the vendor for it again; nothing was changed."


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a document is judged by, beside the books."""

    wall_ns: int
    held_key_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Opened:
    """A document that the control plane certainly signed."""

    kind: Kind
    document: Any  # of the type that belongs to the kind
    envelope: bytes
    sha256: str  # of the payload


def pinned_key(state: SyncState) -> PublicKey:
    """The control plane's key. Raises NotPinned, which says what to type."""
    if not state.control_plane_key_pem:
        raise NotPinned(
            "This site does not know its control plane's key yet, so it cannot check this.",
            next_step="Enrol with `cic sync enrol URL CODE`; or, without a wire, pin the key with"
            " `cic entitlement install FILE --control-plane-key PEM`, and compare the fingerprint"
            " it shows with the vendor's.",
        )
    return PublicKey.from_pem(state.control_plane_key_pem)


def open_signed(raw: bytes, key: PublicKey) -> Opened:
    """Raises ManifestError or DocumentRefused: not signed by the control plane, or no document."""
    envelope = parse(raw)
    known = _TYPES.get(envelope.payload_type)
    if known is None:
        raise DocumentRefused(
            f"A document of the type {envelope.payload_type!r} is not for an appliance.",
            next_step=_AGAIN,
        )
    verify(envelope, envelope.payload_type, {key.key_id: key})
    kind, cls = known
    return Opened(kind, decode(envelope.payload, cls), raw, sha256(envelope.payload).hexdigest())


def open_all(
    envelopes: Iterable[bytes], key: PublicKey
) -> tuple[list[Opened], list[DocumentOutcome]]:
    """What the control plane of this key signed, in the order in which it builds on each other, and
    the refusals of the rest. Takes its time, and needs no books: to be done before a transaction.
    """
    opened: list[Opened] = []
    refused: list[DocumentOutcome] = []
    for raw in envelopes:
        try:
            opened.append(open_signed(raw, key))
        except CrossLogicError as error:
            refused.append(_refused("unknown", "", error))
    return sorted(opened, key=lambda each: _ORDER[each.kind]), refused


def take_opened(
    connection: sqlite3.Connection,
    opened: Sequence[Opened],
    key: PublicKey,
    wall_ns: int,
    held_key_ids: Sequence[str] = (),
) -> list[DocumentOutcome]:
    """Judge and store what was opened with `key`; what became of each. To be run in a transaction.

    `key` is pinned if none is yet and something of it was taken. `held_key_ids`: of the keys this
    site can sign with, or will after a grant. Raises EntitlementRefused when another is pinned.
    """
    known = is_pinned(archive.sync_state(connection), key)
    at = Circumstances(wall_ns, tuple(held_key_ids))
    outcomes = [_taken(connection, one, at) for one in opened]
    if not known and any(each.outcome != "refused" for each in outcomes):
        _pin(connection, key.pem)
    return outcomes


def take(
    connection: sqlite3.Connection,
    envelopes: Iterable[bytes],
    wall_ns: int,
    held_key_ids: Sequence[str] = (),
) -> list[DocumentOutcome]:
    """Open, judge and store at once. Raises NotPinned; every other trouble is an outcome."""
    key = pinned_key(archive.sync_state(connection))
    opened, refused = open_all(envelopes, key)
    return [*refused, *take_opened(connection, opened, key, wall_ns, held_key_ids)]


def bring(
    connection: sqlite3.Connection,
    envelopes: Iterable[bytes],
    key: PublicKey | None,
    wall_ns: int,
    held_key_ids: Sequence[str] = (),
) -> list[DocumentOutcome]:
    """As `take`, of what was carried by hand. `key`, when it is given, is pinned if none is yet.

    Raises EntitlementRefused when another key is pinned.
    """
    key = key_to_open_with(archive.sync_state(connection), key)
    opened, refused = open_all(envelopes, key)
    return [*refused, *take_opened(connection, opened, key, wall_ns, held_key_ids)]


def key_to_open_with(state: SyncState, given: PublicKey | None) -> PublicKey:
    """The pinned key, or the given one before there is any.

    Raises NotPinned, or EntitlementRefused when another is pinned than is given.
    """
    if given is not None and not is_pinned(state, given):
        return given
    return pinned_key(state)


def is_pinned(state: SyncState, key: PublicKey) -> bool:
    """Whether this very key is pinned already. Raises EntitlementRefused when another one is."""
    if not state.control_plane_key_pem:
        return False
    pinned = PublicKey.from_pem(state.control_plane_key_pem)
    if pinned != key:
        raise EntitlementRefused(
            f"This site has pinned another key of its control plane ({pinned.key_id[:32]}), not"
            f" {key.key_id[:32]}.",
            next_step="A site stays with one control plane. If the vendor confirms the new key,"
            " move the site to it with the vendor's help; nothing was changed.",
        )
    return True


def _pin(connection: sqlite3.Connection, pem: str) -> None:
    state = archive.sync_state(connection)
    archive.set_sync_state(connection, msgspec.structs.replace(state, control_plane_key_pem=pem))


def _taken(connection: sqlite3.Connection, one: Opened, at: Circumstances) -> DocumentOutcome:
    try:
        return _BY_KIND[one.kind](connection, one, at)
    except SyncError as error:
        return _refused(one.kind, _name(one), error)


def _take_receipt(
    connection: sqlite3.Connection, one: Opened, at: Circumstances
) -> DocumentOutcome:
    receipt: Receipt = one.document
    state, chain = archive.sync_state(connection), archive.chain_state(connection)
    through = receipt.accepted_through
    own = Own(
        appliance_id=state.appliance_id,
        epoch=chain.epoch,
        sealed_through=chain.seq,
        accepted_through=state.accepted_through if state.epoch == chain.epoch else 0,
        newest_received_at=state.newest_received_at,
        known=frozenset({one.sha256} if _is_known(connection, one) else ()),
    )
    row = archive.manifest_row(connection, receipt.epoch, through)
    hashes = {} if row is None else {(receipt.epoch, through): row.sha256}
    verdict = judge(own, hashes, receipt, one.sha256)
    if isinstance(verdict, Unchanged):
        if verdict.superseded:
            return _told(
                *(one, "superseded", "A newer receipt was taken before; nothing was changed."),
                "Nothing is lost. Bring the newest one if you meant to.",
            )
        return _told(one, "unchanged")
    if isinstance(verdict, Refused):
        changes: dict[str, Any] = {"alarm": verdict.alarm, "alarm_detail": verdict.message}
        changes["next_step"] = verdict.next_step
        if verdict.freeze is not None:
            changes |= {"frozen": True, "frozen_reason": verdict.freeze.reason}
        _update(connection, state, **changes)
        return _told(one, "refused", verdict.message, verdict.next_step)
    _store(connection, one, moment_ns(receipt.received_at))
    basis = heard(basis_of(state), receipt.received_at, at.wall_ns, receipt.lease_until)
    freeze = verdict.freeze
    _update(
        *(connection, with_basis(state, basis)),
        epoch=receipt.epoch,
        accepted_through=verdict.accepted_through,
        accepted_sha256=receipt.head_sha256,
        last_receipt_sha256=one.sha256,
        newest_received_at=receipt.received_at,
        frozen=freeze is not None,
        frozen_reason="" if freeze is None else freeze.reason,
        next_step="" if freeze is None else freeze.next_step,
        alarm="" if verdict.alarm is None else verdict.alarm,
        alarm_detail=verdict.detail,
    )
    return _told(one, "applied", verdict.detail)


def _take_entitlement(
    connection: sqlite3.Connection, one: Opened, at: Circumstances
) -> DocumentOutcome:
    new: Entitlement = one.document
    if _is_known(connection, one):
        return _told(one, "unchanged")
    state = archive.sync_state(connection)
    check_acceptable(
        new, installed_entitlements(connection), state.appliance_id, own_key_ids(connection)
    )
    _store(connection, one, moment_ns(new.issued_at))
    _update(connection, with_basis(state, heard(basis_of(state), new.issued_at, at.wall_ns)))
    return _told(one, "applied")


def _take_revocation(
    connection: sqlite3.Connection, one: Opened, _at: Circumstances
) -> DocumentOutcome:
    revocation: KeyRevocation = one.document
    state = archive.sync_state(connection)
    _check_ours(state, revocation.appliance_id)
    if _is_known(connection, one):
        return _told(one, "unchanged")
    _store(connection, one, moment_ns(revocation.at))
    if signing_key_now(connection, state)[0].key_id != revocation.key_id:
        return _told(one, "applied")  # a key of before, or one that a grant has replaced
    _update(
        *(connection, state),
        frozen=True,
        frozen_reason=f"The key {revocation.key_id[:16]} of this site was revoked from manifest"
        f" {revocation.epoch}-{revocation.seq} on: {revocation.reason}",
        next_step="Make a request with `cic sync request --new-key --out FILE` and give it to the"
        " vendor. Serving and metering go on.",
    )
    return _told(one, "applied")


def _take_grant(connection: sqlite3.Connection, one: Opened, at: Circumstances) -> DocumentOutcome:
    grant: EpochGrant = one.document
    state = archive.sync_state(connection)
    _check_ours(state, grant.appliance_id)
    if _is_known(connection, one):
        return _told(one, "unchanged")
    if grant.epoch <= archive.chain_state(connection).epoch:
        return _told(
            *(one, "superseded", f"Epoch {grant.epoch} is here or over already."),
            "Nothing was changed.",
        )
    begin(connection, grant, at.held_key_ids)
    _store(connection, one, moment_ns(grant.at))
    _update(
        *(connection, state),
        frozen=False,
        frozen_reason="",
        next_step="",
        alarm="",
        alarm_detail="",
    )
    return _told(one, "applied", f"Epoch {grant.epoch} has begun.")


def _take_versioned(
    connection: sqlite3.Connection, one: Opened, _at: Circumstances
) -> DocumentOutcome:
    """Price book or plans: the highest version counts, each is kept."""
    document: PriceBook | Plans = one.document
    if isinstance(document, Plans):
        _check_ours(archive.sync_state(connection), document.appliance_id)
    if _is_known(connection, one):
        return _told(one, "unchanged")
    kept = archive.newest(connection, one.kind)
    newest = 0 if kept is None else payload(kept.envelope, type(document)).version
    if document.version <= newest:
        return _told(one, "superseded", f"Version {newest} is here already.", "")
    # Ordered by its version, not by a clock: the highest is the newest.
    _store(connection, one, document.version)
    return _told(one, "applied")


_Take = Callable[[sqlite3.Connection, Opened, Circumstances], DocumentOutcome]
_BY_KIND: Final[dict[Kind, _Take]] = {
    Kind.EPOCH_GRANT: _take_grant,
    Kind.REVOCATION: _take_revocation,
    Kind.ENTITLEMENT: _take_entitlement,
    Kind.RECEIPT: _take_receipt,
    Kind.PRICE_BOOK: _take_versioned,
    Kind.PLANS: _take_versioned,
}


def _check_ours(state: SyncState, appliance_id: str) -> None:
    if appliance_id != state.appliance_id:
        raise DocumentRefused(
            f"The document is for the appliance {appliance_id}, this is {state.appliance_id}.",
            next_step="Bring the one of this site; nothing was changed.",
        )


def _is_known(connection: sqlite3.Connection, one: Opened) -> bool:
    return archive.has_document(connection, one.kind, one.sha256)


def _store(connection: sqlite3.Connection, one: Opened, at_ns: int) -> None:
    archive.store_document(connection, one.kind, one.sha256, one.envelope, at_ns)


def _update(connection: sqlite3.Connection, state: SyncState, **changes: Any) -> None:
    archive.set_sync_state(connection, msgspec.structs.replace(state, **changes))


def _told(one: Opened, outcome: Outcome, message: str = "", next_step: str = "") -> DocumentOutcome:
    return DocumentOutcome(
        kind=one.kind,
        document_id=_name(one),
        outcome=outcome,
        message=message,
        next_step=next_step,
    )


def _refused(kind: str, name: str, error: CrossLogicError) -> DocumentOutcome:
    return DocumentOutcome(
        kind=kind,
        document_id=name,
        outcome="refused",
        message=error.message,
        next_step=error.next_step or _AGAIN,
    )


def _name(one: Opened) -> str:
    """What a person calls the document."""
    match one.document:
        case Receipt() as receipt:
            return receipt.receipt_id
        case Entitlement() as entitlement:
            return entitlement.entitlement_id
        case EpochGrant() as grant:
            return f"epoch {grant.epoch}"
        case KeyRevocation() as revocation:
            return revocation.key_id[:16]
        case PriceBook() | Plans() as versioned:
            return f"version {versioned.version}"
        case _:
            return one.sha256[:16]
