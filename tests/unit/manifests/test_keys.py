"""Keys of a site: rotations, revocations, grants, and documents opened with the right key."""

from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest

from appliance.manifests import keys as keys_module
from appliance.manifests.canonical import encode
from appliance.manifests.codes import Code
from appliance.manifests.documents import (
    ENROLMENT_TYPE,
    KEY_ROTATION_TYPE,
    PLANS_TYPE,
    PRICE_BOOK_TYPE,
    Enrolment,
    KeyRotation,
    Plans,
    PriceBook,
)
from appliance.manifests.envelope import sign
from appliance.manifests.epochs import make_grant
from appliance.manifests.errors import (
    BadDocument,
    KeyChainBroken,
    ManifestError,
    SignatureInvalid,
    UnknownKey,
)
from appliance.manifests.keys import (
    KnownKey,
    granted,
    open_enrolment,
    open_grant,
    open_receipt,
    open_revocation,
    open_rotation,
    revoked,
    rotated,
    sign_rotation,
    site_of,
)
from appliance.manifests.reported import ReportedState
from appliance.manifests.verify import Checked, check_bytes
from tests.fakes import papers
from tests.fakes.sites import Site, signing_key

FIRST, SECOND, THIRD = signing_key(1), signing_key(2), signing_key(3)
SITE = Site()
KNOWN = SITE.known()
VENDOR = papers.CONTROL_PLANE.public


def rotation(**changes: object) -> KeyRotation:
    fields: dict[str, object] = {
        "appliance_id": SITE.appliance_id,
        "epoch": 1,
        "seq": 10,
        "old_key_id": FIRST.key_id,
        "new_key_pem": SECOND.public.pem,
        "at": papers.AT,
    }
    return KeyRotation(**{**fields, **changes})  # type: ignore[arg-type]


def signed_rotation(*signers: object, **changes: object) -> bytes:
    chosen = signers or (FIRST, SECOND)
    return sign(KEY_ROTATION_TYPE, encode(rotation(**changes)), *chosen).to_bytes()  # type: ignore[arg-type]


def test_after_a_rotation_each_key_signs_its_own_part() -> None:
    site = rotated(KNOWN, sign_rotation(rotation(), FIRST, SECOND).to_bytes())
    assert site.signer(FIRST.key_id, (1, 9)) == FIRST.public
    assert site.signer(FIRST.key_id, (1, 10)) is Code.UNKNOWN_KEY
    assert site.signer(SECOND.key_id, (1, 9)) is Code.UNKNOWN_KEY
    assert site.signer(SECOND.key_id, (1, 10)) == SECOND.public
    assert site.signer(SECOND.key_id, (7, 1)) == SECOND.public
    assert site.signer(THIRD.key_id, (1, 10)) is Code.UNKNOWN_KEY


def test_manifests_verify_across_a_rotation() -> None:
    site = Site()
    before = site.seal(2)
    rotated_site = rotated(site.known(), papers.rotation_bytes(site, 2, 1, 2))
    site.key = SECOND
    after = site.seal(2)
    for envelope, lines, _ in (before, after):
        assert isinstance(check_bytes(envelope, lines, rotated_site), Checked)
    found = check_bytes(after[0], after[1], site.copy().known())
    assert isinstance(found, Checked)  # a site whose first key it is


def test_a_chain_of_rotations_is_followed_and_told_twice_changes_nothing() -> None:
    raws = [
        signed_rotation(),
        signed_rotation(
            *(SECOND, THIRD),
            seq=20,
            old_key_id=SECOND.key_id,
            new_key_pem=THIRD.public.pem,
        ),
    ]
    site = site_of(SITE.appliance_id, FIRST.public, raws)
    assert [known.since for known in site.keys] == [(1, 1), (1, 10), (1, 20)]
    assert [known.until for known in site.keys] == [(1, 10), (1, 20), None]
    for raw in raws:
        assert rotated(site, raw) == site


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (signed_rotation(FIRST), KeyChainBroken),  # the new key is not shown to be held
        (signed_rotation(SECOND), KeyChainBroken),  # the old one does not agree
        (signed_rotation(SECOND, FIRST), KeyChainBroken),  # the other way round
        (signed_rotation(FIRST, THIRD), UnknownKey),
        (signed_rotation(THIRD, SECOND), UnknownKey),
        (signed_rotation(old_key_id=THIRD.key_id), KeyChainBroken),
        (signed_rotation(appliance_id="apl_other"), KeyChainBroken),
        (signed_rotation(seq=1), KeyChainBroken),  # not after the key before
        (signed_rotation(FIRST, FIRST, new_key_pem=FIRST.public.pem), BadDocument),
        (signed_rotation(FIRST, new_key_pem=FIRST.public.pem), KeyChainBroken),
        (signed_rotation(new_key_pem="no key"), BadDocument),
        (signed_rotation().replace(b"payload", b"Payload"), BadDocument),
        (papers.enrolment_bytes(SITE), BadDocument),
    ],
)
def test_a_rotation_that_does_not_fit_is_refused(raw: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        rotated(KNOWN, raw)


def test_a_rotation_back_to_an_old_key_is_refused() -> None:
    site = rotated(KNOWN, signed_rotation())
    back = signed_rotation(
        *(SECOND, FIRST), seq=20, old_key_id=SECOND.key_id, new_key_pem=FIRST.public.pem
    )
    with pytest.raises(KeyChainBroken, match="used before"):
        rotated(site, back)


def test_only_the_keys_that_a_rotation_names_sign_it() -> None:
    for wrong in (rotation(old_key_id=THIRD.key_id), rotation(new_key_pem=THIRD.public.pem)):
        with pytest.raises(KeyChainBroken, match="names other keys"):
            sign_rotation(wrong, FIRST, SECOND)


def test_a_revoked_key_is_refused_from_the_place_on() -> None:
    revocation = open_revocation(papers.revocation_bytes(SITE, 1, 5), VENDOR)
    site = revoked(KNOWN, revocation)
    assert site.signer(FIRST.key_id, (1, 4)) == FIRST.public
    assert site.signer(FIRST.key_id, (1, 5)) is Code.KEY_REVOKED
    assert site.signer(FIRST.key_id, (2, 1)) is Code.KEY_REVOKED
    # The earliest counts, whatever comes later.
    for place, first in (((1, 9), 5), ((1, 2), 2)):
        again = msgspec.structs.replace(revocation, seq=place[1])
        assert revoked(site, again).keys[0].revoked == (1, first)
    with pytest.raises(KeyChainBroken, match="another site"):
        revoked(KNOWN, msgspec.structs.replace(revocation, appliance_id="apl_other"))
    with pytest.raises(KeyChainBroken, match="never had"):
        revoked(KNOWN, msgspec.structs.replace(revocation, key_id=THIRD.key_id))


def test_a_granted_epoch_is_signed_by_the_key_of_the_grant_alone() -> None:
    grant = make_grant(ReportedState(), SITE.appliance_id, SECOND.public, "restored", papers.AT)
    site = granted(KNOWN, open_grant(papers.grant_bytes(grant), VENDOR))
    assert site.signer(FIRST.key_id, (1, 99)) == FIRST.public
    assert site.signer(FIRST.key_id, (2, 1)) is Code.UNKNOWN_KEY
    assert site.signer(SECOND.key_id, (2, 1)) == SECOND.public
    assert granted(site, grant) == site
    with pytest.raises(KeyChainBroken, match="already begun"):
        granted(site, msgspec.structs.replace(grant, key_pem=THIRD.public.pem))
    with pytest.raises(KeyChainBroken, match="another site"):
        granted(KNOWN, msgspec.structs.replace(grant, appliance_id="apl_other"))
    lost = replace(KNOWN, keys=(KnownKey(SECOND.public, revoked=(1, 3)),))
    with pytest.raises(KeyChainBroken, match="revoked"):
        granted(lost, grant)
    with pytest.raises(BadDocument, match="is none"):
        granted(KNOWN, msgspec.structs.replace(grant, key_pem="x"))


def test_the_same_key_may_sign_the_new_epoch() -> None:
    grant = make_grant(ReportedState(), SITE.appliance_id, FIRST.public, "restored", papers.AT)
    site = granted(KNOWN, grant)
    assert site.signer(FIRST.key_id, (1, 99)) == FIRST.public
    assert site.signer(FIRST.key_id, (2, 1)) == FIRST.public


def test_an_enrolment_is_signed_with_the_key_that_it_shows() -> None:
    enrolment, key = open_enrolment(papers.enrolment_bytes(SITE))
    assert (enrolment.name, key) == ("plant-7", FIRST.public)
    forged = sign(ENROLMENT_TYPE, encode(enrolment), SECOND)
    with pytest.raises(UnknownKey):
        open_enrolment(forged.to_bytes())
    shown = msgspec.structs.replace(enrolment, key_pem="none")
    with pytest.raises(BadDocument):
        open_enrolment(sign(ENROLMENT_TYPE, encode(shown), FIRST).to_bytes())
    with pytest.raises(BadDocument):
        open_enrolment(sign("other", encode(enrolment), FIRST).to_bytes())
    assert isinstance(enrolment, Enrolment)


BOOK = PriceBook(
    version=1, currency="eur", prices=(), regions=(), free_tokens_per_month="0", at=papers.AT
)
PLANS = Plans(appliance_id="apl_1", version=1, tenants=(), at=papers.AT)
SEALED = SITE.seal(1)[2]
OPENERS: list[tuple[str, bytes]] = [
    ("open_receipt", papers.receipt_bytes(SITE, SEALED)),
    ("open_entitlement", papers.entitlement_bytes(SITE)),
    ("open_revocation", papers.revocation_bytes(SITE, 1, 1)),
    (
        "open_grant",
        papers.grant_bytes(make_grant(ReportedState(), "apl_1", FIRST.public, "", papers.AT)),
    ),
    ("open_price_book", sign(PRICE_BOOK_TYPE, encode(BOOK), papers.CONTROL_PLANE).to_bytes()),
    ("open_plans", sign(PLANS_TYPE, encode(PLANS), papers.CONTROL_PLANE).to_bytes()),
]


@pytest.mark.parametrize(("opener", "raw"), OPENERS)
def test_documents_are_opened_with_the_control_plane_s_key_and_their_own_type(
    opener: str, raw: bytes
) -> None:
    open_it: Callable[..., object] = getattr(keys_module, opener)
    open_it(raw, VENDOR)
    with pytest.raises(UnknownKey):
        open_it(raw, FIRST.public)
    for _, other in OPENERS:
        if other != raw:
            with pytest.raises(BadDocument):
                open_it(other, VENDOR)


def test_a_receipt_signed_by_the_site_itself_is_refused() -> None:
    raw = papers.receipt_bytes(SITE, SEALED)
    receipt = open_receipt(raw, VENDOR)
    forged = sign(papers.RECEIPT_TYPE, encode(receipt), FIRST).to_bytes()
    with pytest.raises(UnknownKey):
        open_receipt(forged, VENDOR)
    renamed = forged.replace(FIRST.key_id.encode(), VENDOR.key_id.encode())
    with pytest.raises(SignatureInvalid):
        open_receipt(renamed, VENDOR)


def test_what_is_no_rotation_raises_only_our_errors() -> None:
    for noise in (b"", b"{}", b"\xff", b"[" * 10_000):
        with pytest.raises(ManifestError):
            open_rotation(noise, FIRST.public)
