"""Who signs for a site, and from where to where.

- A key signs from one (epoch, seq) until a rotation or a grant puts another in its place.
- A rotation carries the signatures of the old and the new key: the old one names its successor,
  the new one shows that it is held.
- A revocation by the control plane ends a key from a place on; what it signed before stands.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from appliance.manifests.canonical import decode, encode
from appliance.manifests.codes import Code
from appliance.manifests.documents import (
    ENROLMENT_TYPE,
    ENTITLEMENT_TYPE,
    EPOCH_GRANT_TYPE,
    KEY_ROTATION_TYPE,
    PLANS_TYPE,
    PRICE_BOOK_TYPE,
    RECEIPT_TYPE,
    REVOCATION_TYPE,
    Enrolment,
    Entitlement,
    EpochGrant,
    KeyRevocation,
    KeyRotation,
    Plans,
    PriceBook,
    Receipt,
)
from appliance.manifests.envelope import Envelope, parse, sign, verify
from appliance.manifests.errors import BadDocument, KeyChainBroken, ManifestError
from appliance.security.errors import BadPublicKey
from appliance.security.signing import PublicKey, SigningKey

T = TypeVar("T")

# (epoch, seq): the place of a manifest in the life of a site.
Place = tuple[int, int]

DOCUMENT_BYTES_MAX: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key of a site: it signs from `since`, up to before `until`; refused from `revoked` on."""

    key: PublicKey
    since: Place = (1, 1)
    until: Place | None = None
    revoked: Place | None = None


@dataclass(frozen=True, slots=True)
class KnownSite:
    """What a verifier knows of a site before it reads a manifest."""

    appliance_id: str
    keys: tuple[KnownKey, ...]

    def signer(self, key_id: str, place: Place) -> PublicKey | Code:
        """The key of that id if it may sign there; UNKNOWN_KEY or KEY_REVOKED if not."""
        of_id = [known for known in self.keys if known.key.key_id == key_id]
        for known in of_id:
            if known.revoked is not None and place >= known.revoked:
                return Code.KEY_REVOKED
        for known in of_id:
            if known.since <= place and (known.until is None or place < known.until):
                return known.key
        return Code.UNKNOWN_KEY


def open_document(raw: bytes, payload_type: str, kind: type[T], keys: Mapping[str, PublicKey]) -> T:
    """The document in an envelope, verified before it is read.

    Raises BadDocument, UnknownKey or SignatureInvalid.
    """
    envelope = parse(raw, DOCUMENT_BYTES_MAX)
    verify(envelope, payload_type, keys)
    return decode(envelope.payload, kind)


def open_receipt(raw: bytes, control_plane: PublicKey) -> Receipt:
    """A receipt; raises as `open_document` does, and so do all of these."""
    return open_document(raw, RECEIPT_TYPE, Receipt, _one(control_plane))


def open_entitlement(raw: bytes, control_plane: PublicKey) -> Entitlement:
    return open_document(raw, ENTITLEMENT_TYPE, Entitlement, _one(control_plane))


def open_revocation(raw: bytes, control_plane: PublicKey) -> KeyRevocation:
    return open_document(raw, REVOCATION_TYPE, KeyRevocation, _one(control_plane))


def open_grant(raw: bytes, control_plane: PublicKey) -> EpochGrant:
    return open_document(raw, EPOCH_GRANT_TYPE, EpochGrant, _one(control_plane))


def open_price_book(raw: bytes, control_plane: PublicKey) -> PriceBook:
    return open_document(raw, PRICE_BOOK_TYPE, PriceBook, _one(control_plane))


def open_plans(raw: bytes, control_plane: PublicKey) -> Plans:
    return open_document(raw, PLANS_TYPE, Plans, _one(control_plane))


def open_enrolment(raw: bytes) -> tuple[Enrolment, PublicKey]:
    """An enrolment and the key it shows, with which it must be signed."""
    envelope = parse(raw, DOCUMENT_BYTES_MAX)
    key = _shown_key(envelope, Enrolment)
    verify(envelope, ENROLMENT_TYPE, _one(key))
    return decode(envelope.payload, Enrolment), key


def sign_rotation(rotation: KeyRotation, old: SigningKey, new: SigningKey) -> Envelope:
    """Signed by both, the old key first. Raises KeyChainBroken when it names other keys."""
    if rotation.old_key_id != old.key_id or rotation.new_key_pem != new.public.pem:
        raise KeyChainBroken("The rotation names other keys than those that sign it.")
    return sign(KEY_ROTATION_TYPE, encode(rotation), old, new)


def open_rotation(raw: bytes, old: PublicKey) -> tuple[KeyRotation, PublicKey]:
    """A rotation away from `old`, and the key that follows.

    Raises BadDocument, UnknownKey, SignatureInvalid, or KeyChainBroken when it is not signed by
    exactly the two keys that it names.
    """
    envelope = parse(raw, DOCUMENT_BYTES_MAX)
    new = _shown_key(envelope, KeyRotation)
    verify(envelope, KEY_ROTATION_TYPE, {**_one(old), **_one(new)})
    rotation = decode(envelope.payload, KeyRotation)
    signers = [one.key_id for one in envelope.signatures]
    if signers != [old.key_id, new.key_id] or rotation.old_key_id != old.key_id:
        raise KeyChainBroken(
            "The key rotation is not signed by the key before and the key after it.",
            next_step="Ask the site for its keys again.",
        )
    return rotation, new


def rotated(site: KnownSite, raw: bytes) -> KnownSite:
    """The site after a rotation of its newest key. A rotation that is known changes nothing.

    Raises as `open_rotation`, and KeyChainBroken when it does not continue the newest key.
    """
    for before, after in zip(site.keys, site.keys[1:], strict=False):
        if _is_rotation(raw, before, after, site.appliance_id):
            return site
    newest = site.keys[-1]
    rotation, new = open_rotation(raw, newest.key)
    place = (rotation.epoch, rotation.seq)
    if rotation.appliance_id != site.appliance_id or place <= newest.since:
        raise KeyChainBroken("The key rotation does not continue this site's newest key.")
    if any(known.key == new for known in site.keys):
        raise KeyChainBroken("The key rotation leads back to a key that was used before.")
    ended = replace(newest, until=place)
    return replace(site, keys=(*site.keys[:-1], ended, KnownKey(new, since=place)))


def revoked(site: KnownSite, revocation: KeyRevocation) -> KnownSite:
    """The site after a revocation that was verified; the earliest place counts.

    Raises KeyChainBroken when it names another site or a key that this one never had.
    """
    if revocation.appliance_id != site.appliance_id:
        raise KeyChainBroken("The revocation is for another site.")
    if all(known.key.key_id != revocation.key_id for known in site.keys):
        raise KeyChainBroken("The revocation names a key that this site never had.")
    place = (revocation.epoch, revocation.seq)
    return replace(
        site,
        keys=tuple(
            replace(known, revoked=min(place, known.revoked or place))
            if known.key.key_id == revocation.key_id
            else known
            for known in site.keys
        ),
    )


def granted(site: KnownSite, grant: EpochGrant) -> KnownSite:
    """The site after an epoch grant that was verified: its key signs the new epoch, no other.

    Raises KeyChainBroken when it names another site, or a key that is revoked.
    """
    if grant.appliance_id != site.appliance_id:
        raise KeyChainBroken("The epoch grant is for another site.")
    key = _public(grant.key_pem)
    place = (grant.epoch, 1)
    if any(known.key == key and known.revoked is not None for known in site.keys):
        raise KeyChainBroken("The epoch grant names a key that was revoked.")
    newest = site.keys[-1]
    if newest.since >= place:
        if newest == KnownKey(key, since=place):
            return site
        raise KeyChainBroken("The epoch grant is for an epoch that has already begun.")
    ended = replace(newest, until=min(place, newest.until or place))
    return replace(site, keys=(*site.keys[:-1], ended, KnownKey(key, since=place)))


def site_of(appliance_id: str, first_key: PublicKey, rotations: Iterable[bytes]) -> KnownSite:
    """A site from its first key and the rotations since, in their order. Raises as `rotated`."""
    site = KnownSite(appliance_id, (KnownKey(first_key),))
    for raw in rotations:
        site = rotated(site, raw)
    return site


def _one(key: PublicKey) -> dict[str, PublicKey]:
    return {key.key_id: key}


def _public(pem: str) -> PublicKey:
    try:
        return PublicKey.from_pem(pem)
    except BadPublicKey as error:
        raise BadDocument(f"A document shows a key that is none: {error.message}") from error


def _shown_key(envelope: Envelope, kind: type[Enrolment] | type[KeyRotation]) -> PublicKey:
    """The key that a document shows, which must be read before it can be verified with it."""
    shown: Enrolment | KeyRotation = decode(envelope.payload, kind)
    if isinstance(shown, KeyRotation):
        return _public(shown.new_key_pem)
    return _public(shown.key_pem)


def _is_rotation(raw: bytes, before: KnownKey, after: KnownKey, appliance_id: str) -> bool:
    try:
        rotation, new = open_rotation(raw, before.key)
    except ManifestError:
        return False
    return new == after.key and rotation.appliance_id == appliance_id
