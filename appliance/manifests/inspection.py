"""What a file is, and whether it is what it claims to be: with public keys and nothing else.

One function for every signed thing that leaves a site or a control plane. It finds out the kind by
itself, verifies, and tells what it found; `explain.py` and `meanings.py` have the words for what
that proves.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO, Final

from appliance.manifests.bundle import (
    RECEIPT_FORMAT,
    USAGE_FORMAT,
    UsageReader,
    read_receipts,
)
from appliance.manifests.canonical import decode
from appliance.manifests.checkpoint import (
    ORIGIN,
    open_checkpoint,
    parse_checkpoint,
    verify_checkpoint,
)
from appliance.manifests.container import container_format
from appliance.manifests.document_facts import DOCUMENTS, Facts, tell_rotation
from appliance.manifests.documents import ENROLMENT_TYPE, KEY_ROTATION_TYPE, MANIFEST_TYPE, Header
from appliance.manifests.envelope import ENVELOPE_BYTES_MAX, Envelope, parse, verify
from appliance.manifests.errors import BadCheckpoint, BadDocument, BadManifest, UnknownKey
from appliance.manifests.explain import (
    Explanation,
    manifest_in_words,
    proof_in_words,
    redacted_in_words,
)
from appliance.manifests.keys import KnownKey, KnownSite, open_enrolment, open_rotation
from appliance.manifests.meanings import document_in_words, meaning_of
from appliance.manifests.packing import Parts
from appliance.manifests.proof import PROOF_BYTES_MAX, verify_proof
from appliance.manifests.redaction import HIDDEN_LINE, open_redacted
from appliance.manifests.usage_audit import LogState, UsageSummary, audit_usage
from appliance.manifests.verify import Finding, check_bytes
from appliance.security.errors import BadPublicKey
from appliance.security.signing import PublicKey

_PROOF_BEGINS: Final = b'{"object":"usage.proof"'


@dataclass(frozen=True, slots=True)
class Inspection:
    """Something that was found right."""

    kind: str
    signed_by: tuple[str, ...]  # ids of the given keys that it was verified with
    facts: Facts
    words: Explanation
    evidence: Facts = ()  # of a proof: the bytes and hashes that it consists of


def inspect(file: BinaryIO, keys: Sequence[PublicKey], lines: bytes | None = None) -> Inspection:
    """Read the file from its beginning and verify all of it with the given keys.

    `lines`: the NDJSON lines of a single manifest, where they are at hand. Raises ManifestError,
    which says what is not right.
    """
    match container_format(file):
        case None:
            return _inspect_single(file.read(ENVELOPE_BYTES_MAX + 1), keys, lines)
        case format_name if format_name == USAGE_FORMAT:
            return _of_summary(audit_usage(UsageReader(file), keys), keys)
        case format_name if format_name == RECEIPT_FORMAT:
            return _inspect_receipts(file, keys)
        case format_name:
            raise BadDocument(
                f"The format {format_name!r:.80} is not known here.",
                next_step="It may come from a newer version: use a newer `cic verify`.",
            )


def own_keys(file: BinaryIO) -> list[PublicKey]:
    """The key that a file brings along and anybody could have made; none for most kinds.

    With it one sees whether the file holds together, not who made it. Raises ManifestError.
    """
    if container_format(file) != USAGE_FORMAT:
        return []
    try:
        return [PublicKey.from_pem(UsageReader(file).keys.first_key_pem)]
    except BadPublicKey as error:
        raise BadDocument(f"The key in the bundle is none: {error.message}") from error
    finally:
        file.seek(0)


def _inspect_single(raw: bytes, keys: Sequence[PublicKey], lines: bytes | None) -> Inspection:
    if raw.startswith(_PROOF_BEGINS):
        return _inspect_proof(raw[: PROOF_BYTES_MAX + 2], keys)
    if raw.startswith(ORIGIN.encode()):
        return _inspect_checkpoint(raw, keys)
    if not raw.startswith(b"{"):
        raise BadDocument(
            "This is no proof, no signed document, no bundle and no checkpoint.",
            next_step="Give the file as it was written.",
        )
    raw = raw.removesuffix(b"\n")
    envelope = parse(raw)
    if envelope.payload_type == MANIFEST_TYPE:
        return _inspect_manifest(raw, envelope, keys, lines)
    return _inspect_document(raw, envelope, keys)


def _inspect_proof(raw: bytes, keys: Sequence[PublicKey]) -> Inspection:
    verdict = verify_proof(raw, *keys)
    record, header = verdict.record, verdict.header
    return Inspection(
        "proof",
        (verdict.key_id,),
        (
            ("appliance_id", header.appliance_id),
            ("manifest", f"{header.epoch}-{header.seq}"),
            ("sealed_at", header.wall),
            ("record_id", record.record_id),
            ("request_id", record.request_id),
            ("tenant", record.tenant),
            ("environment", record.environment),
            ("key", record.key),
            ("model", record.model),
            ("status", record.status),
            ("input_tokens", record.input_tokens),
            ("cached_tokens", record.cached_tokens),
            ("output_tokens", record.output_tokens),
            ("measured", record.measured),
            ("hour", verdict.line.hour),
        ),
        proof_in_words(verdict),
        _evidence(verdict.parts),
    )


def _evidence(parts: Parts) -> Facts:
    """Texts as they were hashed; hashes, salt and signature in hex digits."""
    return (
        ("record", parts.record.decode()),
        ("record_salt", parts.salt.hex()),
        ("record_index", parts.record_index),
        ("record_count", parts.record_count),
        ("record_path", [one.hex() for one in parts.record_path]),
        ("line", parts.line.decode()),
        ("line_index", parts.line_index),
        ("line_count", parts.line_count),
        ("line_path", [one.hex() for one in parts.line_path]),
        ("header", parts.header.decode()),
        ("signature", parts.signature.hex()),
    )


def _inspect_manifest(
    raw: bytes, envelope: Envelope, keys: Sequence[PublicKey], lines: bytes | None
) -> Inspection:
    """With the lines all that one manifest can tell, without them the signature alone."""
    signer = verify(envelope, MANIFEST_TYPE, _by_id(keys))
    header = decode(envelope.payload, Header)
    told = _of_header(header)
    if lines is None:
        words = meaning_of("manifest header", f"The header of manifest {_place(header)}.")
        return Inspection("manifest header", (signer,), told, words)
    if HIDDEN_LINE in lines:
        window = open_redacted(raw, lines, _by_id(keys))
        shown = (("lines_shown", len(window.lines)), ("lines_hidden", window.hidden))
        return Inspection("redacted manifest", (signer,), told + shown, redacted_in_words(window))
    site = KnownSite(header.appliance_id, tuple(KnownKey(key) for key in keys))
    checked = check_bytes(raw, lines, site)
    if isinstance(checked, Finding):
        raise BadManifest(
            f"Manifest {_place(header)} is not right: {checked.code}: {checked.detail}.",
            next_step="Ask the site for it again; keep this copy as evidence.",
        )
    return Inspection("manifest", (signer,), told, manifest_in_words(checked))


def _of_header(header: Header) -> Facts:
    totals = header.totals
    return (
        ("appliance_id", header.appliance_id),
        ("manifest", _place(header)),
        ("sealed_at", header.wall),
        ("records", f"{header.event_seq_lo} to {header.event_seq_hi}"),
        ("lines", header.line_count),
        ("requests", int(totals.requests)),
        ("input_tokens", int(totals.input_tokens)),
        ("cached_tokens", int(totals.cached_tokens)),
        ("output_tokens", int(totals.output_tokens)),
        ("continues", header.prev_sha256),
    )


def _place(header: Header) -> str:
    return f"{header.epoch}-{header.seq}"


def _inspect_checkpoint(raw: bytes, keys: Sequence[PublicKey]) -> Inspection:
    try:
        appliance_id = parse_checkpoint(raw.decode()).origin.removeprefix(ORIGIN)
    except UnicodeDecodeError as error:
        raise BadDocument("The checkpoint is no text.") from error
    site = KnownSite(appliance_id, tuple(map(KnownKey, keys)))
    checkpoint = open_checkpoint(raw, site)
    signers = []
    for known in site.keys:
        with suppress(BadCheckpoint):
            verify_checkpoint(checkpoint, appliance_id, known.key)
            signers.append(known.key.key_id)
    return Inspection(
        "checkpoint",
        tuple(signers),
        (
            ("appliance_id", appliance_id),
            ("manifests", checkpoint.size),
            ("log_root", checkpoint.root.hex()),
            ("signatures", len(checkpoint.signatures)),
        ),
        meaning_of("checkpoint", f"The log of {appliance_id} with {checkpoint.size} manifests."),
    )


def _of_summary(summary: UsageSummary, keys: Sequence[PublicKey]) -> Inspection:
    totals = summary.totals
    kind = "usage bundle" if summary.log is LogState.WHOLE else "part of a usage log"
    return Inspection(
        kind,
        tuple(key.key_id for key in keys if key.key_id in summary.key_ids),
        (
            ("appliance_id", summary.appliance_id),
            ("site", summary.site),
            ("first", f"{summary.first[0]}-{summary.first[1]}"),
            ("last", f"{summary.last[0]}-{summary.last[1]}"),
            ("manifests", summary.manifests),
            ("lines", summary.lines),
            ("records", f"{summary.event_seq_lo} to {summary.event_seq_hi}"),
            ("requests", totals.requests),
            ("input_tokens", totals.input_tokens),
            ("cached_tokens", totals.cached_tokens),
            ("output_tokens", totals.output_tokens),
            ("checkpoint", summary.log.value),
            ("epochs_unproven", [str(epoch) for epoch in summary.epochs_unproven]),
        ),
        meaning_of(
            kind,
            f"{summary.manifests} manifests of {summary.appliance_id} with {totals.requests}"
            " requests.",
        ),
    )


def _inspect_receipts(file: BinaryIO, keys: Sequence[PublicKey]) -> Inspection:
    receipts = read_receipts(file)
    told, signers = [], []
    for number, one in enumerate(receipts.documents, 1):
        found = _inspect_document(one.envelope, parse(one.envelope), keys)
        if found.kind.replace(" ", "-") != one.kind:
            raise BadDocument(f"Document {number} is a {found.kind}, filed as {one.kind}.")
        named = dict(found.facts).get("appliance_id", receipts.appliance_id)
        if named != receipts.appliance_id:
            raise BadDocument(f"Document {number} ({found.kind}) is for {named}.")
        told.append(f"{found.kind}: {_line(found.facts)}")
        signers += [signer for signer in found.signed_by if signer not in signers]
    return Inspection(
        "receipt bundle",
        tuple(signers),
        (("appliance_id", receipts.appliance_id), ("documents", told)),
        meaning_of("receipt bundle", f"{len(told)} documents for {receipts.appliance_id}."),
    )


def _inspect_document(raw: bytes, envelope: Envelope, keys: Sequence[PublicKey]) -> Inspection:
    known = DOCUMENTS.get(envelope.payload_type)
    if known is None:
        raise BadDocument(
            f"A document of the type {envelope.payload_type!r:.100} is not known here.",
            next_step="It may come from a newer version: use a newer `cic verify`.",
        )
    kind, cls, tell = known
    if envelope.payload_type == ENROLMENT_TYPE:
        enrolment, shown = open_enrolment(raw)
        if shown not in keys:
            raise UnknownKey(
                f"The site introduces itself with the key {shown.key_id}, which was not given.",
                next_step="Compare that fingerprint with the site's by another way.",
            )
        told, words = tell(enrolment), meaning_of(kind, f"{enrolment.name} introduces itself.")
        return Inspection(kind, (shown.key_id,), told, words)
    if envelope.payload_type == KEY_ROTATION_TYPE:
        return _inspect_rotation(raw, keys)
    signer = verify(envelope, envelope.payload_type, _by_id(keys))
    document = decode(envelope.payload, cls)
    words = document_in_words(kind, document, f"A signed {kind}.")
    return Inspection(kind, (signer,), tell(document), words)


def _inspect_rotation(raw: bytes, keys: Sequence[PublicKey]) -> Inspection:
    """Signed by both keys; knowing the old one is enough."""
    for key in keys:
        with suppress(UnknownKey):
            rotation, _ = open_rotation(raw, key)
            words = meaning_of("key rotation", f"{rotation.appliance_id} changes its key.")
            return Inspection("key rotation", (key.key_id,), tell_rotation(rotation), words)
    raise UnknownKey(
        "The key rotation leads away from a key that was not given.",
        next_step="Give the site's public key of before it.",
    )


def _by_id(keys: Sequence[PublicKey]) -> dict[str, PublicKey]:
    return {key.key_id: key for key in keys}


def _line(facts: Facts) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts if value not in ("", [], False))
