"""DSSE: against the specification's own vector, against securesystemslib, and against damage."""

import json
from base64 import b64decode, b64encode

import pytest
from securesystemslib import dsse
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

from appliance.manifests.envelope import (
    Envelope,
    Signature,
    parse,
    pre_authentication,
    sign,
    verify,
)
from appliance.manifests.errors import BadDocument, SignatureInvalid, UnknownKey
from tests.fakes.sites import signing_key

KIND = "application/vnd.example+json"
KEY, OTHER = signing_key(1), signing_key(2)
KEYS = {KEY.key_id: KEY.public}
BOTH = {**KEYS, OTHER.key_id: OTHER.public}


def foreign_key(number: int) -> SSlibKey:
    """The same public key in the words of securesystemslib."""
    key = signing_key(number)
    return SSlibKey(key.key_id, "ed25519", "ed25519", {"public": key.public.raw.hex()})


def test_what_is_signed_is_the_specification_s_example() -> None:
    # DSSE protocol, "Test Vectors": payload type and payload with their lengths in ASCII.
    assert (
        pre_authentication("http://example.com/HelloWorld", b"hello world")
        == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_golden_bytes() -> None:
    assert sign(KIND, b'{"a":1}', KEY).to_bytes() == (
        b'{"payload":"eyJhIjoxfQ==","payloadType":"application/vnd.example+json","signatures":'
        b'[{"keyid":"f2f94449505eb4c9e61ec4a5fb450091f1dc3ebd124d7fb699bf4838a1412d72",'
        b'"sig":"aDXus+DLG0kJbHd1FQzE1QMjUJ6dgzr2BMbTCX9e0xcW'
        b'cixAwl/UEvqN5wc8fDNvmnCABfiLp64eHSGOjLh7DQ=="}]}'
    )


def test_securesystemslib_verifies_what_we_sign() -> None:
    envelope = sign(KIND, b"some bytes \x00\xff", KEY)
    theirs = dsse.Envelope.from_dict(json.loads(envelope.to_bytes()))
    assert theirs.payload == envelope.payload
    assert theirs.pae() == pre_authentication(KIND, envelope.payload)
    assert list(theirs.verify([foreign_key(1)], 1)) == [KEY.key_id]
    theirs.payload += b"!"
    with pytest.raises(VerificationError):
        theirs.verify([foreign_key(1)], 1)


def test_we_verify_what_securesystemslib_writes() -> None:
    payload = b'{"b":2}'
    pae = dsse.Envelope(payload, KIND, {}).pae()
    signature = dsse.Signature(KEY.key_id, KEY.sign(pae).hex())
    theirs = dsse.Envelope(payload, KIND, {KEY.key_id: signature}).to_dict()
    raw = json.dumps(theirs, separators=(",", ":")).encode()
    assert verify(parse(raw), KIND, KEYS) == KEY.key_id


def test_two_signatures_must_both_be_right_and_known() -> None:
    envelope = sign(KIND, b"x", KEY, OTHER)
    assert verify(envelope, KIND, BOTH) == KEY.key_id
    theirs = dsse.Envelope.from_dict(json.loads(envelope.to_bytes()))
    assert len(theirs.verify([foreign_key(1), foreign_key(2)], 2)) == 2
    with pytest.raises(UnknownKey):
        verify(envelope, KIND, KEYS)
    bad = Envelope(b"x", KIND, (envelope.signatures[0], Signature(OTHER.key_id, bytes(64))))
    with pytest.raises(SignatureInvalid):
        verify(bad, KIND, BOTH)


@pytest.mark.parametrize(
    "envelope",
    [
        Envelope(b"x", KIND, ()),
        Envelope(b"x", KIND, (Signature(KEY.key_id, bytes(64)),) * 3),
    ],
)
def test_an_envelope_has_one_or_two_signatures(envelope: Envelope) -> None:
    with pytest.raises(BadDocument, match="signatures"):
        parse(envelope.to_bytes())
    with pytest.raises(BadDocument, match="one signature of each"):
        verify(envelope, KIND, KEYS)


def test_a_signature_for_another_type_or_payload_is_refused() -> None:
    envelope = sign(KIND, b"x", KEY)
    with pytest.raises(BadDocument, match="not"):
        verify(envelope, "application/other", KEYS)
    retyped = Envelope(b"x", "application/other", envelope.signatures)
    with pytest.raises(SignatureInvalid):
        verify(retyped, "application/other", KEYS)
    with pytest.raises(SignatureInvalid):
        verify(Envelope(b"y", KIND, envelope.signatures), KIND, KEYS)
    with pytest.raises(UnknownKey):
        verify(envelope, KIND, {})


def rewritten(**changes: object) -> bytes:
    tree = {**json.loads(sign(KIND, b"any payload?>", KEY).to_bytes()), **changes}
    return json.dumps(tree, separators=(",", ":")).encode()


PAYLOAD = b64encode(
    b"any payload?>"
).decode()  # has padding, and a character that differs in base64url


@pytest.mark.parametrize(
    "raw",
    [
        rewritten(more=1),
        rewritten(x_more=1),
        rewritten(payload=PAYLOAD.rstrip("=")),
        rewritten(payload=PAYLOAD + "="),
        rewritten(payload=PAYLOAD.replace("/", "_").replace("+", "-")[:-2] + "__"),
        rewritten(payload=PAYLOAD + "\n"),
        rewritten(payload=PAYLOAD[:4] + " " + PAYLOAD[4:]),
        rewritten(payload="YW55IHBheWxvYWQ/Pl=="),
        rewritten(payload="ä"),
        rewritten(payload=7),
        rewritten(signatures={}),
        rewritten(signatures=[{"keyid": "a"}]),
        rewritten(signatures=[{"keyid": "a", "sig": "!"}]),
        rewritten(signatures=[{"keyid": "a", "sig": "YQ==", "cert": "x"}]),
        rewritten() + b"\n",
        rewritten().replace(b",", b", "),
        rewritten().replace(b'"payloadType":', b'"payloadType":"a","payloadType":'),
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b"[" * 100_000,
    ],
    ids=lambda raw: str(raw[:70]),
)
def test_another_way_to_write_it_is_refused(raw: bytes) -> None:
    assert parse(rewritten()).payload == b"any payload?>"
    with pytest.raises(BadDocument):
        parse(raw)


def test_base64_with_bits_that_nobody_reads_is_refused() -> None:
    # The last digit of "...Pg==" carries four bits that are thrown away; Python reads any of them.
    good = rewritten(payload="YW55IHBheWxvYWQ/Pg==")
    assert parse(good).payload == b64decode("YW55IHBheWxvYWQ/Ph==")
    with pytest.raises(BadDocument):
        parse(rewritten(payload="YW55IHBheWxvYWQ/Ph=="))


def test_what_is_too_large_is_not_even_read() -> None:
    with pytest.raises(BadDocument, match="more than 10"):
        parse(rewritten(), bytes_max=10)
