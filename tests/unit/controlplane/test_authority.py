"""Freezing, revocations, rotations and epochs: signed, kept, obeyed."""

import pytest

from appliance.controlplane import authority, documents, licences
from appliance.controlplane.errors import NotPossible, UnknownSite
from appliance.controlplane.service import ControlPlane
from appliance.manifests.bundle import CarriedManifest
from appliance.manifests.codes import Code
from appliance.manifests.documents import EpochGrant, KeyRotation
from appliance.manifests.keys import open_grant, open_receipt, open_revocation, sign_rotation
from appliance.manifests.seal import ChainState
from appliance.security.signing import SigningKey
from appliance.sync.enrolment import introduction
from tests.fakes.reporting import (
    act,
    clone,
    codes,
    enrolled,
    holdings,
    known,
    offer,
    receipt,
    sealed,
)
from tests.fakes.sites import Site, signing_key

HELD = Code.TENANT_UNMAPPED


def granted(plane: ControlPlane, key: SigningKey | None = None) -> EpochGrant:
    public = None if key is None else key.public
    return plane.database.transact(
        lambda c: authority.grant_epoch(c, act(plane), "berlin", public, "restored")
    )


def begin_epoch(site: Site, grant: EpochGrant, key: SigningKey | None = None) -> None:
    """What a site does with a grant whose head it still has."""
    site.state = ChainState(
        epoch=grant.epoch,
        seq=0,
        head_sha256=grant.predecessor_sha256,
        event_seq_hi=grant.event_seq,
        cumulative=site.state.cumulative,
        log=site.state.log,
        watermark_ns=site.state.watermark_ns,
        regressions=site.state.regressions,
    )
    site.key = key or site.key


def rotation(site: Site, new: SigningKey, seq: int, epoch: int = 1) -> bytes:
    document = KeyRotation(
        appliance_id=site.appliance_id,
        epoch=epoch,
        seq=seq,
        old_key_id=site.key.key_id,
        new_key_pem=new.public.pem,
        at="2026-11-23T00:00:00.000Z",
    )
    return sign_rotation(document, site.key, new).to_bytes()


def adopt(plane: ControlPlane, site: Site, *raw: bytes) -> int:
    return plane.database.transact(
        lambda c: authority.adopt_rotations(c, site.appliance_id, raw, plane.clock.wall_ns())
    )


def test_a_frozen_site_is_told_and_nothing_is_taken_from_it(plane: ControlPlane) -> None:
    site = enrolled(plane)
    manifests = sealed(site, 2)
    offer(plane, site, manifests[:1])
    plane.database.transact(lambda c: authority.freeze(c, act(plane), "berlin", "unpaid"))
    taken = offer(plane, site, manifests[1:])
    assert codes(taken) == [Code.FORK]
    assert taken[0].dispositions[0].detail == "the appliance is frozen: unpaid"
    newest = plane.database.read(lambda c: documents.newest(c, site.appliance_id, "receipt"))
    assert newest is not None
    told = open_receipt(newest, plane.identity.key.public)
    assert (told.frozen, told.dispositions) == (True, ())
    with pytest.raises(NotPossible):
        plane.database.transact(lambda c: authority.freeze(c, act(plane), "berlin", "again"))
    plane.database.transact(lambda c: authority.unfreeze(c, act(plane), "berlin", "paid"))
    assert codes(offer(plane, site, manifests[1:])) == [HELD]
    with pytest.raises(UnknownSite):
        plane.database.transact(lambda c: authority.unfreeze(c, act(plane), "paris", "?"))


def test_a_revocation_is_signed_and_counts_from_its_place(plane: ControlPlane) -> None:
    site = enrolled(plane)
    manifests = sealed(site, 4)
    offer(plane, site, manifests[:2])
    revocation = plane.database.transact(
        lambda c: authority.revoke_key(
            c, act(plane), "berlin", site.key.key_id[:12], (1, 4), "stolen"
        )
    )
    (raw,) = plane.database.read(
        lambda c: documents.envelopes(c, site.appliance_id, "key-revocation")
    )
    assert open_revocation(raw, plane.identity.key.public) == revocation
    assert (revocation.epoch, revocation.seq, revocation.reason) == (1, 4, "stolen")
    assert codes(offer(plane, site, manifests[2:])) == [HELD, Code.KEY_REVOKED]


@pytest.mark.parametrize("place", [(1, 1), (1, 2), (0, 9)])
def test_what_is_accepted_is_not_revoked(plane: ControlPlane, place: tuple[int, int]) -> None:
    site = enrolled(plane)
    offer(plane, site, sealed(site, 2))
    with pytest.raises(NotPossible, match="accepted and posted"):
        plane.database.transact(
            lambda c: authority.revoke_key(c, act(plane), "berlin", site.key.key_id, place, "?")
        )
    for key_id in ("", "zz"):
        with pytest.raises(NotPossible, match="names 0 keys"):
            plane.database.transact(
                lambda c, k=key_id: authority.revoke_key(  # type: ignore[misc]
                    c, act(plane), "berlin", k, None, "?"
                )
            )


def test_a_rotation_with_both_signatures_is_adopted_once(plane: ControlPlane) -> None:
    site = enrolled(plane)
    manifests = sealed(site, 2)
    offer(plane, site, manifests)
    new = signing_key(2)
    raw = rotation(site, new, 3)
    assert adopt(plane, site, raw) == 1
    assert adopt(plane, site, raw) == 0
    before = clone(site)
    assert codes(offer(plane, before, sealed(before, 1))) == [Code.UNKNOWN_KEY]
    site.key = new
    assert codes(offer(plane, site, sealed(site, 1))) == [HELD]


def test_a_rotation_that_is_forged_late_or_by_a_revoked_key_is_passed_over(
    plane: ControlPlane,
) -> None:
    site, thief = enrolled(plane), signing_key(6)
    offer(plane, site, sealed(site, 2))
    stranger = clone(site)
    stranger.key = thief
    assert adopt(plane, site, rotation(stranger, signing_key(7), 3), b"nonsense") == 0
    assert adopt(plane, site, rotation(site, thief, 2)) == 0  # 1-2 is accepted already
    plane.database.transact(
        lambda c: authority.revoke_key(c, act(plane), "berlin", site.key.key_id, None, "stolen")
    )
    assert adopt(plane, site, rotation(site, thief, 3)) == 0
    assert len(known(plane, site).known.keys) == 1


def test_an_epoch_continues_the_head_that_was_accepted(plane: ControlPlane) -> None:
    site = enrolled(plane)
    manifests = sealed(site, 2)
    offer(plane, site, manifests)
    grant = granted(plane)
    (raw,) = plane.database.read(lambda c: documents.envelopes(c, site.appliance_id, "epoch-grant"))
    assert open_grant(raw, plane.identity.key.public) == grant
    assert (grant.epoch, grant.predecessor_seq, grant.event_seq) == (2, 2, 4)
    begin_epoch(site, grant)
    taken = offer(plane, site, sealed(site, 2))
    assert codes(taken) == [HELD] * 2
    answer = receipt(plane, taken[0])
    assert (answer.epoch, answer.accepted_through, answer.log_size) == (2, 2, 4)
    # What was accepted before is still known.
    assert codes(offer(plane, site, manifests)) == [Code.ALREADY_ACCEPTED] * 2
    assert holdings(plane)["requests"] == 8


def test_a_forked_site_goes_on_with_a_new_key_and_the_other_copy_does_not(
    plane: ControlPlane,
) -> None:
    site = enrolled(plane)
    offer(plane, site, sealed(site, 2))
    copy = clone(site)
    offer(plane, site, sealed(site, 1))
    assert codes(offer(plane, copy, sealed(copy, 1, records=7))) == [Code.FORK]
    new = signing_key(4)
    request = introduction(
        appliance_id=site.appliance_id, name="x", epoch=2, wall_ns=site.at_ns, key=new
    )
    key = plane.database.read(lambda c: authority.requested_key(c, "berlin", request))
    assert key == new.public
    grant = granted(plane, new)
    licence = plane.database.read(lambda c: licences.in_force(c, site.appliance_id))
    assert licence is not None
    assert licence.appliance_key_id == new.key_id
    assert not known(plane, site).frozen
    begin_epoch(site, grant, new)
    assert codes(offer(plane, site, sealed(site, 1))) == [HELD]
    assert codes(offer(plane, copy, sealed(copy, 1))) == [Code.EPOCH_CLOSED]


def test_a_revoked_key_begins_no_epoch(plane: ControlPlane) -> None:
    site = enrolled(plane)
    offer(plane, site, sealed(site, 1))
    plane.database.transact(
        lambda c: authority.revoke_key(c, act(plane), "berlin", site.key.key_id, None, "stolen")
    )
    with pytest.raises(NotPossible, match="revoked"):
        granted(plane)
    assert granted(plane, signing_key(2)).epoch == 2


def test_what_waited_behind_a_gap_becomes_evidence_when_the_epoch_ends(
    plane: ControlPlane,
) -> None:
    site = enrolled(plane)
    manifests: list[CarriedManifest] = sealed(site, 3)
    offer(plane, site, [manifests[0], manifests[2]])
    grant = granted(plane)
    after = known(plane, site)
    assert (after.waiting, grant.predecessor_seq) == (0, 1)
    held = holdings(plane)
    assert (held["manifests"], held["evidence"]) == (1, 1)
    assert codes(offer(plane, site, manifests[1:])) == [Code.EPOCH_CLOSED] * 2


def test_a_request_of_another_site_or_changed_is_refused(plane: ControlPlane) -> None:
    enrolled(plane)
    other = introduction(
        appliance_id="apl_" + "1" * 24, name="x", epoch=2, wall_ns=1, key=signing_key(4)
    )
    for raw in (other, b"nonsense"):
        with pytest.raises(NotPossible):
            plane.database.read(
                lambda c, raw=raw: authority.requested_key(c, "berlin", raw)  # type: ignore[misc]
            )
