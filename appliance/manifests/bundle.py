"""What is carried by hand or by wire: `.usage` to the control plane, `.receipt` back.

Containers (`container.py`) over file objects; nothing here touches a disk, and nothing here checks
a signature.

- `.usage`: `keys.json`, `checkpoint`, then for each manifest `m/<epoch>-<seq>.dsse.json` and
  `m/<epoch>-<seq>.ndjson`, epochs and numbers rising.
- `.receipt`: `d/<n>-<kind>.dsse.json`, n from 1, one signed document each.
"""

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import BinaryIO, Final, NamedTuple

import msgspec

from appliance.manifests.container import (
    INDEX_BYTES_MAX,
    SUMS_BYTES_MAX,
    ContainerReader,
    Index,
    Member,
    Sizes,
    Sums,
    span,
    sum_line_bytes,
    write_container,
)
from appliance.manifests.errors import BadBundle, BundleTooLarge

USAGE_FORMAT: Final = "crosslogic.usage-bundle.v1"
RECEIPT_FORMAT: Final = "crosslogic.receipt-bundle.v1"
USAGE_MEDIA_TYPE: Final = "application/vnd.crosslogic.usage-bundle"
RECEIPT_MEDIA_TYPE: Final = "application/vnd.crosslogic.receipt-bundle"

WIRE_BYTES_MAX: Final = 32 * 1024 * 1024  # of a bundle that is posted
USAGE_BYTES_MAX: Final = 2 * 1024**3 - 1024**2  # FAT holds files below 2 GiB everywhere
MANIFESTS_MAX: Final = 131_072  # more than a year of five-minute windows
ENVELOPE_BYTES_MAX: Final = 64 * 1024
LINES_BYTES_MAX: Final = 30 * 1024 * 1024  # with its envelope it still goes by wire
KEYS_BYTES_MAX: Final = 1024 * 1024
CHECKPOINT_BYTES_MAX: Final = 16 * 1024
DOCUMENT_BYTES_MAX: Final = 32 * 1024 * 1024
DOCUMENTS_MAX: Final = 10_000
RECEIPT_BYTES_MAX: Final = 64 * 1024 * 1024  # it is read whole

_NUMBER: Final = "[1-9][0-9]{0,14}"
_KEYS: Final = "keys.json"
_CHECKPOINT: Final = "checkpoint"
_ENVELOPE_NAME: Final = re.compile(rf"m/({_NUMBER})-({_NUMBER})\.dsse\.json")
_LINES_NAME: Final = re.compile(rf"m/{_NUMBER}-{_NUMBER}\.ndjson")
_DOCUMENT_NAME: Final = re.compile(rf"d/({_NUMBER})-([a-z]+(?:-[a-z]+)*)\.dsse\.json")

_USAGE_SIZES: Final[Sizes] = {
    _ENVELOPE_NAME: ENVELOPE_BYTES_MAX,
    _LINES_NAME: LINES_BYTES_MAX,
    re.compile(_KEYS): KEYS_BYTES_MAX,
    re.compile(_CHECKPOINT): CHECKPOINT_BYTES_MAX,
}
_RECEIPT_SIZES: Final[Sizes] = {_DOCUMENT_NAME: DOCUMENT_BYTES_MAX}

# The kinds of documents that a `.receipt` may hold: the middle of each one's payload type.
DOCUMENT_KINDS: Final = frozenset(
    {"receipt", "entitlement", "price-book", "plans", "key-revocation", "epoch-grant"}
)


class CarriedManifest(NamedTuple):
    """One manifest as it travels: the DSSE envelope and its NDJSON lines, byte for byte."""

    epoch: int
    seq: int
    envelope: bytes
    lines: bytes


class CarriedDocument(NamedTuple):
    """One signed document of the control plane; `kind` is one of DOCUMENT_KINDS."""

    kind: str
    envelope: bytes


class KeyChain(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to come from the site's first key to the one it signs with: DSSE envelopes as text."""

    first_key_pem: str
    rotations: tuple[str, ...] = ()
    grants: tuple[str, ...] = ()


class UsageIndex(Index, frozen=True, kw_only=True, forbid_unknown_fields=True):
    site: str  # its name, for people
    epoch_from: int
    seq_from: int
    epoch_to: int
    seq_to: int
    manifests: int


class UsageWriter:
    """Writes a `.usage` in two passes, because what stands first names what follows.

    `add` each manifest in order until it says that no more fits, then `write` the same ones.
    Between the passes about 190 bytes of a manifest are kept.
    """

    def __init__(
        self, appliance_id: str, site: str, keys: KeyChain, *, bytes_max: int = USAGE_BYTES_MAX
    ) -> None:
        self.manifests = 0
        self.first = (0, 0)  # epoch and seq
        self.last = (0, 0)
        self._appliance_id = appliance_id
        self._site = site
        self._keys = Member(_KEYS, msgspec.json.encode(keys))
        self._sums = Sums()
        self._bytes_max = bytes_max
        if len(self._keys.content) > KEYS_BYTES_MAX:
            raise BundleTooLarge("The chain of keys is too long to be carried.")

    @property
    def size_bytes(self) -> int:
        """Of the file, at most."""
        sums_bytes = len(self._sums.content) + sum_line_bytes(_KEYS) + sum_line_bytes(_CHECKPOINT)
        fixed = span(INDEX_BYTES_MAX) + span(len(self._keys.content)) + span(CHECKPOINT_BYTES_MAX)
        return fixed + span(sums_bytes) + self._sums.body_bytes

    def add(self, manifest: CarriedManifest) -> bool:
        """Whether it found room; the first always does, however large. Raises BadBundle."""
        where = (manifest.epoch, manifest.seq)
        if where <= self.last or min(where) < 1:
            raise BadBundle(f"Manifest {where} is out of order, behind {self.last}.")
        members = _members(manifest)
        for member, most in zip(members, (ENVELOPE_BYTES_MAX, LINES_BYTES_MAX), strict=True):
            if len(member.content) > most:
                raise BundleTooLarge(f"{member.name} has more than {most:,} bytes.")
        more = sum(span(len(m.content)) + sum_line_bytes(m.name) for m in members)
        if self.manifests and (
            self.size_bytes + more + span(0) > self._bytes_max or self.manifests >= MANIFESTS_MAX
        ):
            return False
        for member in members:
            self._sums.add(member)
        self.first = self.first if self.manifests else where
        self.last = where
        self.manifests += 1
        return True

    def index(self, checkpoint: bytes) -> UsageIndex:
        """The index that the file has with this checkpoint: it names every byte of the file."""
        return self._index(self._all_sums(checkpoint))

    def write(
        self, file: BinaryIO, checkpoint: bytes, manifests: Iterable[CarriedManifest]
    ) -> Iterator[int]:
        """Write the file; yields how many manifests are written. The caller exhausts it.

        Takes from `manifests` those that were added, and no more. Raises BadBundle when they are
        others.
        """
        if not self.manifests:
            raise BadBundle("A bundle without manifests is none.")
        if len(checkpoint) > CHECKPOINT_BYTES_MAX:
            raise BundleTooLarge("The checkpoint is too large.")
        front = self._front(checkpoint)
        sums = self._all_sums(checkpoint)
        index = self._index(sums)
        carried = islice(manifests, self.manifests)
        every = chain(front, chain.from_iterable(map(_members, carried)))
        for number, _ in enumerate(write_container(file, index, sums, every), 1):
            if number > len(front) and number % 2 == 0:
                yield (number - len(front)) // 2

    def _front(self, checkpoint: bytes) -> tuple[Member, ...]:
        return (self._keys, Member(_CHECKPOINT, checkpoint))

    def _all_sums(self, checkpoint: bytes) -> Sums:
        sums = Sums()
        for member in self._front(checkpoint):
            sums.add(member)
        sums.extend(self._sums)
        return sums

    def _index(self, sums: Sums) -> UsageIndex:
        return UsageIndex(
            format=USAGE_FORMAT,
            appliance_id=self._appliance_id,
            **sums.told(),
            site=self._site,
            epoch_from=self.first[0],
            seq_from=self.first[1],
            epoch_to=self.last[0],
            seq_to=self.last[1],
            manifests=self.manifests,
        ).checked()


def write_usage(
    appliance_id: str,
    site: str,
    keys: KeyChain,
    checkpoint: bytes,
    manifests: Sequence[CarriedManifest],
    *,
    bytes_max: int = WIRE_BYTES_MAX,
) -> tuple[bytes, int]:
    """A `.usage` in memory with as many of the manifests as fit, and how many those are."""
    writer = UsageWriter(appliance_id, site, keys, bytes_max=bytes_max)
    for manifest in manifests:
        if not writer.add(manifest):
            break
    file = io.BytesIO()
    for _ in writer.write(file, checkpoint, manifests):
        pass
    return file.getvalue(), writer.manifests


class UsageReader:
    """Reads a `.usage` from its beginning, once: index, keys and checkpoint when it is made, then
    the manifests one after the other. Every failure is a BadBundle, also in the midst of it: what
    must not be half applied waits for the end, or reads the file twice.
    """

    def __init__(self, file: BinaryIO) -> None:
        reader = ContainerReader(file, UsageIndex, USAGE_FORMAT, _USAGE_SIZES)
        self.index = reader.index
        self._members = reader.members()
        try:
            self.keys = msgspec.json.decode(self._named(_KEYS), type=KeyChain)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadBundle(f"{_KEYS} is not understood: {error}.") from error
        self.checkpoint = self._named(_CHECKPOINT)

    def __iter__(self) -> Iterator[CarriedManifest]:
        count, last = 0, (0, 0)
        for member in self._members:
            match = _ENVELOPE_NAME.fullmatch(member.name)
            if match is None:
                raise BadBundle(f"{member.name} is not where it should be.")
            where = (int(match[1]), int(match[2]))
            if where <= last:
                raise BadBundle(f"{member.name} is out of order.")
            first = (self.index.epoch_from, self.index.seq_from)
            if (count == 0 and where != first) or count == MANIFESTS_MAX:
                raise BadBundle("The index does not tell what the bundle holds.")
            lines = self._named(f"m/{where[0]}-{where[1]}.ndjson")
            count, last = count + 1, where
            yield CarriedManifest(*where, member.content, lines)
        if (count, *last) != (self.index.manifests, self.index.epoch_to, self.index.seq_to):
            raise BadBundle("The index does not tell what the bundle holds.")

    def _named(self, name: str) -> bytes:
        member = next(self._members, None)
        if member is None or member.name != name:
            raise BadBundle(f"{name} is not where it should be.")
        return member.content


def write_receipts(appliance_id: str, documents: Sequence[CarriedDocument]) -> bytes:
    """A `.receipt` for one appliance. Raises BadBundle for what no reader would take."""
    sums, members = Sums(), []
    for number, (kind, envelope) in enumerate(documents, 1):
        if kind not in DOCUMENT_KINDS:
            raise BadBundle(f"{kind!r} is no kind of document that a receipt bundle holds.")
        if len(envelope) > DOCUMENT_BYTES_MAX or number > DOCUMENTS_MAX:
            raise BundleTooLarge(f"Document {number} ({kind}) is too large, or one too many.")
        members.append(Member(f"d/{number}-{kind}.dsse.json", envelope))
        sums.add(members[-1])
    if sums.body_bytes > RECEIPT_BYTES_MAX or len(sums.content) > SUMS_BYTES_MAX:
        raise BundleTooLarge("The documents are too large for one receipt bundle.")
    index = Index(format=RECEIPT_FORMAT, appliance_id=appliance_id, **sums.told())
    file = io.BytesIO()
    for _ in write_container(file, index.checked(), sums, members):
        pass
    return file.getvalue()


class Receipts(NamedTuple):
    appliance_id: str
    documents: tuple[CarriedDocument, ...]


def read_receipts(raw: bytes | BinaryIO) -> Receipts:
    """Every document of a `.receipt`, once the whole file is checked. Raises BadBundle."""
    file = io.BytesIO(raw) if isinstance(raw, bytes) else raw
    reader = ContainerReader(file, Index, RECEIPT_FORMAT, _RECEIPT_SIZES)
    if reader.index.members > DOCUMENTS_MAX or reader.index.body_bytes > RECEIPT_BYTES_MAX:
        raise BundleTooLarge("The receipt bundle is larger than any that is written.")
    documents: list[CarriedDocument] = []
    taken_bytes = 0
    for number, member in enumerate(reader.members(), 1):
        match = _DOCUMENT_NAME.fullmatch(member.name)
        if match is None or int(match[1]) != number or match[2] not in DOCUMENT_KINDS:
            raise BadBundle(f"{member.name} is not where it should be.")
        taken_bytes += span(len(member.content))
        if taken_bytes > RECEIPT_BYTES_MAX:
            raise BundleTooLarge("The receipt bundle is larger than any that is written.")
        documents.append(CarriedDocument(match[2], member.content))
    return Receipts(reader.index.appliance_id, tuple(documents))


def _members(manifest: CarriedManifest) -> tuple[Member, Member]:
    stem = f"m/{manifest.epoch}-{manifest.seq}"
    return (
        Member(f"{stem}.dsse.json", manifest.envelope),
        Member(f"{stem}.ndjson", manifest.lines),
    )
