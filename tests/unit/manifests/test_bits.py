"""Every single bit of every byte of everything that is signed, turned over: all are refused."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from hashlib import sha256

import msgspec
import pytest

from appliance.manifests.canonical import decode, encode
from appliance.manifests.checkpoint import (
    cosign,
    parse_checkpoint,
    sign_checkpoint,
    verify_checkpoint,
    verify_cosignature,
)
from appliance.manifests.codes import Code
from appliance.manifests.epochs import make_grant
from appliance.manifests.errors import BadDocument, ManifestError
from appliance.manifests.keys import (
    open_enrolment,
    open_entitlement,
    open_grant,
    open_receipt,
    open_revocation,
    open_rotation,
)
from appliance.manifests.proof import Proof, make_proof, verify_proof
from appliance.manifests.redaction import open_redacted, redact
from appliance.manifests.reported import ReportedState
from appliance.manifests.verify import Checked, check_bytes
from tests.fakes import papers
from tests.fakes.sites import START_NS, Site, make_record, signing_key

SITE = Site()
RECORDS = [make_record(seq, START_NS, key_id=f"key_{seq % 2}") for seq in range(1, 6)]
ENVELOPE, LINES, SEALED = SITE.seal(RECORDS)
KNOWN = SITE.known()
VENDOR = papers.CONTROL_PLANE
PROOF = make_proof(ENVELOPE, LINES, RECORDS, RECORDS[2].record_id, SITE.salts)
REDACTED = redact(LINES, {"ten_nobody"})
GRANT = make_grant(ReportedState(), SITE.appliance_id, signing_key(2).public, "", papers.AT)
SIGNED = sign_checkpoint(SITE.appliance_id, SITE.state.log, SITE.key)
NOTE = cosign(SIGNED, "control-plane", VENDOR, papers.AT_S).note().encode()


def manifest(raw: bytes) -> None:
    found = check_bytes(raw, LINES, KNOWN)
    if not isinstance(found, Checked):
        assert found.code in {
            Code.MALFORMED,
            Code.UNSUPPORTED_SCHEMA,
            Code.UNKNOWN_APPLIANCE,
            Code.UNKNOWN_KEY,
            Code.SIG_INVALID,
        }
        raise BadDocument(found.code)


def lines(raw: bytes) -> None:
    found = check_bytes(ENVELOPE, raw, KNOWN)
    if not isinstance(found, Checked):
        assert found.code is Code.LINES_ROOT_MISMATCH
        raise BadDocument(found.code)


def checkpoint(raw: bytes) -> None:
    try:
        note = raw.decode()
    except UnicodeDecodeError as error:
        raise BadDocument("no text") from error
    parsed = parse_checkpoint(note)
    verify_checkpoint(parsed, SITE.appliance_id, SITE.key.public)
    verify_cosignature(parsed, "control-plane", VENDOR.public)


THINGS: dict[str, tuple[bytes, Callable[[bytes], object]]] = {
    "manifest": (ENVELOPE, manifest),
    "lines": (LINES, lines),
    "redacted lines": (
        REDACTED,
        lambda raw: open_redacted(ENVELOPE, raw, {SITE.key.key_id: SITE.key.public}),
    ),
    "proof": (PROOF, lambda raw: verify_proof(raw, SITE.key.public)),
    "receipt": (
        papers.receipt_bytes(SITE, SEALED),
        lambda raw: open_receipt(raw, VENDOR.public),
    ),
    "entitlement": (
        papers.entitlement_bytes(SITE),
        lambda raw: open_entitlement(raw, VENDOR.public),
    ),
    "rotation": (
        papers.rotation_bytes(SITE, 2, 1, 5),
        lambda raw: open_rotation(raw, SITE.key.public),
    ),
    "revocation": (
        papers.revocation_bytes(SITE, 1, 5),
        lambda raw: open_revocation(raw, VENDOR.public),
    ),
    "grant": (papers.grant_bytes(GRANT), lambda raw: open_grant(raw, VENDOR.public)),
    "enrolment": (papers.enrolment_bytes(SITE), open_enrolment),
    "checkpoint": (NOTE, checkpoint),
}


@pytest.mark.parametrize("eighth", range(8))
@pytest.mark.parametrize("thing", THINGS)
def test_a_single_bit_turned_over_is_refused(thing: str, eighth: int) -> None:
    raw, open_it = THINGS[thing]
    open_it(raw)
    taken = []
    begin, end = len(raw) * eighth // 8, len(raw) * (eighth + 1) // 8
    for place in range(begin, end):
        for bit in range(8):
            changed = bytearray(raw)
            changed[place] ^= 1 << bit
            try:
                open_it(bytes(changed))
            except ManifestError:
                continue
            taken.append((place, bit))
    assert taken == []


def test_a_bit_inside_a_proof_changes_nothing_that_it_says_even_with_a_check_that_fits() -> None:
    """The last bits of a compressed stream are padding: they may change and say nothing."""
    outside, told = decode(PROOF, Proof), verify_proof(PROOF, SITE.key.public)
    body = urlsafe_b64decode(outside.proof + "=" * (-len(outside.proof) % 4))
    padding = 2 + int.from_bytes(body[:2], "big") - 1
    for place in range(len(body)):
        changed = bytearray(body)
        changed[place] ^= 1 << place % 8
        text = urlsafe_b64encode(changed).decode().rstrip("=")
        check = sha256(changed).hexdigest()[:16]
        raw = encode(msgspec.structs.replace(outside, proof=text, check=check))
        try:
            assert verify_proof(raw, SITE.key.public) == told
        except ManifestError:
            continue
        assert place == padding


@pytest.mark.parametrize("thing", THINGS)
def test_every_cut_is_refused(thing: str) -> None:
    raw, open_it = THINGS[thing]
    for length in range(len(raw)):
        with pytest.raises(ManifestError):
            open_it(raw[:length])
