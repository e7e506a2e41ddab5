"""From the records of a window to its lines: sums that say nothing of a single request.

- A line adds up one tenant, environment, key, model, region, price class and UTC hour; the lines
  stand in the order of those, compared as text, each no more than once.
- The leaf of a record is its salt followed by its canonical bytes; the roots over them, in the
  order of the ledger, are in the lines. The leaf of a line is its bytes without the newline.
- Salts are derived from a secret of the site, so they need not be stored and a proof can be made
  years later. Who does not hold the secret learns nothing from a hash.
"""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from appliance.manifests.canonical import encode
from appliance.manifests.documents import Line, Totals
from appliance.manifests.merkle import Frontier, leaf_hash, root
from appliance.manifests.moments import HOUR_NS, hour
from appliance.wire.records import Record, canonical

SALT_BYTES: Final = 16
LINES_MAX: Final = 32_768  # of one window: with these, a manifest still fits on the wire
RECORDS_MAX: Final = 1_000_000  # of one window
QUANTITY_MAX: Final = 2**63 - 1

# tenant, environment, key, model, digest, region, price class, hour
LineKey = tuple[str, str, str, str, str, str, str, str]


@dataclass(frozen=True, slots=True)
class Sums:
    """Requests and tokens, as numbers."""

    requests: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
        )

    @classmethod
    def of(cls, totals: Totals | Line) -> "Sums":
        return cls(
            int(totals.requests),
            int(totals.input_tokens),
            int(totals.cached_tokens),
            int(totals.output_tokens),
        )

    def totals(self) -> Totals:
        """As they stand in a header."""
        return Totals(
            requests=str(self.requests),
            input_tokens=str(self.input_tokens),
            cached_tokens=str(self.cached_tokens),
            output_tokens=str(self.output_tokens),
        )

    def fits(self) -> bool:
        """Whether every one is a number of 64 bits."""
        return (
            max(self.requests, self.input_tokens, self.cached_tokens, self.output_tokens)
            <= QUANTITY_MAX
        )


class Salts:
    """Derives the salts of a site. `repr` shows nothing of its secret."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        """`secret`: 32 random bytes that never leave the site."""
        self._secret = secret

    def record(self, record_id: str) -> bytes:
        """16 bytes for the leaf of this record."""
        return hmac.digest(self._secret, b"record\0" + record_id.encode(), "sha256")[:SALT_BYTES]

    def line(self, epoch: int, seq: int, index: int, records_root: bytes) -> bytes:
        """16 bytes for one line.

        The root is in it so that two windows with one number (a site that was restored) share no
        salt: what is shown of one must not unlock the other.
        """
        place = b"line\0" + b"".join(number.to_bytes(8, "big") for number in (epoch, seq, index))
        return hmac.digest(self._secret, place + records_root, "sha256")[:SALT_BYTES]


@dataclass(frozen=True, slots=True)
class SealedLines:
    """The lines of a window, ready to be signed."""

    ndjson: bytes  # each line ends with a newline
    leaf_hashes: tuple[bytes, ...]
    root: bytes
    totals: Sums
    latest_ns: int  # the latest settlement; 0 without records

    @property
    def line_count(self) -> int:
        return len(self.leaf_hashes)


class LineBuilder:
    """Adds up records one by one. Keeps sums and a few hashes a line, nothing of a record."""

    __slots__ = ("_groups", "_hours", "_salts", "latest_ns", "record_count")

    def __init__(self, salts: Salts) -> None:
        self._salts = salts
        self._groups: dict[LineKey, _Group] = {}
        self._hours: dict[int, str] = {}
        self.record_count = 0
        self.latest_ns = 0

    def add(self, record: Record) -> bool:
        """Take the next record in the order of the ledger.

        False: the window is full, the record was not taken and belongs into the next one.
        """
        hour_no = record.settled_at_ns // HOUR_NS
        hour_text = self._hours.get(hour_no)
        if hour_text is None:
            hour_text = self._hours[hour_no] = hour(record.settled_at_ns)
        key = line_key(record, hour_text)
        group = self._groups.get(key)
        if self.record_count >= RECORDS_MAX:
            return False
        if group is None:
            if len(self._groups) >= LINES_MAX:
                return False
            group = self._groups[key] = _Group()
        group.add(record, record_leaf(record, self._salts))
        self.record_count += 1
        self.latest_ns = max(self.latest_ns, record.settled_at_ns)
        return True

    def finish(self, epoch: int, seq: int) -> SealedLines:
        """The lines of the window that will be manifest `seq` of `epoch`."""
        pieces, leaves, totals = [], [], Sums()
        for index, (key, group) in enumerate(sorted(self._groups.items())):
            sums = group.sums()
            records_root = group.records.root()
            salt = self._salts.line(epoch, seq, index, records_root)
            raw = encode(_line(key, group, sums, records_root, salt))
            pieces.append(raw + b"\n")
            leaves.append(leaf_hash(raw))
            totals += sums
        return SealedLines(b"".join(pieces), tuple(leaves), root(leaves), totals, self.latest_ns)


def build_lines(records: Iterable[Record], salts: Salts, epoch: int, seq: int) -> SealedLines:
    """The lines over all these records. Raises ValueError when they are too many for a window."""
    builder = LineBuilder(salts)
    for record in records:
        if not builder.add(record):
            raise ValueError("these records are too many for one window")
    return builder.finish(epoch, seq)


def line_key(record: Record, hour_text: str | None = None) -> LineKey:
    """What the line is told apart by that this record belongs to."""
    return (
        record.tenant_id,
        record.environment_id,
        record.key_id,
        record.model,
        record.model_digest,
        record.region,
        record.price_class,
        hour(record.settled_at_ns) if hour_text is None else hour_text,
    )


def key_of(line: Line) -> LineKey:
    """The same, of a line."""
    return (
        line.tenant_id,
        line.environment_id,
        line.key_id,
        line.model,
        line.model_digest,
        line.region,
        line.price_class,
        line.hour,
    )


def record_leaf(record: Record, salts: Salts) -> bytes:
    """The salted hash under which a record stands in the tree of its line."""
    return sha256(b"\x00" + salts.record(record.record_id) + canonical(record)).digest()


def split_lines(ndjson: bytes) -> list[bytes]:
    """The bytes of each line, as they are hashed. Raises ValueError when they end badly."""
    if not ndjson:
        return []
    if not ndjson.endswith(b"\n"):
        raise ValueError("the last line has no end")
    return ndjson[:-1].split(b"\n")


class _Group:
    """The sums of one line while records come in. A plain class: it is changed for every record."""

    __slots__ = ("cached", "environment", "input", "output", "records", "tenant")

    def __init__(self) -> None:
        self.input = self.cached = self.output = 0
        self.tenant = self.environment = ""
        self.records = Frontier()

    def add(self, record: Record, leaf: bytes) -> None:
        self.input += record.input_tokens
        self.cached += record.cached_tokens
        self.output += record.output_tokens
        self.tenant, self.environment = record.tenant, record.environment  # the newest names
        self.records.append(leaf)

    def sums(self) -> Sums:
        return Sums(self.records.size, self.input, self.cached, self.output)


def _line(key: LineKey, group: _Group, sums: Sums, records_root: bytes, salt: bytes) -> Line:
    tenant_id, environment_id, key_id, model, digest, region, price_class, hour_text = key
    return Line(
        tenant_id=tenant_id,
        tenant=group.tenant,
        environment_id=environment_id,
        environment=group.environment,
        key_id=key_id,
        model=model,
        model_digest=digest,
        region=region,
        price_class=price_class,
        hour=hour_text,
        requests=str(sums.requests),
        input_tokens=str(sums.input_tokens),
        cached_tokens=str(sums.cached_tokens),
        output_tokens=str(sums.output_tokens),
        records_root=records_root.hex(),
        salt=salt.hex(),
    )
