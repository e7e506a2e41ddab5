"""What a receipt changes, and every way in which one may not fit."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.manifests.documents import NO_HASH, Disposition, Receipt
from appliance.sync.receipts import Alarm, Own, Refused, Taken, Unchanged, Verdict, judge
from tests.fakes.vendor import Vendor

VENDOR = Vendor("apl_1", "00" * 32)
OWN = Own(
    appliance_id="apl_1",
    epoch=2,
    sealed_through=9,
    accepted_through=5,
    newest_received_at="2027-01-15T08:00:00.000Z",
    known=frozenset(),
)
LATER = "2027-01-15T09:00:00.000Z"
EARLIER = "2027-01-15T07:00:00.000Z"


def own_hash(seq: int) -> str:
    return f"{seq:064x}"


HASHES = {(2, seq): own_hash(seq) for seq in range(1, 10)}


def receipt(through: int, **changes: Any) -> Receipt:
    head = own_hash(through) if through else NO_HASH
    plain = {"epoch": 2, "accepted_through": through, "head_sha256": head, "received_at": LATER}
    return VENDOR.receipt(**{**plain, **changes})


def verdict(found: Receipt, own: Own = OWN, sha256: str = "ee" * 32) -> Verdict:
    return judge(own, HASHES, found, sha256)


def disposition(code: str, seq: int = 8) -> Disposition:
    return Disposition(epoch=2, seq=seq, sha256=own_hash(seq), code=code, detail="as it is")


def test_a_receipt_that_goes_on_is_taken() -> None:
    assert verdict(receipt(7)) == Taken(7, None)
    assert verdict(receipt(9)) == Taken(9, None)


def test_one_that_repeats_the_number_with_a_newer_lease_is_taken() -> None:
    assert verdict(receipt(5)) == Taken(5, None)


def test_the_very_same_receipt_changes_nothing() -> None:
    own = Own("apl_1", 2, 9, 7, LATER, frozenset({"ee" * 32}))
    assert verdict(receipt(7), own) == Unchanged(superseded=False)


@pytest.mark.parametrize("through", [0, 3, 5])
def test_an_older_one_is_superseded(through: int) -> None:
    assert verdict(receipt(through, received_at=EARLIER)) == Unchanged(superseded=True)


def test_one_of_an_epoch_that_is_over_is_superseded() -> None:
    assert verdict(receipt(3, epoch=1)) == Unchanged(superseded=True)


def test_one_of_another_appliance_is_refused() -> None:
    found = verdict(receipt(7, appliance_id="apl_2"))
    assert isinstance(found, Refused)
    assert found.alarm is Alarm.OTHER_APPLIANCE
    assert found.freeze is None


def test_one_of_an_epoch_that_was_not_granted_here_is_refused_and_freezes() -> None:
    found = verdict(receipt(1, epoch=3))
    assert isinstance(found, Refused)
    assert found.alarm is Alarm.OTHER_EPOCH
    assert found.freeze is not None


def test_one_beyond_what_was_sealed_tells_a_restored_copy_and_what_to_do() -> None:
    found = verdict(receipt(10))
    assert isinstance(found, Refused)
    assert found.alarm is Alarm.BEYOND_SEALED
    assert "restored" in found.message
    assert "cic sync request --new-key" in found.next_step
    assert found.freeze is not None


def test_another_manifest_at_a_number_of_ours_is_refused() -> None:
    found = verdict(receipt(7, head_sha256="ab" * 32))
    assert isinstance(found, Refused)
    assert found.alarm is Alarm.OTHER_HEAD


def test_a_number_of_ours_that_is_not_in_the_archive_is_refused() -> None:
    found = judge(OWN, {}, receipt(7), "ee" * 32)
    assert isinstance(found, Refused)
    assert found.alarm is Alarm.OTHER_HEAD


def test_a_control_plane_that_went_back_is_sent_what_it_forgot() -> None:
    found = verdict(receipt(3))
    assert isinstance(found, Taken)
    assert (found.accepted_through, found.alarm) == (3, Alarm.CONTROL_PLANE_WENT_BACK)
    # Within the difference of two clocks it is an answer that was overtaken.
    close = receipt(3, received_at="2027-01-15T08:04:59.000Z")
    assert verdict(close) == Unchanged(superseded=True)


def test_a_frozen_receipt_freezes_and_the_next_frees() -> None:
    found = verdict(receipt(7, frozen=True, dispositions=(disposition("FORK"),)))
    assert isinstance(found, Taken)
    assert found.freeze is not None
    assert "two copies" in found.freeze.reason
    assert "2-8 FORK: as it is" in found.freeze.reason
    assert verdict(receipt(7)) == Taken(7, None)
    by_hand = verdict(receipt(7, frozen=True))
    assert isinstance(by_hand, Taken)
    assert by_hand.freeze is not None
    assert "until a person decides" in by_hand.freeze.reason


@pytest.mark.parametrize("code", ["CHAIN_BROKEN", "SIG_INVALID", "FORK", "MALFORMED"])
def test_a_manifest_that_was_not_taken_raises_an_alarm(code: str) -> None:
    found = verdict(receipt(7, dispositions=(disposition(code),)))
    assert isinstance(found, Taken)
    assert found.alarm is Alarm.REFUSED_MANIFEST
    assert code in found.detail


@pytest.mark.parametrize(
    "code", ["ACCEPTED", "ALREADY_ACCEPTED", "GAP", "TENANT_UNMAPPED", "CLOCK_FUTURE"]
)
def test_what_is_held_or_waits_for_its_predecessor_raises_none(code: str) -> None:
    found = verdict(receipt(7, dispositions=(disposition(code),)))
    assert found == Taken(7, None)


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 23), st.booleans()), min_size=1, max_size=20
    )
)
def test_in_whatever_order_true_receipts_come_the_number_follows_the_newest_true_one(
    arrivals: list[tuple[int, int, bool]],
) -> None:
    """Receipts of one control plane that only goes on: by wire, by stick, again, out of order."""
    hours = sorted({hour for _, hour, _ in arrivals})
    through_at = {hour: min(9, index) for index, hour in enumerate(hours)}
    own = Own("apl_1", 2, 9)
    reached, known = 0, set()
    for _, hour, again in arrivals:
        through, at = through_at[hour], f"2027-01-15T{hour:02}:00:00.000Z"
        sha256 = f"{hour:064x}"
        for _ in range(2 if again else 1):
            own = Own("apl_1", 2, 9, own.accepted_through, own.newest_received_at, frozenset(known))
            found = verdict(receipt(through, received_at=at), own, sha256)
            if isinstance(found, Taken):
                assert found.alarm is None
                known.add(sha256)
                own = Own("apl_1", 2, 9, found.accepted_through, at)
            reached = max(reached, through)
            assert own.accepted_through == reached
