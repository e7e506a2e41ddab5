"""Verifying the bytes of a manifest: all that they and the site's keys alone can tell.

- Every check has a code; the first that fails, in the order of `codes.py`, is the answer.
- Nothing is read before it is known to be what was signed: the lines are hashed against the
  signed root first and parsed after that. So changed lines are LINES_ROOT_MISMATCH; lines that
  were signed as they are and break the rules are MALFORMED, all the same.
- This is stage 1: it is pure, needs nothing but the site's keys and may run in any process.
  Stage 2, against what the site reported before, is `reported.py`.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from appliance.manifests import envelope as dsse
from appliance.manifests.canonical import Reader, strict_tree
from appliance.manifests.codes import Code
from appliance.manifests.documents import (
    MANIFEST_SCHEMA,
    MANIFEST_TYPE,
    Header,
    Line,
)
from appliance.manifests.envelope import Envelope, pre_authentication
from appliance.manifests.errors import BadDocument
from appliance.manifests.keys import KnownSite
from appliance.manifests.lines import LINES_MAX, QUANTITY_MAX, Sums, key_of, split_lines
from appliance.manifests.merkle import leaf_hash, root
from appliance.manifests.moments import hour_ms, moment_ms

FUTURE_MS_MAX: Final = 5 * 60 * 1_000  # a site's clock may be ahead of ours by this much
_SCHEMA_FAMILY: Final = "application/vnd.crosslogic.usage-manifest."

_headers: Final = Reader(Header)
_lines: Final = Reader(Line)


@dataclass(frozen=True, slots=True)
class Limits:
    """What is too large to be looked at. The sealer stays well below all of them."""

    envelope_bytes: int = 32_768
    lines_bytes: int = 30 * 1024 * 1024
    line_bytes: int = 8_192
    lines: int = LINES_MAX


LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class Finding:
    """Why a manifest is not accepted: a code, and for a person what exactly was found."""

    code: Code
    detail: str


@dataclass(frozen=True, slots=True)
class Read:
    """An envelope that was read and not verified: enough to ask who the site is."""

    header: Header
    envelope: Envelope
    sha256: str  # of the payload
    wall_ms: int
    watermark_ms: int


@dataclass(frozen=True, slots=True)
class Checked:
    """A manifest whose bytes are right: signed by the site, and its lines are those signed."""

    header: Header
    lines: tuple[Line, ...]
    payload: bytes
    sha256: str  # of the payload
    totals: Sums
    cumulative: Sums
    wall_ms: int
    watermark_ms: int
    latest_hour_ms: int  # the latest hour of a line; 0 without lines


def read_envelope(envelope_raw: bytes, limits: Limits = LIMITS) -> Read | Finding:
    """TOO_LARGE, MALFORMED and UNSUPPORTED_SCHEMA of the envelope."""
    if len(envelope_raw) > limits.envelope_bytes:
        return Finding(Code.TOO_LARGE, f"the envelope has {len(envelope_raw)} bytes")
    try:
        envelope = dsse.parse(envelope_raw, limits.envelope_bytes)
    except BadDocument as error:
        return Finding(Code.MALFORMED, error.message)
    if envelope.payload_type != MANIFEST_TYPE:
        family = envelope.payload_type.startswith(_SCHEMA_FAMILY)
        code = Code.UNSUPPORTED_SCHEMA if family else Code.MALFORMED
        return Finding(code, f"the payload is {envelope.payload_type[:100]!r}")
    try:
        header: Header = _headers.read(envelope.payload)
    except BadDocument as error:
        return _no_header(envelope.payload, error)
    if header.schema != MANIFEST_SCHEMA:
        return _unsupported(header.schema)
    if len(envelope.signatures) != 1:
        return Finding(Code.MALFORMED, "a manifest has one signature")
    try:
        wall_ms, watermark_ms = moment_ms(header.wall), moment_ms(header.watermark)
    except BadDocument as error:
        return Finding(Code.MALFORMED, error.message)
    if problem := _senseless(header, wall_ms, watermark_ms):
        return Finding(Code.MALFORMED, problem)
    digest = sha256(envelope.payload).hexdigest()
    return Read(header, envelope, digest, wall_ms, watermark_ms)


def check_read(
    read: Read, lines_raw: bytes, site: KnownSite | None, limits: Limits = LIMITS
) -> Checked | Finding:
    """The rest of stage 1, of an envelope that was read."""
    header = read.header
    if site is None or site.appliance_id != header.appliance_id:
        return Finding(Code.UNKNOWN_APPLIANCE, f"{header.appliance_id!r} is not known here")
    if finding := _signature_finding(read, site):
        return finding
    try:
        raw_lines = split_lines(lines_raw)
    except ValueError as error:
        return Finding(Code.LINES_ROOT_MISMATCH, str(error))
    if len(raw_lines) != header.line_count:
        return Finding(
            Code.LINES_ROOT_MISMATCH, f"{len(raw_lines)} lines came, {header.line_count} are signed"
        )
    if root([leaf_hash(raw) for raw in raw_lines]).hex() != header.lines_root:
        return Finding(Code.LINES_ROOT_MISMATCH, "the lines are not those that were signed")
    try:
        lines = _read_lines(raw_lines, limits)
    except BadDocument as error:
        return Finding(Code.MALFORMED, error.message)
    totals, cumulative = Sums.of(header.totals), Sums.of(header.cumulative_totals)
    if problem := _sums_problem(header, lines, totals, cumulative):
        return Finding(Code.TOTALS_MISMATCH, problem)
    latest = hour_ms(max(line.hour for line in lines)) if lines else 0
    return Checked(
        header=header,
        lines=lines,
        payload=read.envelope.payload,
        sha256=read.sha256,
        totals=totals,
        cumulative=cumulative,
        wall_ms=read.wall_ms,
        watermark_ms=read.watermark_ms,
        latest_hour_ms=latest,
    )


def check_bytes(
    envelope_raw: bytes, lines_raw: bytes, site: KnownSite | None, limits: Limits = LIMITS
) -> Checked | Finding:
    """Stage 1: everything that the bytes and the site's keys alone can tell."""
    if finding := too_large(envelope_raw, lines_raw, limits):
        return finding
    read = read_envelope(envelope_raw, limits)
    return read if isinstance(read, Finding) else check_read(read, lines_raw, site, limits)


def too_large(envelope_raw: bytes, lines_raw: bytes, limits: Limits = LIMITS) -> Finding | None:
    """The first check of all, before anything is parsed."""
    if len(envelope_raw) > limits.envelope_bytes:
        return Finding(Code.TOO_LARGE, f"the envelope has {len(envelope_raw)} bytes")
    if len(lines_raw) > limits.lines_bytes:
        return Finding(Code.TOO_LARGE, f"the lines have {len(lines_raw)} bytes")
    if (count := lines_raw.count(b"\n")) > limits.lines:
        return Finding(Code.TOO_LARGE, f"there are {count} lines")
    return None


def _no_header(payload: bytes, error: BadDocument) -> Finding:
    """A header of a schema to come is no header of this one: say so, if that is what it is."""
    try:
        tree = strict_tree(payload)
    except BadDocument:
        return Finding(Code.MALFORMED, error.message)
    schema = tree.get("schema") if isinstance(tree, dict) else None
    if isinstance(schema, str) and schema != MANIFEST_SCHEMA:
        return _unsupported(schema)
    return Finding(Code.MALFORMED, error.message)


def _unsupported(schema: str) -> Finding:
    return Finding(Code.UNSUPPORTED_SCHEMA, f"the schema is {schema[:100]!r}")


def _senseless(header: Header, wall_ms: int, watermark_ms: int) -> str:
    """What of a header cannot be, whoever signed it; "" when all can."""
    if header.epoch < 1 or header.seq < 1:
        return "epochs and numbers count from 1"
    if header.event_seq_lo < 1 or header.event_seq_hi < header.event_seq_lo - 1:
        return "the window ends before it begins"
    if header.line_count > header.event_seq_hi - header.event_seq_lo + 1:
        return "there are more lines than records"
    if watermark_ms < wall_ms:
        return "the watermark is behind the wall clock"
    if not (header.mono_ns.isascii() and header.mono_ns.isdigit() and len(header.mono_ns) < 20):
        return "mono_ns is no number"
    counts = (header.totals, header.cumulative_totals)
    if not all(Sums.of(one).fits() for one in counts):
        return "a sum is beyond 64 bits"
    engines = header.engines
    if max(int(engines.prompt_tokens), int(engines.generated_tokens)) > QUANTITY_MAX:
        return "an engine's counter is beyond 64 bits"
    return ""


def _signature_finding(read: Read, site: KnownSite) -> Finding | None:
    header, signature = read.header, read.envelope.signatures[0]
    if signature.key_id != header.key_id:
        return Finding(Code.UNKNOWN_KEY, "the signature names another key than the header")
    key = site.signer(header.key_id, (header.epoch, header.seq))
    if isinstance(key, Code):
        return Finding(key, f"key {header.key_id} for {header.epoch}-{header.seq}")
    message = pre_authentication(MANIFEST_TYPE, read.envelope.payload)
    if not key.verify(signature.signature, message):
        return Finding(Code.SIG_INVALID, "the signature does not belong to this header")
    return None


def _read_lines(raw_lines: list[bytes], limits: Limits) -> tuple[Line, ...]:
    """The lines, in their order and each once. Raises BadDocument."""
    lines, before = [], None
    hours: dict[str, int] = {}
    for number, raw in enumerate(raw_lines, 1):
        if len(raw) > limits.line_bytes:
            raise BadDocument(f"Line {number} has {len(raw)} bytes.")
        line: Line = _lines.read(raw)
        if line.hour not in hours:
            hours[line.hour] = hour_ms(line.hour)
        key = key_of(line)
        if before is not None and key <= before:
            raise BadDocument(f"Line {number} is out of order or stands there twice.")
        before = key
        lines.append(line)
    return tuple(lines)


def _sums_problem(header: Header, lines: tuple[Line, ...], totals: Sums, cumulative: Sums) -> str:
    requests = sum(int(line.requests) for line in lines)
    added = Sums(
        requests,
        sum(int(line.input_tokens) for line in lines),
        sum(int(line.cached_tokens) for line in lines),
        sum(int(line.output_tokens) for line in lines),
    )
    if added != totals:
        return f"the lines add up to {added}, the header says {totals}"
    if requests != header.event_seq_hi - header.event_seq_lo + 1:
        return f"{requests} requests are not as many as the window has numbers"
    for line in lines:
        if int(line.requests) == 0:
            return "a line has no requests"
        if int(line.cached_tokens) > int(line.input_tokens):
            return "a line has more cached than input tokens"
    if not _covers(cumulative, totals):
        return "the window is more than all that was ever counted"
    return ""


def _covers(whole: Sums, part: Sums) -> bool:
    return (
        whole.requests >= part.requests
        and whole.input_tokens >= part.input_tokens
        and whole.cached_tokens >= part.cached_tokens
        and whole.output_tokens >= part.output_tokens
    )
