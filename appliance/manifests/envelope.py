"""DSSE envelopes: how every document travels with its signatures.

Source: the DSSE protocol and envelope, v1.0 (secure-systems-lab). What is signed is the
pre-authentication encoding of the payload's type and the payload's bytes. Read strictly: exactly
the members of the specification in one order, standard base64 with its padding, no white space.
"""

from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from appliance.manifests.canonical import encode
from appliance.manifests.errors import BadDocument, SignatureInvalid, UnknownKey
from appliance.security.signing import PublicKey, SigningKey

ENVELOPE_BYTES_MAX: Final = 32 * 1024 * 1024
SIGNATURES_MAX: Final = 2  # a key rotation carries those of both keys


class _Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keyid: str
    sig: str


class _Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    payload: str
    payloadType: str  # noqa: N815 (the specification's name)
    signatures: tuple[_Signature, ...]


_decoder = msgspec.json.Decoder(_Envelope)


@dataclass(frozen=True, slots=True)
class Signature:
    key_id: str
    signature: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    payload: bytes
    payload_type: str
    signatures: tuple[Signature, ...]

    def to_bytes(self) -> bytes:
        """The one way this envelope is written."""
        return encode(
            _Envelope(
                b64encode(self.payload).decode(),
                self.payload_type,
                tuple(
                    _Signature(one.key_id, b64encode(one.signature).decode())
                    for one in self.signatures
                ),
            )
        )


def pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """The bytes that are signed: PAE of the DSSE protocol."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(payload_type: str, payload: bytes, *keys: SigningKey) -> Envelope:
    """The payload signed with each key, in that order."""
    message = pre_authentication(payload_type, payload)
    return Envelope(
        payload, payload_type, tuple(Signature(key.key_id, key.sign(message)) for key in keys)
    )


def parse(raw: bytes, bytes_max: int = ENVELOPE_BYTES_MAX) -> Envelope:
    """The envelope that these bytes are, unverified. Raises BadDocument."""
    if len(raw) > bytes_max:
        raise BadDocument(f"The envelope has {len(raw)} bytes, more than {bytes_max}.")
    try:
        wire = _decoder.decode(raw)
        envelope = Envelope(
            b64decode(wire.payload, validate=True),
            wire.payloadType,
            tuple(
                Signature(one.keyid, b64decode(one.sig, validate=True)) for one in wire.signatures
            ),
        )
        written = envelope.to_bytes()
    except (msgspec.MsgspecError, NotBase64, ValueError) as error:
        raise BadDocument(f"This is no signed envelope: {error}.") from error
    if written != raw:
        raise BadDocument("The envelope is not written in the one way that is taken.")
    if not 1 <= len(envelope.signatures) <= SIGNATURES_MAX:
        raise BadDocument(f"The envelope has {len(envelope.signatures)} signatures.")
    return envelope


def verify(envelope: Envelope, payload_type: str, keys: Mapping[str, PublicKey]) -> str:
    """The id of the key that signed (the first, where there are two).

    Every signature must be of a known key and be right, so that no byte is there that proves
    nothing. Raises BadDocument for another type of payload, UnknownKey and SignatureInvalid.
    """
    if envelope.payload_type != payload_type:
        raise BadDocument(f"This is {envelope.payload_type!r}, not {payload_type!r}.")
    signers = [one.key_id for one in envelope.signatures]
    if not signers or len(set(signers)) != len(signers):
        raise BadDocument("The envelope must have one signature of each signer.")
    message = pre_authentication(payload_type, envelope.payload)
    for one in envelope.signatures:
        if one.key_id not in keys:
            raise UnknownKey(
                f"This is signed with the key {one.key_id[:16]}…, which is not known here.",
                next_step="Give the public key of who is said to have signed it.",
            )
        if not keys[one.key_id].verify(one.signature, message):
            raise SignatureInvalid(
                "The signature does not belong to this document: it was changed after signing.",
                next_step="Ask for the document again; keep this copy as evidence.",
            )
    return signers[0]
