"""Proofs: small, complete, and refused when anything is another."""

import json
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.manifests import packing
from appliance.manifests.canonical import decode, encode
from appliance.manifests.documents import Line
from appliance.manifests.envelope import pre_authentication
from appliance.manifests.errors import BadProof, SignatureInvalid, UnknownKey
from appliance.manifests.lines import Sums, split_lines
from appliance.manifests.merkle import Frontier
from appliance.manifests.packing import Parts, pack, path_length, unpack
from appliance.manifests.proof import Proof, make_proof, read_proof, verify_proof
from appliance.wire.records import Record
from tests.fakes.sites import MINUTE_NS, Site, make_record, signing_key

SITE = Site()
RECORDS = [
    make_record(seq, SITE.at_ns - MINUTE_NS, key_id=f"key_{seq % 5:024x}") for seq in range(1, 24)
]
ENVELOPE, LINES, SEALED = SITE.seal(RECORDS)
WANTED = RECORDS[7]
RAW = make_proof(ENVELOPE, LINES, RECORDS, WANTED.record_id, SITE.salts)
KEY = SITE.key.public


def body_of(raw: bytes) -> bytes:
    text = json.loads(raw)["proof"]
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def with_body(body: bytes, raw: bytes = RAW) -> bytes:
    """The same proof with another body, and the check that belongs to it."""
    outside = decode(raw, Proof)
    return encode(
        msgspec.structs.replace(
            outside,
            proof=urlsafe_b64encode(body).decode().rstrip("="),
            check=sha256(body).hexdigest()[:16],
        )
    )


PARTS = unpack(body_of(RAW))


def forged(change: Callable[[Parts], Parts]) -> bytes:
    return with_body(pack(change(PARTS)))


@pytest.mark.parametrize("index", range(len(RECORDS)))
def test_every_record_of_a_window_is_proven(index: int) -> None:
    record = RECORDS[index]
    raw = make_proof(ENVELOPE, LINES, RECORDS, record.record_id, SITE.salts)
    verdict = verify_proof(raw, signing_key(9).public, KEY)
    assert verdict.record == record
    assert verdict.header == SEALED.header
    assert verdict.line.key_id == record.key_id
    assert verdict.key_id == KEY.key_id
    assert verify_proof(raw + b"\n", KEY) == verdict  # as a file holds it


def test_a_proof_tells_nothing_of_a_neighbour() -> None:
    text = repr(unpack(body_of(RAW)))
    for record in RECORDS:
        assert (record.record_id in text) == (record is WANTED)
    keys = {record.key_id for record in RECORDS}
    assert [key for key in keys if key in text] == [WANTED.key_id]


def test_the_parts_are_those_that_were_signed() -> None:
    assert PARTS.header == SEALED.payload
    assert PARTS.line in split_lines(LINES)
    assert PARTS.lines_root().hex() == SEALED.header.lines_root
    assert PARTS.records_root().hex() == decode(PARTS.line, Line).records_root
    assert unpack(pack(PARTS)) == PARTS
    assert SITE.key.public.verify(
        PARTS.signature,
        pre_authentication("application/vnd.crosslogic.usage-manifest.v1+json", PARTS.header),
    )


def test_a_month_of_a_busy_site_is_proven_in_2048_bytes() -> None:
    site, log = Site(), Frontier()
    for number in range(8_639):
        log.append(sha256(b"%d" % number).digest())
    site.state = replace(
        site.state,
        seq=8_639,
        log=log,
        event_seq_hi=259_000_000,
        cumulative=Sums(259_000_000, 312_456_789_012, 112_456_789_012, 98_456_789_123),
        head_sha256=sha256(b"head").hexdigest(),
    )
    site.engines, site.mono_ns = (412_456_789_012, 98_456_789_123), 2_592_000_123_456_789

    def key(seq: int) -> int:  # half of all on one line
        return 0 if seq % 2 else seq % 200

    def digits(of: str) -> str:
        return sha256(of.encode()).hexdigest()[:24]

    kinds = [
        make_record(
            1,
            tenant_id=f"ten_{digits(f't{number}')}",
            tenant=f"customer-{number}",
            environment_id=f"env_{digits(f'e{number}')}",
            key_id=f"key_{digits(f'k{number}')}",
            key=f"key-{number}",
        )
        for number in range(200)
    ]
    records = [
        msgspec.structs.replace(
            kinds[key(seq)],
            seq=259_000_000 + seq,
            record_id=f"rec_{digits(f'r{seq}')}{seq:04x}"[:32],
            request_id=f"req_{digits(f'q{seq}')}abcd",
            settled_at_ns=site.at_ns - seq * 999_983,
        )
        for seq in range(1, 30_001)
    ]
    envelope, lines, _ = site.seal(records)
    for place in (0, 29_999):
        raw = make_proof(envelope, lines, records, records[place].record_id, site.salts)
        assert len(raw) <= 2_048
        assert verify_proof(raw, site.key.public).record == records[place]


@pytest.mark.parametrize(
    "changes",
    [
        {"tenant": 'a "quoted" \\ name', "key": "{brace", "model": "größer/模型"},
        {"request_id": "client's own \x7f id\n", "error_code": "\u2028", "node": ""},
        {"request_id": "deadbeef" * 30, "first_token_ms": None},
        {"tenant_id": "{", "request_id": "0" * 64},
        {"request_id": "aa" * 7, "node": "bb" * 16, "key": "aa" * 7},
    ],
)
def test_strange_names_are_packed_as_they_are(changes: dict[str, object]) -> None:
    site = Site()
    records = [make_record(1, **changes), make_record(2)]  # type: ignore[arg-type]
    envelope, lines, _ = site.seal(records)
    raw = make_proof(envelope, lines, records, records[0].record_id, site.salts)
    parts = unpack(body_of(raw))
    assert parts.record == encode(records[0])
    assert verify_proof(raw, site.key.public).record == records[0]


text = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=30) | st.from_regex(
    "[0-9a-f]{10,90}", fullmatch=True
)


@settings(deadline=None)
@given(st.data())
def test_any_record_is_packed_without_loss(data: st.DataObject) -> None:
    names = ("request_id", "tenant_id", "tenant", "key", "model", "model_digest", "node", "region")
    changes = {name: data.draw(text, name) for name in names}
    record = make_record(1, **changes)  # type: ignore[arg-type]
    site = Site()
    envelope, lines, sealed = site.seal([record])
    raw = make_proof(envelope, lines, [record], record.record_id, site.salts)
    verdict = verify_proof(raw, site.key.public)
    assert (verdict.record, verdict.header) == (record, sealed.header)


def test_who_signed_must_be_known() -> None:
    with pytest.raises(UnknownKey):
        verify_proof(RAW, signing_key(2).public)
    with pytest.raises(UnknownKey):
        verify_proof(RAW)


def other(**changes: object) -> bytes:
    return encode(msgspec.structs.replace(decode(PARTS.record, Record), **changes))


@pytest.mark.parametrize(
    "change",
    [
        lambda parts: replace(parts, record=other(output_tokens=1)),
        lambda parts: replace(parts, salt=bytes(16)),
        lambda parts: replace(parts, line=parts.line.replace(b'"EU"', b'"IN"')),
        lambda parts: replace(parts, header=parts.header.replace(b'"epoch":1', b'"epoch":2')),
        lambda parts: replace(parts, signature=bytes(64)),
        lambda parts: replace(parts, record_path=(bytes(32), *parts.record_path[1:])),
        lambda parts: replace(parts, line_path=(bytes(32), *parts.line_path[1:])),
        lambda parts: replace(parts, record_index=parts.record_index ^ 1),
    ],
)
def test_a_forged_part_changes_what_was_signed(change: Callable[[Parts], Parts]) -> None:
    """The roots are not told but computed, so any change is one of the signed bytes."""
    with pytest.raises((SignatureInvalid, BadProof)):
        verify_proof(forged(change), KEY)


def test_a_record_of_another_site_s_proof_is_not_mixed_in() -> None:
    stranger = Site(key=signing_key(2))
    envelope, lines, _ = stranger.seal(RECORDS)
    raw = make_proof(envelope, lines, RECORDS, WANTED.record_id, stranger.salts)
    foreign = unpack(body_of(raw))
    mixed = with_body(pack(replace(PARTS, header=foreign.header)))
    with pytest.raises(SignatureInvalid):
        verify_proof(mixed, KEY, stranger.key.public)


def signed_by_the_site(schema: str = SEALED.header.schema, **changes: object) -> bytes:
    """What a dishonest site could sign: parts that do not belong together."""
    parts = replace(PARTS, **changes)  # type: ignore[arg-type]
    header = msgspec.structs.replace(
        SEALED.header,
        schema=schema,
        lines_root=parts.lines_root().hex(),
        line_count=parts.line_count,
    )
    payload = encode(header)
    message = pre_authentication("application/vnd.crosslogic.usage-manifest.v1+json", payload)
    return with_body(pack(replace(parts, header=payload, signature=SITE.key.sign(message))))


def line_of(**changes: object) -> bytes:
    return encode(msgspec.structs.replace(decode(PARTS.line, Line), **changes))


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (signed_by_the_site(line=line_of(requests="9")), "another number of requests"),
        (signed_by_the_site(line=line_of(region="IN")), "into another line"),
        (signed_by_the_site(line=line_of(hour="2026-11-22T20:00:00Z")), "into another line"),
        (signed_by_the_site(line=line_of(records_root="0" * 64)), "not in the line"),
        (signed_by_the_site(schema="another"), "of the schema 'another'"),
        (signed_by_the_site(line=b"{}"), "something else"),
        (signed_by_the_site(record=b"{}"), "something else"),
        (signed_by_the_site(record=PARTS.record.replace(b":", b": ", 1)), "something else"),
    ],
)
def test_what_a_site_signed_and_does_not_hold_together_is_refused(raw: bytes, words: str) -> None:
    with pytest.raises(BadProof, match=words):
        verify_proof(raw, KEY)


def test_a_proof_that_is_said_to_be_of_another_is_refused() -> None:
    for name in ("appliance_id", "record_id"):
        outside = msgspec.structs.replace(decode(RAW, Proof), **{name: "another"})
        with pytest.raises(BadProof, match="another record or site"):
            verify_proof(encode(outside), KEY)


def test_what_is_not_in_the_manifest_cannot_be_proven() -> None:
    with pytest.raises(BadProof, match="holds no record"):
        make_proof(ENVELOPE, LINES, RECORDS, "rec_none", SITE.salts)
    strange = [make_record(99, key_id="key_strange")]
    with pytest.raises(BadProof, match="No line"):
        make_proof(ENVELOPE, LINES, strange, strange[0].record_id, SITE.salts)


BODY = body_of(RAW)
LENGTH = int.from_bytes(BODY[:2], "big")


def repacked(text: bytes, pool: bytes = BODY[2 + LENGTH :]) -> bytes:
    press = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zdict=packing.DICTIONARY)
    pressed = press.compress(text) + press.flush()
    return len(pressed).to_bytes(2, "big") + pressed + pool


TEXT = zlib.decompressobj(-15, zdict=packing.DICTIONARY).decompress(BODY[2 : 2 + LENGTH])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0",
        b"\xff\xff",
        BODY[:-1],
        BODY + b"\0",
        BODY[:100],
        b"\0\0" + BODY[2:],
        (LENGTH + 1).to_bytes(2, "big") + BODY[2:],
        (LENGTH - 1).to_bytes(2, "big") + BODY[2:],
        repacked(TEXT + b"x"),
        repacked(TEXT + b"x\n"),
        repacked(TEXT[:-1]),
        repacked(b"\n".join(TEXT.split(b"\n")[:-3]) + b"\n"),
        repacked(b"999999999999" + TEXT[1:]),
        repacked(b"-1" + TEXT[1:]),
        repacked(b"a" + TEXT[1:]),
        repacked(TEXT.replace(b"\x01", b"\x01\x01", 1)),
        repacked(TEXT.replace(b"\x010", b"\x01\x7e", 1)),
        repacked(b"\x02".join(TEXT.split(b"\x010", 1))),
        repacked(b"1\n2\n" + b"\xff" * 20),
        repacked(b"0" * 70_000),
        repacked(b""),
    ],
)
def test_a_damaged_body_is_refused_even_with_a_check_that_fits(body: bytes) -> None:
    assert repacked(TEXT)[2:] == BODY[2:]
    with pytest.raises((BadProof, SignatureInvalid)):
        verify_proof(with_body(body), KEY)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "no proof"),
        (b"{}", "no proof"),
        (b"\xff", "no proof"),
        (RAW[:-1], "no proof"),
        (RAW + b"\n\n", "no proof"),
        (RAW.replace(b'"v":1', b'"v":2'), "version 2"),
        (RAW.replace(b"usage.proof", b"usage.other"), "usage.other"),
        (RAW.replace(b'"check":"', b'"check":"0'), "damaged"),
        (RAW.replace(b'"v":1', b'"v":1,"v":1'), "no proof"),
        (RAW.replace(b'"v":1', b'"v":1,"x_more":1'), "no proof"),
        (RAW.replace(b'"v":1', b'"v": 1'), "no proof"),
        (RAW.replace(b'","check"', b'=","check"'), "damaged"),
        (RAW.replace(b'"proof":"', b'"proof":"\xc3\xa4'), "damaged"),
        (b" " * 20_000, "too large"),
    ],
)
def test_another_outside_is_refused(raw: bytes, words: str) -> None:
    with pytest.raises(BadProof, match=words):
        verify_proof(raw, KEY)


def test_the_outside_says_whose_proof_it_is() -> None:
    outside = read_proof(RAW)
    assert (outside.appliance_id, outside.record_id) == (SITE.appliance_id, WANTED.record_id)


def test_the_length_of_a_path_is_known_from_the_numbers() -> None:
    assert [path_length(0, size) for size in (1, 2, 3, 4, 5, 8, 9)] == [0, 1, 2, 2, 3, 3, 4]
    assert [path_length(index, 5) for index in range(5)] == [3, 3, 3, 3, 1]
    for index, size in ((-1, 2), (2, 2), (0, 0)):
        with pytest.raises(ValueError, match="no such leaf"):
            path_length(index, size)
