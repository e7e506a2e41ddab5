"""Stage 1: each code, its order, and nothing accepted that was not signed as it is."""

from dataclasses import replace

import msgspec
import pytest

from appliance.manifests.canonical import decode, encode
from appliance.manifests.codes import Code
from appliance.manifests.documents import (
    MANIFEST_TYPE,
    EngineCounters,
    Header,
    Line,
    Totals,
)
from appliance.manifests.envelope import Envelope, parse, sign
from appliance.manifests.keys import KnownKey, KnownSite
from appliance.manifests.lines import split_lines
from appliance.manifests.merkle import leaf_hash, root
from appliance.manifests.verify import Checked, Finding, Limits, check_bytes, read_envelope
from tests.fakes.sites import START_NS, Site, make_record, signing_key

SITE = Site()
RECORDS = [make_record(seq, START_NS, key_id=f"key_{seq % 3}") for seq in range(1, 10)]
ENVELOPE, LINES, SEALED = SITE.seal(RECORDS)
KNOWN = SITE.known()


def resigned(header: Header | bytes, key: int = 1, payload_type: str = MANIFEST_TYPE) -> bytes:
    payload = header if isinstance(header, bytes) else encode(header)
    return sign(payload_type, payload, signing_key(key)).to_bytes()


def with_header(**changes: object) -> bytes:
    return resigned(msgspec.structs.replace(SEALED.header, **changes))


def with_lines(lines: list[bytes], **changes: object) -> tuple[bytes, bytes]:
    """These lines, properly signed."""
    top = root([leaf_hash(raw) for raw in lines]).hex()
    signed = {"line_count": len(lines), "lines_root": top, **changes}
    return with_header(**signed), b"".join(raw + b"\n" for raw in lines)


def line_with(index: int = 0, **changes: object) -> list[bytes]:
    lines = split_lines(LINES)
    lines[index] = encode(msgspec.structs.replace(decode(lines[index], Line), **changes))
    return lines


def code(
    envelope: bytes = ENVELOPE, lines: bytes = LINES, site: KnownSite | None = KNOWN
) -> Code | None:
    found = check_bytes(envelope, lines, site)
    return found.code if isinstance(found, Finding) else None


def test_a_manifest_as_it_was_sealed_is_right() -> None:
    checked = check_bytes(ENVELOPE, LINES, KNOWN)
    assert isinstance(checked, Checked)
    assert checked.header == SEALED.header
    assert checked.sha256 == SEALED.sha256
    assert checked.payload == SEALED.payload
    assert len(checked.lines) == 3
    assert checked.totals.requests == 9
    assert checked.latest_hour_ms == START_NS // 1_000_000


def test_a_window_without_records_is_right() -> None:
    envelope, lines, _ = Site().seal([])
    assert lines == b""
    assert code(envelope, lines) is None


def test_too_large() -> None:
    limits = Limits()
    large = read_envelope(bytes(limits.envelope_bytes + 1))
    assert isinstance(large, Finding)
    assert large.code is Code.TOO_LARGE
    assert code(bytes(limits.envelope_bytes + 1)) is Code.TOO_LARGE
    assert code(lines=b"x" * (limits.lines_bytes + 1)) is Code.TOO_LARGE
    assert code(lines=b"\n" * (limits.lines + 1)) is Code.TOO_LARGE
    assert code(b"", b"\n" * (limits.lines + 1), None) is Code.TOO_LARGE  # before anything else


HEADER = SEALED.header


@pytest.mark.parametrize(
    "envelope",
    [
        b"",
        b"{}",
        ENVELOPE + b"\n",
        ENVELOPE[:-1],
        resigned(b"{}"),
        resigned(b"[]"),
        resigned(SEALED.payload.replace(b'"seq":1', b'"seq":1,"seq":1')),
        resigned(SEALED.payload.replace(b'"seq":1', b'"seq":1.0')),
        resigned(SEALED.payload.replace(b'"seq":1', b'"seq": 1')),
        resigned(SEALED.payload.replace(b'"seq":1', b'"seq":1,"critical":1')),
        resigned(SEALED.payload.replace(b'"seq":1', b'"seq":9223372036854775808')),
        resigned(SEALED.payload.replace(b"apl_", b"apl\xff")),
        resigned(SEALED.payload, payload_type="application/vnd.crosslogic.receipt.v1+json"),
        sign(MANIFEST_TYPE, SEALED.payload, signing_key(1), signing_key(2)).to_bytes(),
        with_header(epoch=0),
        with_header(seq=0),
        with_header(event_seq_lo=0),
        with_header(event_seq_lo=11),
        with_header(line_count=10),
        with_header(wall="2026-11-22T19:05:00.001Z"),  # the watermark is behind
        with_header(wall="2026-11-22T19:05:00Z"),
        with_header(wall="2026-11-22T19:05:00.000+00:00"),
        with_header(wall="2026-13-22T19:05:00.000Z"),
        with_header(wall="2026-11-22T19:05:60.000Z"),
        with_header(wall=""),
        with_header(watermark="tomorrow"),
        with_header(mono_ns="-1"),
        with_header(mono_ns="٣"),
        with_header(mono_ns="1" * 20),
        with_header(totals=msgspec.structs.replace(HEADER.totals, input_tokens="01")),
        with_header(totals=msgspec.structs.replace(HEADER.totals, input_tokens="-1")),
        with_header(
            cumulative_totals=msgspec.structs.replace(
                HEADER.cumulative_totals, output_tokens=str(2**63)
            )
        ),
        with_header(engines=EngineCounters(prompt_tokens=str(2**63), generated_tokens="0")),
        with_header(lines_root=HEADER.lines_root.upper()),
    ],
)
def test_malformed(envelope: bytes) -> None:
    assert code(envelope) is Code.MALFORMED
    assert code(envelope, site=None) is Code.MALFORMED  # before anybody asks who it is


@pytest.mark.parametrize(
    "lines",
    [
        split_lines(LINES)[::-1],
        [split_lines(LINES)[0]] * 3,
        [split_lines(LINES)[0], split_lines(LINES)[1], b"{}"],
        [split_lines(LINES)[0], split_lines(LINES)[1], b""],
        [split_lines(LINES)[0], split_lines(LINES)[1], b"x" * 10_000],
        line_with(hour="2026-11-22T19:30:00Z"),
        line_with(hour="2026-11-22T19:00:00.000Z"),
        line_with(hour="2026-11-22T24:00:00Z"),
        line_with(requests="03"),
        line_with(input_tokens="1e3"),
        line_with(salt=""),
        line_with(records_root=""),
        line_with(tenant="a\tb"),
        [raw.replace(b'"region"', b'"critical":1,"region"') for raw in split_lines(LINES)],
    ],
)
def test_lines_that_break_the_rules_are_malformed_though_they_were_signed(
    lines: list[bytes],
) -> None:
    envelope, raw = with_lines(lines)
    assert code(envelope, raw) is Code.MALFORMED


@pytest.mark.parametrize(
    "envelope",
    [
        with_header(schema="crosslogic.usage-manifest.v2"),
        resigned(b'{"schema":"crosslogic.usage-manifest.v2","of":"another kind"}'),
        resigned(SEALED.payload, payload_type="application/vnd.crosslogic.usage-manifest.v2+json"),
    ],
)
def test_unsupported_schema(envelope: bytes) -> None:
    assert code(envelope) is Code.UNSUPPORTED_SCHEMA
    assert code(envelope, b"", None) is Code.UNSUPPORTED_SCHEMA


def test_unknown_appliance() -> None:
    assert code(site=None) is Code.UNKNOWN_APPLIANCE
    assert code(site=replace(KNOWN, appliance_id="apl_other")) is Code.UNKNOWN_APPLIANCE
    assert code(with_header(appliance_id="apl_other")) is Code.UNKNOWN_APPLIANCE


def test_unknown_key() -> None:
    assert code(resigned(SEALED.header, key=2)) is Code.UNKNOWN_KEY  # the header names key 1
    other = signing_key(2).key_id
    strange = msgspec.structs.replace(SEALED.header, key_id=other)
    assert code(resigned(strange, key=2)) is Code.UNKNOWN_KEY
    one = KnownKey(signing_key(1).public)
    for known in (
        replace(one, since=(1, 2)),
        replace(one, since=(2, 1)),
        replace(one, until=(1, 1)),
    ):
        assert code(site=replace(KNOWN, keys=(known,))) is Code.UNKNOWN_KEY
    assert code(site=replace(KNOWN, keys=(replace(one, until=(1, 2)),))) is None


def test_key_revoked() -> None:
    one = KnownKey(signing_key(1).public)
    for place in ((1, 1), (0, 9)):
        site = replace(KNOWN, keys=(replace(one, revoked=place),))
        assert code(site=site) is Code.KEY_REVOKED
        assert code(resigned(SEALED.header)[:-8] + b'AA=="}]}', site=site) is Code.KEY_REVOKED
    for place in ((1, 2), (2, 1)):  # what it signed before stands
        assert code(site=replace(KNOWN, keys=(replace(one, revoked=place),))) is None


def test_signature_invalid() -> None:
    envelope = parse(ENVELOPE)
    signature = envelope.signatures[0]
    changed = msgspec.structs.replace(SEALED.header, event_seq_lo=2)
    bent = Envelope(encode(changed), MANIFEST_TYPE, (signature,)).to_bytes()
    assert code(bent) is Code.SIG_INVALID
    for bad in (bytes(64), signature.signature[:-1], signature.signature + b"\0", b""):
        forged = replace(envelope, signatures=(replace(signature, signature=bad),))
        assert code(forged.to_bytes(), b"") is Code.SIG_INVALID  # also where the lines are wrong


@pytest.mark.parametrize(
    "lines",
    [
        b"",
        LINES[:-1],
        LINES + b"\n",
        LINES + LINES,
        LINES.replace(b"key_1", b"key_9"),
        b"".join(LINES.splitlines(keepends=True)[:2]),
        b"".join(LINES.splitlines(keepends=True)[::-1]),
        LINES.replace(b"\n", b"\r\n"),
        b"\n" * 3,
        b"{}\n" * 3,
    ],
)
def test_lines_root_mismatch(lines: bytes) -> None:
    assert code(lines=lines) is Code.LINES_ROOT_MISMATCH


def test_totals_mismatch() -> None:
    more = Totals(requests="9", input_tokens="1", cached_tokens="0", output_tokens="1")
    assert code(with_header(totals=more)) is Code.TOTALS_MISMATCH
    assert code(with_header(event_seq_hi=10)) is Code.TOTALS_MISMATCH
    assert code(with_header(event_seq_lo=2)) is Code.TOTALS_MISMATCH
    assert code(with_header(cumulative_totals=more)) is Code.TOTALS_MISMATCH
    for lines in (line_with(input_tokens="1"), line_with(requests="4"), line_with(requests="0")):
        assert code(*with_lines(lines)) is Code.TOTALS_MISMATCH


def test_a_line_that_was_never_used_or_more_cached_than_read_is_refused() -> None:
    line = decode(split_lines(LINES)[0], Line)
    idle = msgspec.structs.replace(
        line,
        hour="2026-11-22T18:00:00Z",
        requests="0",
        input_tokens="0",
        cached_tokens="0",
        output_tokens="0",
    )
    envelope, raw = with_lines([encode(idle), *split_lines(LINES)])
    assert code(envelope, raw) is Code.TOTALS_MISMATCH
    cached = int(line.input_tokens) + 1
    more = cached - int(line.cached_tokens)
    totals = msgspec.structs.replace(
        HEADER.totals, cached_tokens=str(int(HEADER.totals.cached_tokens) + more)
    )
    envelope, raw = with_lines(line_with(cached_tokens=str(cached)), totals=totals)
    assert code(envelope, raw) is Code.TOTALS_MISMATCH


def test_the_first_that_fails_is_the_answer() -> None:
    """One manifest with every fault, from which one after the other is taken."""
    revoked = replace(KNOWN, keys=(replace(KNOWN.keys[0], revoked=(1, 1)),))
    stranger = replace(KNOWN, keys=(KnownKey(signing_key(9).public),))
    wrong = Totals(requests="9", input_tokens="1", cached_tokens="0", output_tokens="1")
    faulty = msgspec.structs.replace(SEALED.header, schema="v9", totals=wrong)
    unsigned = Envelope(encode(faulty), MANIFEST_TYPE, parse(ENVELOPE).signatures)
    named = msgspec.structs.replace(SEALED.header, totals=wrong)
    bent = Envelope(encode(named), MANIFEST_TYPE, parse(ENVELOPE).signatures).to_bytes()
    no_line = b"{}\n"
    steps = [
        (bytes(40_000), no_line, None),
        (unsigned.to_bytes() + b" ", no_line, None),
        (unsigned.to_bytes(), no_line, None),
        (bent, no_line, None),
        (bent, no_line, stranger),
        (bent, no_line, revoked),
        (bent, no_line, KNOWN),
        (resigned(named), no_line, KNOWN),
        (resigned(named), LINES, KNOWN),
        (ENVELOPE, LINES, KNOWN),
    ]
    assert [code(*step) for step in steps] == [
        Code.TOO_LARGE,
        Code.MALFORMED,
        Code.UNSUPPORTED_SCHEMA,
        Code.UNKNOWN_APPLIANCE,
        Code.UNKNOWN_KEY,
        Code.KEY_REVOKED,
        Code.SIG_INVALID,
        Code.LINES_ROOT_MISMATCH,
        Code.TOTALS_MISMATCH,
        None,
    ]


def test_fields_to_come_may_be_ignored_when_they_say_so() -> None:
    longer = SEALED.payload.replace(b'"epoch":1', b'"x_gpu":{"of":["many"]},"epoch":1')
    assert code(resigned(longer)) is None
    lines = [raw.replace(b'"hour"', b'"x_energy":"12","hour"') for raw in split_lines(LINES)]
    assert code(*with_lines(lines)) is None


@pytest.mark.parametrize("noise", [b"\x00", b"\xff\xfe", b"null", b"[" * 30_000, b"{"])
def test_noise_is_answered_and_raises_nothing(noise: bytes) -> None:
    assert code(noise, noise, None) is Code.MALFORMED


def test_a_finding_says_what_was_found_in_words() -> None:
    found = check_bytes(ENVELOPE, b"", KNOWN)
    assert found == Finding(Code.LINES_ROOT_MISMATCH, "0 lines came, 3 are signed")
