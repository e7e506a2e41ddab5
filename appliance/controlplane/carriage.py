"""Bundles in, bundles out: `.usage` by wire or by hand, and the `.receipt` that answers it.

A bundle is read twice: first whole, so that a damaged one changes nothing, then manifest by
manifest into the ingest. Memory holds one batch, however long the bundle is.
"""

import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from appliance.controlplane import authority, receipts, sites
from appliance.controlplane.errors import BadUpload, ControlPlaneError
from appliance.controlplane.ingest import WELL, Ingest, Taken
from appliance.controlplane.sites import Site
from appliance.manifests.bundle import (
    CarriedDocument,
    UsageIndex,
    UsageReader,
    read_receipts,
    write_receipts,
)
from appliance.manifests.errors import ManifestError

_FILE_MODE: Final = 0o644
_ID: Final = re.compile(r"apl_[0-9a-f]{24}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a bundle is taken in."""

    manifests: int
    of: int


class Delivery:
    """What came of one bundle, gathered transaction by transaction."""

    __slots__ = ("appliance_id", "codes", "index", "offered", "receipts", "refused")

    def __init__(self, index: UsageIndex, refused_max: int) -> None:
        self.index = index
        self.appliance_id = index.appliance_id
        self.codes: Counter[str] = Counter()
        self.offered = 0
        self.receipts: dict[bytes, None] = {}  # envelopes, in their order
        self.refused = Refusals(refused_max)

    @property
    def well(self) -> bool:
        """Whether all that it holds is accepted, now or before."""
        return self.refused.count == 0

    def add(self, taken: Taken) -> None:
        self.codes.update(one.code for one in taken.dispositions)
        self.offered += taken.offered
        self.receipts.update(dict.fromkeys(taken.receipts))
        self.refused.add(taken)


class Refusals:
    """The first so many that were not accepted, and how many there are."""

    __slots__ = ("_most", "count", "first")

    def __init__(self, most: int) -> None:
        self._most = most
        self.count = 0
        self.first: list[tuple[int, int, str, str]] = []  # epoch, seq, code, detail

    def add(self, taken: Taken) -> None:
        for one in taken.dispositions[: taken.offered]:
            if one.code not in WELL:
                self.count += 1
                if len(self.first) < self._most:
                    self.first.append((one.epoch, one.seq, one.code, one.detail))


def take_bundle(
    ingest: Ingest,
    file: BinaryIO,
    via: str,
    tell: Callable[[Progress], None] = lambda _: None,
    *,
    refused_max: int = 1_000,
) -> Delivery:
    """Take in every manifest of a `.usage`, from the file's beginning.

    Raises BadBundle before anything is changed, or DatabaseUnavailable; then what was told stands,
    and the bundle may be taken again.
    """
    index = _whole(file)
    if not _ID.fullmatch(index.appliance_id):
        raise BadUpload("The bundle names no appliance.", next_step="Export it again on the site.")
    file.seek(0)
    reader = UsageReader(file)
    _adopt(ingest, reader)
    delivery = Delivery(index, refused_max)
    for taken in ingest.take(index.appliance_id, reader, via, reader.checkpoint):
        delivery.add(taken)
        tell(Progress(delivery.offered, index.manifests))
    return delivery


def answer(delivery: Delivery) -> bytes:
    """The `.receipt` that answers a bundle."""
    documents = [CarriedDocument(receipts.KIND, raw) for raw in delivery.receipts]
    return write_receipts(delivery.appliance_id, documents)


def everything_for(ingest: Ingest, appliance_id: str) -> bytes:
    """A `.receipt` with all that a site needs to know. The site must be known."""
    found = ingest.database.read(
        lambda connection: [
            document
            for site in (sites.read(connection, appliance_id),)
            if site is not None
            for document in receipts.all_for(connection, site, ingest.key)
        ]
    )
    return write_receipts(appliance_id, found)


def export(ingest: Ingest, site: Site, folder: Path) -> Path:
    """Write the site's `.receipt` into `folder`: whole, on the disk and read again, or not at all.

    Raises ControlPlaneError.
    """
    raw = everything_for(ingest, site.appliance_id)
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in site.name)
    target = folder / f"{name}-{site.appliance_id}.receipt"
    temporary = folder / f".{target.name}.new"
    try:
        _write(temporary, raw)
        if _read_again(temporary) != raw:
            raise ControlPlaneError(
                f"{folder} gives back something else than was written to it.",
                next_step="Use another stick or folder.",
            )
        temporary.rename(target)
        _sync_folder(folder)
        read_receipts(target.read_bytes())
    except (OSError, ManifestError) as error:
        temporary.unlink(missing_ok=True)
        raise ControlPlaneError(
            f"Cannot write {target}: {error}.",
            next_step="Check that the folder is there, may be written and has room.",
        ) from error
    return target


def _whole(file: BinaryIO) -> UsageIndex:
    """The index of a bundle of which every byte was checked."""
    reader = UsageReader(file)
    for _ in reader:
        pass
    return reader.index


def _adopt(ingest: Ingest, reader: UsageReader) -> None:
    rotations = tuple(text.encode() for text in reader.keys.rotations)
    if not rotations:
        return
    appliance_id, now_ns = reader.index.appliance_id, ingest.clock.wall_ns()
    ingest.database.transact(
        lambda connection: authority.adopt_rotations(connection, appliance_id, rotations, now_ns)
    )


def _write(path: Path, raw: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _FILE_MODE)
    with open(descriptor, "wb") as file:  # noqa: PTH123 (opens a descriptor, not a path)
        file.write(raw)
        file.flush()
        os.fsync(descriptor)


def _read_again(path: Path) -> bytes:
    """What the medium gives back, not what memory still holds of it."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return file.read()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
