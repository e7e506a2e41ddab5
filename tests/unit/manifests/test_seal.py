"""Sealing, and the bytes that never change: golden files of everything that is signed.

The files of `golden/` are what version 1 of each document looks like, made from fixed keys and
records. Another implementation can be checked with them. A change here breaks every site.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.manifests.canonical import decode, encode
from appliance.manifests.checkpoint import cosign, sign_checkpoint
from appliance.manifests.documents import NO_HASH, Header
from appliance.manifests.lines import Sums, build_lines
from appliance.manifests.merkle import EMPTY_ROOT, leaf_hash
from appliance.manifests.proof import make_proof, verify_proof
from appliance.manifests.seal import ChainState, Moment, SealContext, seal
from appliance.manifests.verify import Checked, check_bytes
from tests.fakes import papers
from tests.fakes.sites import START_NS, Site, make_record, signing_key

GOLDEN = Path(__file__).parent / "golden"


def golden_site() -> tuple[Site, bytes, bytes]:
    """The second manifest of a site: three lines of two tenants."""
    site = Site()
    site.seal(2)
    records = [
        make_record(3, START_NS),
        make_record(4, START_NS, region="IN"),
        make_record(5, START_NS, tenant_id="ten_other", tenant="größer"),
        make_record(6, START_NS),
    ]
    envelope, lines, _ = site.seal(records)
    return site, envelope, lines


def golden_files() -> dict[str, bytes]:
    site, envelope, lines = golden_site()
    again, _, _ = Site().seal(2)
    sealed = Site().seal(2)[2]
    records = site.records[2]
    signed = sign_checkpoint(site.appliance_id, site.state.log, site.key)
    return {
        "site-key.pem": site.key.public.pem.encode(),
        "control-plane-key.pem": papers.CONTROL_PLANE.public.pem.encode(),
        "manifest-1-1.dsse.json": again,
        "manifest-1-2.dsse.json": envelope,
        "manifest-1-2.ndjson": lines,
        "proof.json": make_proof(envelope, lines, records, records[3].record_id, site.salts),
        "receipt.dsse.json": papers.receipt_bytes(site, sealed),
        "entitlement.dsse.json": papers.entitlement_bytes(site),
        "key-rotation.dsse.json": papers.rotation_bytes(site, 2, 1, 3),
        "key-revocation.dsse.json": papers.revocation_bytes(site, 1, 3),
        "enrolment.dsse.json": papers.enrolment_bytes(site),
        "checkpoint": cosign(signed, "control-plane", papers.CONTROL_PLANE, papers.AT_S)
        .note()
        .encode(),
    }


@pytest.mark.parametrize("name", golden_files())
def test_the_bytes_are_the_golden_ones(name: str) -> None:
    """A proof's text may be pressed otherwise by another zlib; it must only be read the same."""
    made, kept = golden_files()[name], (GOLDEN / name).read_bytes()
    if name == "proof.json":
        key = golden_site()[0].key.public
        assert verify_proof(kept, key) == verify_proof(made, key)
    else:
        assert made == kept


def test_the_golden_manifest_verifies() -> None:
    checked = check_bytes(
        (GOLDEN / "manifest-1-2.dsse.json").read_bytes(),
        (GOLDEN / "manifest-1-2.ndjson").read_bytes(),
        Site().known(),
    )
    assert isinstance(checked, Checked)
    assert checked.header.lines_root == (
        "9dd0330a89ee004458f718f5dfdb08b8f42d8fe9b5a82c3e159fa98a85ad08dc"
    )
    assert checked.sha256 == "5740190560b392b2971a99951be0a3627fb526e816fe3c2145913ff093857081"


CONTEXT = SealContext("apl_1", "0" * 64)
NOW = Moment(START_NS, 5, "boot")
WINDOW = build_lines([make_record(1), make_record(2)], Site().salts, 1, 1)


def sealed(state: ChainState | None = None, **changes: object) -> Header:
    fields: dict[str, object] = {
        "state": state or ChainState(),
        "window": WINDOW,
        "event_seq_lo": (state or ChainState()).event_seq_hi + 1,
        "event_seq_hi": (state or ChainState()).event_seq_hi + 2,
        "moment_now": NOW,
        "context": CONTEXT,
        "key": signing_key(1),
    }
    return seal(**{**fields, **changes}).header  # type: ignore[arg-type]


def test_the_first_manifest_continues_nothing() -> None:
    header = sealed()
    assert (header.epoch, header.seq, header.prev_sha256) == (1, 1, NO_HASH)
    assert (header.log_size, header.log_root) == (0, EMPTY_ROOT.hex())
    assert (header.event_seq_lo, header.event_seq_hi) == (1, 2)
    assert header.totals == header.cumulative_totals
    assert (header.wall, header.watermark) == ("2026-11-22T19:00:00.000Z",) * 2
    assert (header.mono_ns, header.boot_id, header.regressions) == ("5", "boot", 0)


def test_each_continues_the_one_before() -> None:
    site = Site()
    first, second = site.seal(2)[2], site.seal(3)[2]
    assert second.header.prev_sha256 == first.sha256
    assert second.header.event_seq_lo == first.header.event_seq_hi + 1
    assert second.header.log_size == 1
    assert second.header.log_root == leaf_hash(first.payload).hex()
    assert Sums.of(second.header.cumulative_totals) == Sums.of(first.header.totals) + Sums.of(
        second.header.totals
    )
    assert decode(second.payload, Header) == second.header
    assert encode(second.header) == second.payload
    assert first.next.log.size == 1  # the state before is another tree than the one after


def test_sealing_changes_nothing_of_the_state_it_continues() -> None:
    site = Site()
    site.seal(1)
    before = site.state
    frontier = before.log.to_bytes()
    sealed(before)
    assert before.log.to_bytes() == frontier


@pytest.mark.parametrize(
    ("wall_ns", "watermark_ns", "expected"),
    [
        (START_NS, START_NS, (0, START_NS)),
        (START_NS - 1_000_000, START_NS, (1, START_NS)),  # behind by a millisecond
        (START_NS + 1, START_NS + 999_999, (0, START_NS + 999_999)),  # less is not told
        (START_NS + 10**9, START_NS, (0, START_NS + 10**9)),
    ],
)
def test_a_clock_behind_the_watermark_is_counted(
    wall_ns: int, watermark_ns: int, expected: tuple[int, int]
) -> None:
    state = ChainState(watermark_ns=watermark_ns)
    result = seal(state, WINDOW, 1, 2, Moment(wall_ns, 1, "b"), CONTEXT, signing_key(1))
    assert (result.next.regressions, result.next.watermark_ns) == expected
    assert result.header.regressions == expected[0]


def test_a_record_from_the_future_raises_the_watermark() -> None:
    window = build_lines([make_record(1, START_NS + 10**12)], Site().salts, 1, 1)
    result = seal(ChainState(), window, 1, 1, NOW, CONTEXT, signing_key(1))
    assert result.header.regressions == 1
    assert result.header.watermark > result.header.wall
    assert result.next.watermark_ns == START_NS + 10**12


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"event_seq_lo": 2}, "begins at 2"),
        ({"event_seq_hi": 3}, "as many records"),
        ({"event_seq_hi": 1}, "as many records"),
        ({"state": ChainState(cumulative=Sums(output_tokens=2**63 - 1))}, "64 bits"),
    ],
)
def test_nothing_is_signed_that_could_not_be_accepted(
    changes: dict[str, object], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        sealed(**changes)


def test_any_context_is_sealed_so_that_it_verifies() -> None:
    makers: list[Callable[[Site], object]] = [
        lambda site: setattr(site, "engines", (2**62, 0)),
        lambda site: setattr(site, "boot_id", ""),
        lambda site: setattr(site, "at_ns", 1),
        lambda site: setattr(site, "mono_ns", 2**63),
        lambda site: setattr(site, "state", replace(site.state, watermark_ns=2**63 - 1)),
    ]
    for make in makers:
        site = Site()
        make(site)
        envelope, lines, _ = site.seal([make_record(1, max(site.at_ns - 10, 0))])
        assert isinstance(check_bytes(envelope, lines, site.known()), Checked), make


def test_the_page_of_formats_names_every_field_of_a_header() -> None:
    page = (Path(__file__).parents[3] / "docs" / "MANIFESTS.md").read_text()
    table = page.partition("## Header")[2].partition("##")[0]
    named = [
        name
        for row in table.splitlines()
        if row.startswith("| `")
        for name in re.findall(r"`([a-z_0-9]+)`", row.split("|")[1])
    ]
    assert named == list(Header.__struct_fields__)
