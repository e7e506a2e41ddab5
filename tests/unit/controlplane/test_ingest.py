"""Every code of a verification, provoked; what is kept, posted and answered with each."""

import msgspec
import pytest

from appliance.controlplane import authority
from appliance.controlplane.examined import unpack
from appliance.controlplane.ingest import BatchSize
from appliance.controlplane.service import ControlPlane
from appliance.controlplane.site_tables import MANIFESTS
from appliance.manifests.bundle import CarriedManifest
from appliance.manifests.canonical import decode
from appliance.manifests.checkpoint import (
    parse_checkpoint,
    sign_checkpoint,
    verify_cosignature,
)
from appliance.manifests.codes import Code
from appliance.manifests.documents import MANIFEST_TYPE, NO_HASH, EngineCounters, Header, Totals
from appliance.manifests.envelope import Envelope, parse, sign
from tests.fakes.clock import ManualClock
from tests.fakes.reporting import (
    act,
    clone,
    codes,
    enrolled,
    holdings,
    known,
    offer,
    receipt,
    resigned,
    sealed,
)
from tests.fakes.sites import START_NS, Site, signing_key

HELD = Code.TENANT_UNMAPPED  # no tenant is mapped in these tests: accepted, and held
DAY_NS = 86_400 * 1_000_000_000


def test_what_continues_the_chain_is_accepted_posted_and_receipted(plane: ControlPlane) -> None:
    site = enrolled(plane)
    taken = offer(plane, site, sealed(site, 3))
    assert codes(taken) == [HELD] * 3
    answer = receipt(plane, taken[0])
    assert (answer.epoch, answer.accepted_through) == (1, 3)
    assert answer.head_sha256 == site.state.head_sha256
    assert (answer.log_size, answer.log_root) == (3, site.state.log.root().hex())
    assert [(one.epoch, one.seq) for one in answer.dispositions] == [(1, 1), (1, 2), (1, 3)]
    assert not answer.frozen
    held = holdings(plane)
    assert (held["manifests"], held["requests"]) == (3, 6)
    assert known(plane, site).state.accepted_through == 3


def test_what_was_accepted_is_answered_with_the_very_same_receipt(plane: ControlPlane) -> None:
    site = enrolled(plane)
    manifests = sealed(site, 3)
    first = offer(plane, site, manifests)
    before = holdings(plane)
    for _ in range(3):
        again = offer(plane, site, manifests)
        assert codes(again) == [Code.ALREADY_ACCEPTED] * 3
        assert again[0].receipts == first[0].receipts
        assert again[0].well
    assert holdings(plane) == before


def test_a_repetition_across_receipts_ends_with_the_newest(plane: ControlPlane) -> None:
    site = enrolled(plane)
    manifests = sealed(site, 4)
    first = offer(plane, site, manifests[:2])
    second = offer(plane, site, manifests[2:])
    again = offer(plane, site, manifests[:3])
    assert again[0].receipts == (first[0].receipts[0], second[0].receipts[0])
    older = offer(plane, site, manifests[:1])
    assert older[0].receipts == (first[0].receipts[0], second[0].receipts[0])


def test_a_repetition_with_something_new_is_accepted_as_far_as_it_is_new(
    plane: ControlPlane,
) -> None:
    site = enrolled(plane)
    manifests = sealed(site, 3)
    offer(plane, site, manifests[:2])
    taken = offer(plane, site, manifests)
    assert codes(taken) == [Code.ALREADY_ACCEPTED, Code.ALREADY_ACCEPTED, HELD]
    assert receipt(plane, taken[0]).accepted_through == 3
    assert holdings(plane)["requests"] == 6


def test_too_large(plane: ControlPlane) -> None:
    site = enrolled(plane)
    (manifest,) = sealed(site, 1)
    large = manifest._replace(envelope=manifest.envelope + b" " * 40_000)
    taken = offer(plane, site, [large])
    assert codes(taken) == [Code.TOO_LARGE]
    assert holdings(plane)["evidence"] == 1


def test_malformed(plane: ControlPlane) -> None:
    site = enrolled(plane)
    (manifest,) = sealed(site, 1)
    for raw in (b"", b"{}", manifest.envelope[:-1], b"\xff" * 100, manifest.envelope + b"\n"):
        assert codes(offer(plane, site, [manifest._replace(envelope=raw)])) == [Code.MALFORMED]
    assert codes(offer(plane, site, [manifest])) == [HELD]


def test_unsupported_schema(plane: ControlPlane) -> None:
    site = enrolled(plane)
    (manifest,) = sealed(site, 1)
    later = resigned(manifest, site.key, schema="crosslogic.usage-manifest.v2")
    assert codes(offer(plane, site, [later])) == [Code.UNSUPPORTED_SCHEMA]


def test_unknown_appliance(plane: ControlPlane) -> None:
    stranger = Site(key=signing_key(9))
    taken = offer(plane, stranger, sealed(stranger, 1))
    assert codes(taken) == [Code.UNKNOWN_APPLIANCE]
    assert taken[0].site is None
    assert receipt(plane, taken[0]).accepted_through == 0
    assert holdings(plane) == {"manifests": 0, "evidence": 1, "documents": 0, "requests": 0}


def test_a_manifest_of_another_site_is_not_this_ones(plane: ControlPlane) -> None:
    site, other = enrolled(plane), enrolled(plane, 2, "paris")
    taken = list(plane.ingest.take(site.appliance_id, sealed(other, 1), "wire"))
    assert codes(taken) == [Code.UNKNOWN_APPLIANCE]
    assert known(plane, other).state.accepted_through == 0


def test_unknown_key(plane: ControlPlane) -> None:
    site = enrolled(plane)
    (manifest,) = sealed(site, 1)
    taken = offer(plane, site, [resigned(manifest, signing_key(5))])
    assert codes(taken) == [Code.UNKNOWN_KEY]


def test_key_revoked(plane: ControlPlane) -> None:
    site = enrolled(plane)
    manifests = sealed(site, 3)
    offer(plane, site, manifests[:1])
    plane.database.transact(
        lambda connection: authority.revoke_key(
            connection, act(plane), "berlin", site.key.key_id, None, "stolen"
        )
    )
    assert codes(offer(plane, site, manifests)) == [
        Code.ALREADY_ACCEPTED,
        Code.KEY_REVOKED,
        Code.KEY_REVOKED,
    ]
    assert known(plane, site).state.accepted_through == 1


def test_sig_invalid(plane: ControlPlane) -> None:
    site = enrolled(plane)
    (manifest,) = sealed(site, 1)
    envelope = parse(manifest.envelope)
    other = sign(MANIFEST_TYPE, b"something else", site.key)
    forged = Envelope(envelope.payload, envelope.payload_type, other.signatures)
    taken = offer(plane, site, [manifest._replace(envelope=forged.to_bytes())])
    assert codes(taken) == [Code.SIG_INVALID]


def test_lines_root_mismatch(plane: ControlPlane) -> None:
    site = enrolled(plane)
    (manifest,) = sealed(site, 1)
    for lines in (b"", manifest.lines.replace(b"acme", b"acne", 1), manifest.lines[:-1]):
        taken = offer(plane, site, [manifest._replace(lines=lines)])
        assert codes(taken) == [Code.LINES_ROOT_MISMATCH]


def test_totals_mismatch(plane: ControlPlane) -> None:
    site = enrolled(plane)
    (manifest,) = sealed(site, 1)
    header = decode(parse(manifest.envelope).payload, Header)
    totals = msgspec.structs.replace(header.totals, output_tokens="1")
    lying = resigned(manifest, site.key, totals=totals)
    assert codes(offer(plane, site, [lying])) == [Code.TOTALS_MISMATCH]


def test_a_fork_keeps_both_freezes_the_site_and_posts_nothing(plane: ControlPlane) -> None:
    site = enrolled(plane)
    copy = clone(site)
    own, others = sealed(site, 2), sealed(copy, 1, records=5)
    offer(plane, site, own[:1])
    before = holdings(plane)
    taken = offer(plane, copy, others)
    assert codes(taken) == [Code.FORK]
    answer = receipt(plane, taken[0])
    assert answer.frozen
    assert answer.accepted_through == 1
    after = holdings(plane)
    assert (after["evidence"], after["requests"]) == (1, before["requests"])
    assert after["manifests"] == before["manifests"]
    frozen = known(plane, site)
    assert frozen.frozen
    assert "another manifest 1-1" in frozen.frozen_reason
    # The true chain is not taken either until a person decides; that is told, and nothing kept.
    assert codes(offer(plane, site, own[1:])) == [Code.FORK]
    assert holdings(plane) == after
    # What both have in common is still answered, and the newest receipt says that it is frozen.
    again = offer(plane, site, own[:1])
    assert codes(again) == [Code.ALREADY_ACCEPTED]
    assert receipt(plane, again[0]).frozen


def test_a_fork_of_what_waits_behind_a_gap_is_a_fork(plane: ControlPlane) -> None:
    site = enrolled(plane)
    first = sealed(site, 1)
    copy = clone(site)
    own, others = sealed(site, 2), sealed(copy, 2, records=5)
    assert codes(offer(plane, site, own[1:])) == [Code.GAP]
    assert codes(offer(plane, copy, others[1:])) == [Code.FORK]
    assert known(plane, site).frozen
    assert codes(offer(plane, site, first)) == [Code.FORK]


def test_freed_the_chain_goes_on_where_it_was(plane: ControlPlane) -> None:
    site = enrolled(plane)
    copy = clone(site)
    own, others = sealed(site, 2), sealed(copy, 1, records=5)
    offer(plane, site, own[:1])
    offer(plane, copy, others)
    plane.database.transact(
        lambda connection: authority.unfreeze(connection, act(plane), "berlin", "a mistake")
    )
    assert codes(offer(plane, site, own)) == [Code.ALREADY_ACCEPTED, HELD]


def test_epoch_closed(plane: ControlPlane) -> None:
    site = enrolled(plane)
    manifests = sealed(site, 2)
    offer(plane, site, manifests[:1])
    plane.database.transact(
        lambda connection: authority.grant_epoch(connection, act(plane), "berlin", None, "restored")
    )
    assert codes(offer(plane, site, manifests)) == [Code.ALREADY_ACCEPTED, Code.EPOCH_CLOSED]
    early = resigned(manifests[1], site.key, epoch=3, seq=1)
    assert codes(offer(plane, site, [early])) == [Code.EPOCH_CLOSED]


def test_a_gap_waits_and_is_posted_in_order_when_it_is_closed(plane: ControlPlane) -> None:
    site = enrolled(plane)
    manifests = sealed(site, 6)
    waiting = offer(plane, site, [manifests[4], manifests[2]])
    assert codes(waiting) == [Code.GAP, Code.GAP]
    details = [one.detail for one in waiting[0].dispositions]
    assert details == ["missing: epoch 1, 1 to 4", "missing: epoch 1, 1 to 2"]
    assert holdings(plane)["requests"] == 0
    assert known(plane, site).waiting == 2
    assert codes(offer(plane, site, manifests[2:3])) == [Code.GAP]  # again: nothing changes
    assert known(plane, site).waiting == 2

    closed = offer(plane, site, manifests[:2])
    answer = receipt(plane, closed[0])
    assert [(one.seq, one.code) for one in answer.dispositions] == [(1, HELD), (2, HELD), (3, HELD)]
    assert (answer.accepted_through, known(plane, site).waiting) == (3, 1)
    rest = offer(plane, site, manifests[3:4])
    assert [one.seq for one in receipt(plane, rest[0]).dispositions] == [4, 5]
    assert (known(plane, site).waiting, holdings(plane)["requests"]) == (0, 10)
    assert codes(offer(plane, site, manifests)) == [Code.ALREADY_ACCEPTED] * 5 + [HELD]


def test_what_waited_is_judged_with_the_keys_of_the_day_it_comes_due(plane: ControlPlane) -> None:
    site = enrolled(plane)
    manifests = sealed(site, 2)
    offer(plane, site, manifests[1:])
    plane.database.transact(
        lambda connection: authority.revoke_key(
            connection, act(plane), "berlin", site.key.key_id, (1, 2), "stolen"
        )
    )
    taken = offer(plane, site, manifests[:1])
    assert codes(taken) == [HELD, Code.KEY_REVOKED]
    assert taken[0].well  # of what was offered
    after = known(plane, site)
    assert (after.state.accepted_through, after.waiting) == (1, 0)
    assert holdings(plane)["evidence"] == 1


def test_a_long_queue_behind_a_gap_comes_due_in_several_transactions(plane: ControlPlane) -> None:
    plane.ingest.size = BatchSize(manifests=4)
    site = enrolled(plane)
    manifests = sealed(site, 11)
    offer(plane, site, manifests[1:])
    taken = offer(plane, site, manifests[:1])
    assert codes(taken) == [HELD] * 11
    assert [len(one.dispositions) for one in taken] == [5, 4, 2]
    assert known(plane, site).state.accepted_through == 11


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        (Code.CHAIN_BROKEN, {"prev_sha256": "ab" * 32}),
        (Code.CHAIN_BROKEN, {"prev_sha256": NO_HASH}),
        (Code.LOG_INCONSISTENT, {"log_root": "cd" * 32}),
        (Code.LOG_INCONSISTENT, {"log_size": 5}),
        (Code.EVENT_SEQ_OVERLAP, {"event_seq_lo": 2, "event_seq_hi": 3}),
        (Code.EVENT_SEQ_GAP, {"event_seq_lo": 4, "event_seq_hi": 5}),
        (
            Code.CUMULATIVE_REGRESSION,
            {
                "cumulative_totals": Totals(
                    requests="2",
                    input_tokens="99999",
                    cached_tokens="99999",
                    output_tokens="99999",
                )
            },
        ),
    ],
)
def test_what_does_not_continue_the_chain_is_refused_and_kept(
    plane: ControlPlane, code: Code, changes: dict[str, object]
) -> None:
    site = enrolled(plane)
    first, second = sealed(site, 2)
    offer(plane, site, [first])
    before = holdings(plane)
    lying = resigned(second, site.key, **changes)
    assert codes(offer(plane, site, [lying])) == [code]
    after = holdings(plane)
    assert (after["evidence"], after["requests"]) == (1, before["requests"])
    # The refusal is on record, so that the site learns of it by whichever way the receipt comes.
    assert after["documents"] == before["documents"] + 1
    offer(plane, site, [lying])
    assert holdings(plane) == after
    assert not known(plane, site).frozen
    assert codes(offer(plane, site, [second])) == [HELD]


def test_counter_regression_is_accepted_and_held(plane: ControlPlane) -> None:
    site = enrolled(plane)
    first, second = sealed(site, 2)
    offer(plane, site, [first])
    engines = EngineCounters(prompt_tokens="0", generated_tokens="0")
    taken = offer(plane, site, [resigned(second, site.key, engines=engines)])
    assert codes(taken) == [Code.COUNTER_REGRESSION]
    assert HELD in taken[0].dispositions[0].detail
    assert taken[0].well


def test_a_clock_that_went_back_is_accepted_and_held(plane: ControlPlane) -> None:
    site = enrolled(plane)
    offer(plane, site, sealed(site, 1))
    site.at_ns -= 365 * DAY_NS
    taken = offer(plane, site, sealed(site, 1))
    assert codes(taken) == [Code.CLOCK_REGRESSION]
    assert holdings(plane)["requests"] == 4


def test_a_clock_ahead_of_ours_is_accepted_and_held(plane: ControlPlane) -> None:
    site = enrolled(plane)
    site.at_ns += 365 * DAY_NS
    taken = offer(plane, site, sealed(site, 1))
    assert codes(taken) == [Code.CLOCK_FUTURE]
    assert receipt(plane, taken[0]).accepted_through == 1


def test_evidence_of_anybody_fills_no_disk(plane: ControlPlane) -> None:
    plane.ingest.caps = type(plane.ingest.caps)(rows=3, bytes=100)
    site = enrolled(plane)
    (manifest,) = sealed(site, 1)
    for number in range(6):
        raw = b"garbage %d" % number * 100
        offer(plane, site, [manifest._replace(envelope=raw)])
    assert holdings(plane)["evidence"] == 3
    # What the site certainly signed is kept all the same.
    offer(plane, site, [manifest])
    offer(
        plane,
        clone(site),
        [
            resigned(
                manifest,
                site.key,
                wall="2026-11-22T19:05:01.000Z",
                watermark="2026-11-22T19:05:01.000Z",
            )
        ],
    )
    assert holdings(plane)["evidence"] == 4


def test_an_outsider_changes_no_receipt_and_no_lease(plane: ControlPlane) -> None:
    site = enrolled(plane)
    (manifest,) = sealed(site, 1)
    offer(plane, site, [manifest])
    before = holdings(plane)["documents"]
    lease = receipt(plane, offer(plane, site, [manifest])[0]).lease_until
    clock = plane.clock
    assert isinstance(clock, ManualClock)
    clock.turn(5 * 86_400)
    taken = offer(plane, site, [manifest._replace(envelope=b"garbage")])
    assert receipt(plane, taken[0]).lease_until == lease
    assert receipt(plane, offer(plane, site, [manifest])[0]).lease_until == lease
    assert holdings(plane)["documents"] == before
    renewed = offer(plane, site, sealed(site, 1))
    assert receipt(plane, renewed[0]).lease_until > lease


def test_the_lease_ends_with_the_entitlement_at_the_latest(plane: ControlPlane) -> None:
    site = enrolled(plane, valid_days=10)
    answer = receipt(plane, offer(plane, site, sealed(site, 1))[0])
    assert answer.lease_until == "2026-12-03T19:00:00.000Z"


def test_a_checkpoint_of_this_very_log_is_cosigned(plane: ControlPlane) -> None:
    site = enrolled(plane)
    manifests = sealed(site, 2)
    note = sign_checkpoint(site.appliance_id, site.state.log, site.key).note()
    part = offer(plane, site, manifests[:1], note.encode())
    assert receipt(plane, part[0]).checkpoint == ""
    whole = offer(plane, site, manifests[1:], note.encode())
    cosigned = parse_checkpoint(receipt(plane, whole[0]).checkpoint)
    seen_s = verify_cosignature(cosigned, plane.ingest.name, plane.identity.key.public)
    assert seen_s == (START_NS + DAY_NS) // 1_000_000_000
    assert cosigned.body == parse_checkpoint(note).body


def test_a_checkpoint_of_somebody_else_is_left_aside(plane: ControlPlane) -> None:
    site = enrolled(plane)
    manifests = sealed(site, 1)
    note = sign_checkpoint(site.appliance_id, site.state.log, signing_key(8)).note()
    for raw in (note.encode(), b"nonsense", b"\xff"):
        taken = offer(plane, site, manifests, raw)
        assert receipt(plane, taken[0]).checkpoint == ""


def test_batches_are_cut_by_manifests_lines_and_bytes(plane: ControlPlane) -> None:
    site = enrolled(plane)
    manifests = sealed(site, 7)
    for size, parts in (
        (BatchSize(manifests=3), [3, 3, 1]),
        (BatchSize(lines=2), [2, 2, 2, 1]),
        (BatchSize(bytes=1), [1] * 7),
    ):
        plane.ingest.size = size
        assert [len(one.dispositions) for one in offer(plane, site, manifests)] == parts


def test_keys_that_change_between_the_stages_are_looked_at_again(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A revocation that comes while the bytes are verified is obeyed."""
    site = enrolled(plane)
    manifests = sealed(site, 1)
    begin = plane.ingest.examination.begin
    done: list[bool] = []

    def revoke_meanwhile(batch: object, keys: object) -> object:
        examined = begin(batch, keys)()  # type: ignore[arg-type]
        if not done:
            done.append(True)
            plane.database.transact(
                lambda connection: authority.revoke_key(
                    connection, act(plane), "berlin", site.key.key_id, None, "stolen"
                )
            )
        return lambda: examined

    monkeypatch.setattr(plane.ingest.examination, "begin", revoke_meanwhile)
    assert codes(offer(plane, site, manifests)) == [Code.KEY_REVOKED]


def test_nothing_of_a_transaction_that_fails_stays(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = enrolled(plane)
    manifests = sealed(site, 3)
    before = holdings(plane)

    def fail(*_: object) -> None:
        raise OSError("the power went")

    with monkeypatch.context() as broken:
        broken.setattr("appliance.controlplane.receipts.keep", fail)
        with pytest.raises(OSError, match="the power went"):
            offer(plane, site, manifests)
    assert holdings(plane) == before
    assert known(plane, site).state.accepted_through == 0
    assert codes(offer(plane, site, manifests)) == [HELD] * 3


def test_the_bytes_are_kept_as_they_came(plane: ControlPlane) -> None:
    site = enrolled(plane)
    manifests: list[CarriedManifest] = sealed(site, 5)
    offer(plane, site, manifests)
    rows = plane.database.read(
        lambda connection: connection.execute(MANIFESTS.select().order_by(MANIFESTS.c.seq)).all()
    )
    assert [bytes(row.envelope) for row in rows] == [one.envelope for one in manifests]
    assert [unpack(bytes(row.lines)) for row in rows] == [one.lines for one in manifests]
