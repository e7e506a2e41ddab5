"""Proofs for a tenant: one request, shown to be in a signed manifest, and nothing of a neighbour.

A proof holds the record with its salt, the way to the root in its line, the line, the way to the
root in the header, the header and its signature. Whoever holds the site's public key can check it
offline. On the wire it is one line of JSON; what lies inside is described in `packing.py`.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import msgspec

from appliance.manifests.canonical import decode, encode
from appliance.manifests.documents import MANIFEST_SCHEMA, MANIFEST_TYPE, Header, Line
from appliance.manifests.envelope import parse, pre_authentication
from appliance.manifests.errors import BadDocument, BadProof, SignatureInvalid, UnknownKey
from appliance.manifests.lines import Salts, key_of, line_key, record_leaf, split_lines
from appliance.manifests.merkle import inclusion_proof, leaf_hash
from appliance.manifests.packing import Parts, pack, unpack
from appliance.security.signing import PublicKey
from appliance.wire.records import Record, canonical

PROOF_OBJECT: Final = "usage.proof"
PROOF_BYTES_MAX: Final = 16_384
_CHECK_DIGITS: Final = 16
_AGAIN: Final = "Ask for the proof again: `GET /v1/usage/{record}/proof` or `cic usage prove`."


class Proof(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A proof as it travels. The order of the fields is the order of its bytes.

    `check`: first 16 hex digits of the SHA-256 of the packed bytes. It tells damage from fraud; it
    protects nothing, the signature inside does.
    """

    object: str
    v: int
    appliance_id: str
    record_id: str
    proof: str  # base64url without padding
    check: str


@dataclass(frozen=True, slots=True)
class ProofVerdict:
    """A proof that was found right. `explain.proof_in_words` says what it means."""

    record: Record
    line: Line
    header: Header
    key_id: str
    parts: Parts  # what was hashed, for whoever follows the hashes with tools of his own


def make_proof(
    envelope_raw: bytes, lines_raw: bytes, records: Iterable[Record], record_id: str, salts: Salts
) -> bytes:
    """The proof of a record, as bytes ready to be given away.

    `records`: those of the record's line in the order of the ledger; others of the window may be
    among them. Read once, and only a hash is kept of each. Raises BadProof when the record is not
    among them, or its line not in the manifest.
    """
    envelope = parse(envelope_raw)
    header = decode(envelope.payload, Header)
    wanted, leaves = _sorted_out(records, record_id, salts)
    key = line_key(wanted)
    raw_lines = split_lines(lines_raw)
    place = next((at for at, raw in enumerate(raw_lines) if key_of(decode(raw, Line)) == key), None)
    if place is None:
        raise BadProof(f"No line of manifest {header.epoch}-{header.seq} holds {record_id}.")
    index = next(at for at, (one, _) in enumerate(leaves[key]) if one == record_id)
    hashes = [leaf for _, leaf in leaves[key]]
    parts = Parts(
        record=canonical(wanted),
        salt=salts.record(record_id),
        record_index=index,
        record_count=len(hashes),
        record_path=tuple(inclusion_proof(hashes, index)),
        line=raw_lines[place],
        line_index=place,
        line_count=len(raw_lines),
        line_path=tuple(inclusion_proof([leaf_hash(raw) for raw in raw_lines], place)),
        header=envelope.payload,
        signature=envelope.signatures[0].signature,
    )
    body = pack(parts)
    return encode(
        Proof(
            object=PROOF_OBJECT,
            v=1,
            appliance_id=header.appliance_id,
            record_id=record_id,
            proof=urlsafe_b64encode(body).decode().rstrip("="),
            check=_check(body),
        )
    )


def verify_proof(raw: bytes, *keys: PublicKey) -> ProofVerdict:
    """What a proof shows, when it is right. `keys`: those of the site.

    Raises BadProof when it is damaged or does not hold together, UnknownKey when another key
    signed the manifest, SignatureInvalid when the manifest was changed.
    """
    proof = read_proof(raw)
    body = _body(proof)
    parts = unpack(body)
    try:
        header = decode(parts.header, Header)
        line = decode(parts.line, Line)
        record = _read_record(parts.record)
    except BadDocument as error:
        raise BadProof(f"The proof holds something else: {error.message}") from error
    signer = next((key for key in keys if key.key_id == header.key_id), None)
    if signer is None:
        raise UnknownKey(
            f"The manifest is signed with the key {header.key_id[:16]}…, which was not given.",
            next_step="Give the site's public key, of the time of the request.",
        )
    if not signer.verify(parts.signature, pre_authentication(MANIFEST_TYPE, parts.header)):
        raise SignatureInvalid(
            "The signature does not belong to the manifest in the proof: something was changed.",
            next_step=_AGAIN,
        )
    if problem := _contradiction(proof, parts, header, line, record):
        raise BadProof(f"The proof does not hold together: {problem}.", next_step=_AGAIN)
    return ProofVerdict(record, line, header, signer.key_id, parts)


def read_proof(raw: bytes) -> Proof:
    """The outside of a proof, unverified: whose it is. Raises BadProof."""
    text = raw[:-1] if raw.endswith(b"\n") else raw
    if len(text) > PROOF_BYTES_MAX:
        raise BadProof(f"This is too large for a proof: {len(text)} bytes.")
    try:
        proof = decode(text, Proof)
    except BadDocument as error:
        raise BadProof(f"This is no proof: {error.message}", next_step=_AGAIN) from error
    if encode(proof) != text:
        raise BadProof("This is no proof: it says more than a proof does.", next_step=_AGAIN)
    if proof.object != PROOF_OBJECT or proof.v != 1:
        raise BadProof(
            f"This is {proof.object!r} of version {proof.v}.",
            next_step="Use a newer `cic verify`.",
        )
    return proof


def _read_record(raw: bytes) -> Record:
    """A record as the ledger wrote it; a client's own request id may hold any character."""
    try:
        record = msgspec.json.decode(raw, type=Record)
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadDocument(f"this is no record: {error}") from error
    if canonical(record) != raw:
        raise BadDocument("the record is not written as records are")
    return record


def _sorted_out(
    records: Iterable[Record], record_id: str, salts: Salts
) -> tuple[Record, dict[tuple[str, ...], list[tuple[str, bytes]]]]:
    """The record, and the hashes of each line's records."""
    wanted: Record | None = None
    leaves: dict[tuple[str, ...], list[tuple[str, bytes]]] = {}
    for record in records:
        if record.record_id == record_id:
            wanted = record
        hashed = (record.record_id, record_leaf(record, salts))
        leaves.setdefault(line_key(record), []).append(hashed)
    if wanted is None:
        raise BadProof(f"The window holds no record {record_id}.")
    return wanted, leaves


def _body(proof: Proof) -> bytes:
    try:
        body = urlsafe_b64decode(proof.proof + "=" * (-len(proof.proof) % 4))
    except ValueError as error:
        raise BadProof("The proof is damaged.", next_step=_AGAIN) from error
    written = urlsafe_b64encode(body).decode().rstrip("=")
    if written != proof.proof or _check(body) != proof.check:
        raise BadProof("The proof is damaged: it is not what its check says.", next_step=_AGAIN)
    return body


def _contradiction(proof: Proof, parts: Parts, header: Header, line: Line, record: Record) -> str:
    """What does not fit, "" when all does. The hashes alone would allow a leaf of another kind."""
    if header.schema != MANIFEST_SCHEMA:
        return f"the manifest is of the schema {header.schema!r}"
    if (proof.appliance_id, proof.record_id) != (header.appliance_id, record.record_id):
        return "it is said to be of another record or site"
    if parts.lines_root().hex() != header.lines_root or parts.line_count != header.line_count:
        return "the line is not in the manifest"
    if parts.records_root().hex() != line.records_root:
        return "the record is not in the line"
    if str(parts.record_count) != line.requests:
        return "the line has another number of requests"
    if line_key(record) != key_of(line):
        return "the record belongs into another line"
    return ""


def _check(body: bytes) -> str:
    return sha256(body).hexdigest()[:_CHECK_DIGITS]
