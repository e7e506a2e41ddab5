"""A window as one tenant may see it: its own lines, and of the others only their hashes.

The signed root covers hashes, so the lines that stay are proven by the same signature. A salt is
in every line: from the hash of a hidden one nothing can be guessed.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from appliance.manifests.canonical import Reader, decode, encode
from appliance.manifests.documents import MANIFEST_TYPE, Document, Hash, Header, Line
from appliance.manifests.envelope import parse, verify
from appliance.manifests.errors import BadDocument
from appliance.manifests.lines import Sums, split_lines
from appliance.manifests.merkle import leaf_hash, root
from appliance.security.signing import PublicKey

HIDDEN_LINE: Final = b'{"redacted":'  # begins what stands for a hidden line


class Redacted(Document, frozen=True):
    """Stands where a line of somebody else stood."""

    redacted: Hash  # of the leaf


@dataclass(frozen=True, slots=True)
class RedactedWindow:
    """A manifest that was verified with some of its lines hidden."""

    header: Header
    lines: tuple[Line, ...]  # those that are shown
    hidden: int
    key_id: str

    @property
    def sums(self) -> Sums:
        """Of the lines that are shown."""
        total = Sums()
        for line in self.lines:
            total += Sums.of(line)
        return total


def redact(lines_raw: bytes, tenant_ids: Collection[str]) -> bytes:
    """The lines with all but these tenants' hidden. What is hidden already stays so.

    Raises ValueError or BadDocument when these are no lines.
    """
    return b"".join(
        (raw if _is_shown(raw, tenant_ids) else _hidden(raw)) + b"\n"
        for raw in split_lines(lines_raw)
    )


def open_redacted(
    envelope_raw: bytes, lines_raw: bytes, keys: Mapping[str, PublicKey]
) -> RedactedWindow:
    """What a redacted window shows. Raises BadDocument, UnknownKey or SignatureInvalid."""
    envelope = parse(envelope_raw)
    key_id = verify(envelope, MANIFEST_TYPE, keys)
    header = decode(envelope.payload, Header)
    try:
        raw_lines = split_lines(lines_raw)
    except ValueError as error:
        raise BadDocument(f"The lines are damaged: {error}.") from error
    hashes = [_leaf(raw) for raw in raw_lines]
    if len(hashes) != header.line_count or root(hashes).hex() != header.lines_root:
        raise BadDocument("The lines are not those that were signed.")
    reader = Reader(Line)
    shown = tuple(reader.read(raw) for raw in raw_lines if not raw.startswith(HIDDEN_LINE))
    return RedactedWindow(header, shown, len(raw_lines) - len(shown), key_id)


def _is_shown(raw: bytes, tenant_ids: Collection[str]) -> bool:
    return not raw.startswith(HIDDEN_LINE) and decode(raw, Line).tenant_id in tenant_ids


def _hidden(raw: bytes) -> bytes:
    return raw if raw.startswith(HIDDEN_LINE) else encode(Redacted(redacted=leaf_hash(raw).hex()))


def _leaf(raw: bytes) -> bytes:
    if not raw.startswith(HIDDEN_LINE):
        return leaf_hash(raw)
    hidden = decode(raw, Redacted)
    if encode(hidden) != raw:
        raise BadDocument("A hidden line says more than its hash.")
    return bytes.fromhex(hidden.redacted)
