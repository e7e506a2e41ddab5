"""Documents of the control plane against the books of a site that has sealed manifests."""

from pathlib import Path
from typing import Any

import pytest

from appliance.domain.clock import iso
from appliance.domain.errors import CrossLogicError
from appliance.manifests import archive
from appliance.manifests.archive import Kind, SyncState
from appliance.manifests.documents import Document, KeyRevocation, TenantPlan
from appliance.security.signing import SigningKey
from appliance.sync.errors import EntitlementRefused, NotPinned
from appliance.sync.identity import prepare_key
from appliance.sync.inbox import bring, open_signed, take
from appliance.wire.sync import DocumentOutcome
from tests.fakes.clock import START_NS
from tests.fakes.entropy import SeededEntropy
from tests.fakes.sealed_site import SealedSite, sealed_site
from tests.fakes.shipping import vendor_of
from tests.fakes.vendor import DAY_NS, Vendor


class Desk:
    """A site, its vendor, and the inbox between them."""

    def __init__(self, folder: Path) -> None:
        self.site: SealedSite = sealed_site(folder, manifests=4)
        self.vendor = Vendor(self.site.appliance_id, self.site.identity.key.key_id)
        with self.site.writing() as connection:
            bring(
                connection, [self.vendor.sign(self.vendor.price_book(1))], self.vendor.key.public, 1
            )

    def sha256(self, seq: int) -> str:
        return self.site.manifest(seq).row.sha256

    def receipt(self, through: int, **changes: Any) -> Any:
        head = self.sha256(through) if 0 < through <= 4 else "ab" * 32
        return self.vendor.receipt(accepted_through=through, head_sha256=head, **changes)

    def take(self, *documents: Document) -> list[DocumentOutcome]:
        return self.take_raw(*(self.vendor.sign(document) for document in documents))

    def take_raw(self, *envelopes: bytes) -> list[DocumentOutcome]:
        with self.site.writing() as connection:
            held = [self.site.identity.key.key_id]
            return take(connection, envelopes, self.site.now_ns, held)

    def one(self, document: Document) -> DocumentOutcome:
        (outcome,) = self.take(document)
        return outcome

    @property
    def state(self) -> SyncState:
        with self.site.reading() as connection:
            return archive.sync_state(connection)

    def count(self, kind: Kind) -> int:
        with self.site.reading() as connection:
            return len(archive.documents(connection, kind))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_receipt_is_remembered_whole(desk: Desk) -> None:
    found = desk.receipt(3, lease_until="2027-02-15T00:00:00.000Z")
    assert desk.one(found).outcome == "applied"
    state = desk.state
    assert (state.epoch, state.accepted_through) == (1, 3)
    assert state.accepted_sha256 == desk.sha256(3)
    assert state.newest_received_at == found.received_at
    assert state.receipt_lease == found.lease_until
    with desk.site.reading() as connection:
        assert archive.unreceipted_count(connection) == 1


def test_the_same_receipt_by_wire_and_stick_is_taken_once(desk: Desk) -> None:
    raw = desk.vendor.sign(desk.receipt(3))
    assert [one.outcome for one in desk.take_raw(raw, raw)] == ["applied", "unchanged"]
    before = desk.state
    assert [one.outcome for one in desk.take_raw(raw)] == ["unchanged"]
    assert desk.state == before
    assert desk.count(Kind.RECEIPT) == 1


def test_an_old_receipt_changes_nothing_and_says_so(desk: Desk) -> None:
    old = desk.receipt(1, received_at="2027-01-15T07:00:00.000Z")
    desk.take(desk.receipt(3))
    before = desk.state
    outcome = desk.one(old)
    assert outcome.outcome == "superseded"
    assert "Nothing is lost" in outcome.next_step
    assert desk.state == before


@pytest.mark.parametrize(
    ("through", "changes", "alarm"),
    [
        (3, {"appliance_id": "apl_other"}, "other_appliance"),
        (3, {"epoch": 2}, "other_epoch"),
        (5, {}, "beyond_sealed"),
        (3, {"head_sha256": "ab" * 32}, "other_head"),
    ],
)
def test_a_receipt_that_contradicts_the_site_raises_an_alarm_until_one_fits(
    desk: Desk, through: int, changes: dict[str, Any], alarm: str
) -> None:
    desk.take(desk.receipt(2))
    wrong = desk.vendor.receipt(
        **{
            "accepted_through": through,
            "head_sha256": desk.sha256(min(through, 4)),
            "received_at": "2027-01-15T09:00:00.000Z",
            "lease_until": "2099-01-01T00:00:00.000Z",
            **changes,
        }
    )
    outcome = desk.one(wrong)
    assert outcome.outcome == "refused"
    assert outcome.next_step
    state = desk.state
    assert (state.alarm, state.accepted_through, state.receipt_lease) == (alarm, 2, "")
    assert state.frozen is (alarm != "other_appliance")
    assert desk.count(Kind.RECEIPT) == 1
    assert desk.one(desk.receipt(4, received_at="2027-01-15T10:00:00.000Z")).outcome == "applied"
    assert (desk.state.alarm, desk.state.frozen, desk.state.next_step) == ("", False, "")


def test_what_the_control_plane_did_not_sign_is_refused_and_nothing_kept(desk: Desk) -> None:
    forged = Vendor(desk.site.appliance_id, desk.vendor.appliance_key_id, seed=b"f" * 32)
    outcomes = desk.take_raw(
        forged.sign(desk.receipt(3)), b"{}", b"", desk.site.manifest(1).envelope
    )
    assert [one.outcome for one in outcomes] == ["refused"] * 4
    assert desk.state.accepted_through == 0
    assert desk.count(Kind.RECEIPT) == 0


@pytest.mark.parametrize("kind", ["receipt", "entitlement"])
def test_every_changed_bit_is_refused(kind: str) -> None:
    vendor = Vendor("apl_1", "00" * 32)
    document = vendor.receipt() if kind == "receipt" else vendor.entitlement(START_NS)
    raw, key = vendor.sign(document), vendor.key.public
    open_signed(raw, key)
    for place in range(len(raw)):
        for bit in range(8):
            changed = bytearray(raw)
            changed[place] ^= 1 << bit
            with pytest.raises(CrossLogicError):
                open_signed(bytes(changed), key)


def test_one_refused_document_keeps_no_other_from_being_taken(desk: Desk) -> None:
    outcomes = desk.take(desk.receipt(9), desk.vendor.price_book(2), desk.receipt(2))
    assert {(one.kind, one.outcome) for one in outcomes} == {
        ("receipt", "refused"),
        ("receipt", "applied"),
        ("price-book", "applied"),
    }


def test_without_a_pinned_key_it_is_said_what_to_type(tmp_path: Path) -> None:
    site = sealed_site(tmp_path, manifests=1)
    vendor = Vendor(site.appliance_id, site.identity.key.key_id)
    raw = vendor.sign(vendor.price_book(1))
    with site.writing() as connection, pytest.raises(NotPinned, match="--control-plane-key"):
        take(connection, [raw], site.now_ns)


def test_a_key_that_opens_nothing_is_not_pinned(tmp_path: Path) -> None:
    site = sealed_site(tmp_path, manifests=1)
    vendor = Vendor(site.appliance_id, site.identity.key.key_id)
    wrong = SigningKey(b"w" * 32).public
    with site.writing() as connection:
        (outcome,) = bring(connection, [vendor.sign(vendor.price_book(1))], wrong, site.now_ns)
        assert outcome.outcome == "refused"
        assert archive.sync_state(connection).control_plane_key_pem == ""


def test_a_pinned_key_is_not_replaced(desk: Desk) -> None:
    other = SigningKey(b"w" * 32).public
    with desk.site.writing() as connection, pytest.raises(EntitlementRefused, match="another key"):
        bring(connection, [], other, desk.site.now_ns)


def test_an_entitlement_is_installed_once_and_an_older_one_refused(desk: Desk) -> None:
    now_ns = desk.site.now_ns
    new = desk.vendor.entitlement(now_ns)
    assert [one.outcome for one in desk.take(new, new)] == ["applied", "unchanged"]
    older = desk.vendor.entitlement(now_ns - DAY_NS)
    revoked = desk.vendor.entitlement(now_ns + DAY_NS, revocation_epoch=0)
    assert desk.one(older).outcome == "refused"
    raised = desk.vendor.entitlement(now_ns + 2 * DAY_NS, revocation_epoch=3)
    assert desk.one(raised).outcome == "applied"
    assert desk.one(revoked).outcome == "refused"
    assert desk.count(Kind.ENTITLEMENT) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"appliance_id": "apl_other"},
        {"appliance_key_id": "ab" * 32},
        {"expires": "never"},
        {"lease_until": "2027-01-15T08:00:00"},
        {"grace_days": 10_000_000},
    ],
)
def test_an_entitlement_that_is_not_for_this_site_is_refused(
    desk: Desk, changes: dict[str, Any]
) -> None:
    desk.take(desk.vendor.entitlement(desk.site.now_ns))
    wrong = desk.vendor.entitlement(desk.site.now_ns + 1_000_000, **changes)
    assert desk.one(wrong).outcome == "refused"
    assert desk.count(Kind.ENTITLEMENT) == 1


def test_a_revocation_of_the_key_freezes_and_says_what_to_do(desk: Desk) -> None:
    revocation = KeyRevocation(
        appliance_id=desk.site.appliance_id,
        key_id=desk.site.identity.key.key_id,
        epoch=1,
        seq=3,
        reason="lost laptop",
        at=iso(desk.site.now_ns),
    )
    assert desk.one(revocation).outcome == "applied"
    assert desk.state.frozen
    assert "lost laptop" in desk.state.frozen_reason
    assert "--new-key" in desk.state.next_step


def test_a_grant_that_comes_with_the_revocation_is_not_undone_by_it(desk: Desk) -> None:
    old = desk.site.identity.key
    control_plane = vendor_of(desk.site)
    control_plane.vendor = desk.vendor
    for seq in (1, 2):
        stored = desk.site.manifest(seq)
        control_plane.take(1, seq, stored.envelope, stored.lines)
    new = prepare_key(desk.site.home.secrets, SeededEntropy(9))
    revocation = KeyRevocation(
        appliance_id=desk.site.appliance_id,
        key_id=old.key_id,
        epoch=1,
        seq=3,
        reason="lost laptop",
        at=iso(desk.site.now_ns),
    )
    grant = control_plane.grant(new.public)
    with desk.site.writing() as connection:
        outcomes = take(connection, [desk.vendor.sign(revocation), grant], 0, [new.key_id])
        assert [one.outcome for one in outcomes] == ["applied", "applied"]
        chain = archive.chain_state(connection)
    assert not desk.state.frozen
    # What the revoked key sealed after the head is sealed anew: manifests 3 and 4.
    assert (chain.epoch, chain.seq) == (2, 0)
    assert chain.record_seq_hi == desk.site.manifest(2, 1).row.record_seq_hi
    with desk.site.reading() as connection:
        assert archive.manifest_count(connection) == 2


def test_price_books_and_plans_only_go_on(desk: Desk) -> None:
    plans = [
        desk.vendor.plans(n, [TenantPlan(tenant_id="ten_1", plan="free", since=iso(n))])
        for n in (1, 2)
    ]
    assert desk.one(plans[1]).outcome == "applied"
    assert desk.one(plans[0]).outcome == "superseded"
    assert desk.one(desk.vendor.price_book(1)).outcome == "unchanged"
    assert desk.one(desk.vendor.price_book(2)).outcome == "applied"
