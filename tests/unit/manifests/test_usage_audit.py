"""Bundles as an auditor sees them: right ones told rightly, and each defect by its name."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance.manifests import archive
from appliance.manifests.bundle import CarriedManifest, KeyChain, UsageReader, write_usage
from appliance.manifests.canonical import decode, encode
from appliance.manifests.checkpoint import sign_checkpoint
from appliance.manifests.documents import (
    EPOCH_GRANT_TYPE,
    MANIFEST_TYPE,
    EpochGrant,
    Header,
    KeyRotation,
    Totals,
)
from appliance.manifests.envelope import parse, sign
from appliance.manifests.errors import (
    BadCheckpoint,
    BadManifest,
    KeyChainBroken,
    ManifestError,
    UnknownKey,
)
from appliance.manifests.keys import sign_rotation
from appliance.manifests.merkle import Frontier, leaf_hash
from appliance.manifests.usage_audit import LogState, UsageSummary, audit_usage
from appliance.security.signing import PublicKey, SigningKey
from tests.fakes.sealed_site import SealedSite, sealed_site

VENDOR = SigningKey(b"v" * 32)
OTHER = SigningKey(b"o" * 32)
SECOND = SigningKey(b"s" * 32)
AT = "2027-01-15T08:00:00.000Z"


@dataclass
class Carried:
    """What a site has, to be changed before it is carried."""

    site: SealedSite
    manifests: list[CarriedManifest]
    keys: KeyChain
    checkpoint: bytes

    def audit(self, *trusted: PublicKey) -> UsageSummary:
        raw, _ = write_usage(
            self.site.appliance_id, "north", self.keys, self.checkpoint, self.manifests
        )
        keys: Sequence[PublicKey] = trusted or (self.site.identity.key.public,)
        return audit_usage(UsageReader(io.BytesIO(raw)), keys)

    def resign(self, number: int, key: SigningKey | None = None, **changes: Any) -> None:
        """Another manifest in that place, rightly signed, with other fields in its header."""
        old = self.manifests[number]
        header = decode(parse(old.envelope).payload, Header)
        payload = encode(msgspec.structs.replace(header, **changes))
        envelope = sign(MANIFEST_TYPE, payload, key or self.site.identity.key)
        self.manifests[number] = old._replace(envelope=envelope.to_bytes())

    def header(self, number: int) -> Header:
        return decode(parse(self.manifests[number].envelope).payload, Header)


def log_of(manifests: Sequence[CarriedManifest]) -> Frontier:
    log = Frontier()
    for one in manifests:
        log.append(leaf_hash(parse(one.envelope).payload))
    return log


@pytest.fixture
def carried(tmp_path: Path) -> Carried:
    site = sealed_site(tmp_path, manifests=4)
    with site.reading() as connection:
        stored = archive.manifests_after(connection, 0, 0, 10)
        first = archive.sync_state(connection).first_key_pem
    manifests = [CarriedManifest(m.epoch, m.seq, m.envelope, m.lines) for m in stored]
    checkpoint = sign_checkpoint(site.appliance_id, log_of(manifests), site.identity.key).note()
    return Carried(site, manifests, KeyChain(first_key_pem=first), checkpoint.encode())


def test_a_whole_log_is_told_as_such(carried: Carried) -> None:
    found = carried.audit()
    assert (found.appliance_id, found.site) == (carried.site.appliance_id, "north")
    assert (found.first, found.last, found.manifests) == ((1, 1), (1, 4), 4)
    assert (found.event_seq_lo, found.event_seq_hi) == (1, 16)
    assert found.totals.requests == 16
    assert found.log is LogState.WHOLE
    assert found.key_ids == (carried.site.identity.key.key_id,)
    assert found.epochs_unproven == ()


def test_a_part_says_that_it_is_one(carried: Carried) -> None:
    whole = list(carried.manifests)
    carried.manifests = whole[1:]
    assert carried.audit().log is LogState.PARTIAL
    carried.manifests = whole[:2]
    assert carried.audit().log is LogState.AHEAD
    carried.checkpoint = b""
    assert carried.audit().log is LogState.NO_CHECKPOINT


def test_only_the_right_key_will_do(carried: Carried) -> None:
    with pytest.raises(UnknownKey):
        carried.audit(OTHER.public)
    with pytest.raises(UnknownKey):
        carried.audit(VENDOR.public)
    carried.keys = KeyChain(first_key_pem=OTHER.public.pem)
    with pytest.raises(BadManifest, match="UNKNOWN_KEY"):
        carried.audit(OTHER.public)
    carried.keys = KeyChain(first_key_pem="nothing")
    with pytest.raises(KeyChainBroken):
        carried.audit()


def _more(totals: Totals, requests: int) -> Totals:
    return msgspec.structs.replace(totals, requests=str(int(totals.requests) + requests))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"appliance_id": "apl_" + "0" * 24}, "UNKNOWN_APPLIANCE"),
        ({"schema": "crosslogic.usage-manifest.v2"}, "UNSUPPORTED_SCHEMA"),
        ({"key_id": "0" * 64}, "UNKNOWN_KEY"),
        ({"lines_root": "0" * 64}, "LINES_ROOT_MISMATCH"),
        ({"line_count": 1}, "LINES_ROOT_MISMATCH"),
        ({"seq": 7}, "MALFORMED"),
        ({"prev_sha256": "0" * 64}, "CHAIN_BROKEN"),
        ({"log_size": 7}, "LOG_INCONSISTENT"),
        ({"log_root": "0" * 64}, "LOG_INCONSISTENT"),
        ({"event_seq_lo": 4, "event_seq_hi": 7}, "EVENT_SEQ_OVERLAP"),
        ({"event_seq_lo": 6, "event_seq_hi": 9}, "EVENT_SEQ_GAP"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_manifest_that_does_not_fit_is_named(
    carried: Carried, changes: dict[str, Any], code: str
) -> None:
    carried.resign(1, **changes)
    with pytest.raises(BadManifest, match=rf"Manifest 1-2 is not right: {code}: "):
        carried.audit()


def test_sums_must_go_on(carried: Carried) -> None:
    carried.resign(1, cumulative_totals=_more(carried.header(1).cumulative_totals, 1))
    with pytest.raises(BadManifest, match="CUMULATIVE_REGRESSION"):
        carried.audit()


def test_totals_must_be_those_of_the_lines(carried: Carried) -> None:
    carried.resign(1, totals=_more(carried.header(1).totals, 1))
    with pytest.raises(BadManifest, match="TOTALS_MISMATCH"):
        carried.audit()


def test_a_missing_or_foreign_manifest_is_found(carried: Carried) -> None:
    whole = list(carried.manifests)
    carried.manifests = [*whole[:1], *whole[2:]]
    with pytest.raises(BadManifest, match=r"Manifest 1-3 is not right: GAP: it follows 1-1"):
        carried.audit()
    # A manifest under a number that is not its own.
    carried.manifests = [whole[0], CarriedManifest(1, 2, whole[2].envelope, whole[2].lines)]
    with pytest.raises(BadManifest, match=r"Manifest 1-2 is not right: MALFORMED"):
        carried.audit()
    # The lines of a neighbour.
    carried.manifests = [whole[0], whole[1]._replace(lines=whole[2].lines)]
    with pytest.raises(BadManifest, match="LINES_ROOT_MISMATCH"):
        carried.audit()


def test_two_branches_of_a_fork_do_not_pass_as_one(carried: Carried, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    # The same site (the same secrets), that served something else.
    other = sealed_site(tmp_path / "other", manifests=0)
    for count in (4, 4, 5, 4):
        other.record(count)
        other.seal()
    stored = other.manifest(4)
    carried.manifests[3] = CarriedManifest(1, 4, stored.envelope, stored.lines)
    with pytest.raises(BadManifest, match=r"Manifest 1-4 is not right: CHAIN_BROKEN"):
        carried.audit()


def test_a_checkpoint_must_be_of_this_log(carried: Carried) -> None:
    key, appliance_id = carried.site.identity.key, carried.site.appliance_id

    def signed(log: Frontier, name: str = appliance_id, by: SigningKey = key) -> bytes:
        return sign_checkpoint(name, log, by).note().encode()

    other = Frontier()
    for number in range(4):
        other.append(leaf_hash(b"%d" % number))
    for checkpoint, error, said in (
        (signed(other), BadManifest, "of another log"),
        (signed(log_of(carried.manifests[:3])), BadManifest, "older than the bundle"),
        (signed(log_of(carried.manifests), by=OTHER), BadCheckpoint, "not signed with"),
        (
            signed(log_of(carried.manifests), name="apl_" + "0" * 24),
            BadCheckpoint,
            "not signed with",
        ),
        (b"\xff", BadCheckpoint, "no text"),
    ):
        carried.checkpoint = checkpoint
        with pytest.raises(error, match=said):
            carried.audit()


def rotation(carried: Carried, seq: int, new: SigningKey, **changes: Any) -> str:
    old = carried.site.identity.key
    document = KeyRotation(
        appliance_id=carried.site.appliance_id,
        epoch=1,
        seq=seq,
        old_key_id=old.key_id,
        new_key_pem=new.public.pem,
        at=AT,
    )
    return sign_rotation(msgspec.structs.replace(document, **changes), old, new).to_bytes().decode()


def test_a_rotated_key_is_reached_from_either_end(carried: Carried) -> None:
    carried.resign(3, SECOND, key_id=SECOND.key_id)
    carried.checkpoint = b""
    carried.keys = msgspec.structs.replace(carried.keys, rotations=(rotation(carried, 4, SECOND),))
    first = carried.site.identity.key.public
    for trusted in ((first,), (SECOND.public,), (VENDOR.public, first)):
        assert carried.audit(*trusted).key_ids == (first.key_id, SECOND.key_id)
    with pytest.raises(UnknownKey):
        carried.audit(VENDOR.public)


def test_a_key_signs_only_in_its_time(carried: Carried) -> None:
    carried.checkpoint = b""
    keys = carried.keys
    carried.resign(3, SECOND, key_id=SECOND.key_id)
    with pytest.raises(BadManifest, match=r"1-4 is not right: UNKNOWN_KEY"):
        carried.audit()  # nothing tells of the second key
    for seq, said in ((3, "1-3"), (5, "1-4")):
        changed = msgspec.structs.replace(keys, rotations=(rotation(carried, seq, SECOND),))
        carried.keys = changed
        with pytest.raises(BadManifest, match=f"{said} is not right: UNKNOWN_KEY"):
            carried.audit()
    for broken in (
        rotation(carried, 4, SECOND, appliance_id="apl_" + "0" * 24),
        rotation(carried, 1, SECOND),
        "{}",
    ):
        carried.keys = msgspec.structs.replace(keys, rotations=(broken,))
        with pytest.raises(ManifestError):
            carried.audit()


def grant(carried: Carried, after: int, key: SigningKey, **changes: Any) -> str:
    """The control plane lets epoch 2 begin after so many manifests of the first."""
    last = carried.header(after - 1)
    log = log_of(carried.manifests[:after])
    document = EpochGrant(
        appliance_id=carried.site.appliance_id,
        epoch=2,
        predecessor_epoch=1,
        predecessor_seq=after,
        predecessor_sha256=_sha256(carried, after - 1),
        predecessor_wall=last.wall,
        event_seq=last.event_seq_hi,
        cumulative_totals=last.cumulative_totals,
        log_size=log.size,
        log_root=log.root().hex(),
        log_frontier=tuple(one.hex() for one in log.roots),
        key_pem=key.public.pem,
        reason="restored",
        at=AT,
    )
    document = msgspec.structs.replace(document, **changes)
    return sign(EPOCH_GRANT_TYPE, encode(document), VENDOR).to_bytes().decode()


def _sha256(carried: Carried, number: int) -> str:
    return carried.site.manifest(number + 1).row.sha256


def begin_epoch(carried: Carried, key: SigningKey, **changes: Any) -> None:
    """The fourth manifest becomes the first of epoch 2, after the third."""
    carried.keys = msgspec.structs.replace(
        carried.keys, grants=(grant(carried, 3, key, **changes),)
    )
    carried.resign(3, key, epoch=2, seq=1, key_id=key.key_id)
    carried.manifests[3] = carried.manifests[3]._replace(epoch=2, seq=1)
    log = log_of(carried.manifests)
    carried.checkpoint = sign_checkpoint(carried.site.appliance_id, log, key).note().encode()


def test_an_epoch_goes_on_after_its_grant(carried: Carried) -> None:
    site_key = carried.site.identity.key
    begin_epoch(carried, site_key)
    proven = carried.audit(site_key.public, VENDOR.public)
    assert (proven.last, proven.log, proven.epochs_unproven) == ((2, 1), LogState.WHOLE, ())
    # Without the control plane's key one cannot say who allowed it.
    assert carried.audit(site_key.public).epochs_unproven == (2,)


def test_a_new_key_of_an_epoch_needs_the_control_planes_word(carried: Carried) -> None:
    begin_epoch(carried, SECOND)
    site_key = carried.site.identity.key.public
    assert carried.audit(site_key, VENDOR.public).last == (2, 1)
    with pytest.raises(KeyChainBroken, match="control plane vouches") as refused:
        carried.audit(site_key)
    assert "second --key" in refused.value.next_step


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"predecessor_sha256": "0" * 64}, "CHAIN_BROKEN"),
        ({"log_size": 4, "log_frontier": ("0" * 64,)}, "LOG_INCONSISTENT"),
        ({"event_seq": 11}, "EVENT_SEQ_GAP"),
        ({"event_seq": 13}, "EVENT_SEQ_OVERLAP"),
    ],
)
def test_an_epoch_must_begin_where_its_grant_says(
    carried: Carried, changes: dict[str, Any], code: str
) -> None:
    begin_epoch(carried, carried.site.identity.key, **changes)
    with pytest.raises(BadManifest, match=f"2-1 is not right: {code}"):
        carried.audit(carried.site.identity.key.public, VENDOR.public)


def test_an_epoch_without_a_grant_is_refused(carried: Carried) -> None:
    begin_epoch(carried, carried.site.identity.key)
    carried.keys = msgspec.structs.replace(carried.keys, grants=())
    with pytest.raises(BadManifest, match="EPOCH_CLOSED"):
        carried.audit()
