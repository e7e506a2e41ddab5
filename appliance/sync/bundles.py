"""Bundles as files: `.usage` onto a stick, and from there what the control plane answered.

Manifests stay in ledger.db until a receipt covers them, whatever becomes of a bundle; so every
failure here costs a repetition at most.
"""

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from appliance.manifests.bundle import (
    RECEIPT_FORMAT,
    USAGE_BYTES_MAX,
    USAGE_FORMAT,
    CarriedManifest,
    KeyChain,
    UsageReader,
    UsageWriter,
    read_receipts,
)
from appliance.manifests.container import container_format
from appliance.manifests.envelope import ENVELOPE_BYTES_MAX
from appliance.manifests.errors import BadBundle
from appliance.security.signing import PEM_BYTES_MAX, PublicKey
from appliance.sync.carrier import Carrier
from appliance.sync.errors import (
    BundleExists,
    BundleUnreadable,
    CarrierUnreliable,
    DocumentRefused,
    SyncError,
)

# What is told while it takes its time: what is done, how many manifests so far, of how many.
Progress = Callable[[str, int, int], None]
# Looks at a bundle as an auditor would, manifest by manifest; raises when anything is wrong.
Check = Callable[[UsageReader, Callable[[int], None]], None]

_SLUG: Final = re.compile(r"[^A-Za-z0-9]+")
_SLUG_CHARS_MAX: Final = 40


@dataclass(frozen=True, slots=True)
class Facts:
    """What of the site goes into every bundle."""

    appliance_id: str
    site: str
    keys: KeyChain
    checkpoint: bytes


@dataclass(frozen=True, slots=True)
class Part:
    """One file that was written, read again and found whole. Numbers are (epoch, seq)."""

    path: Path
    size_bytes: int
    first: tuple[int, int]
    last: tuple[int, int]
    manifests: int


class UsageExport:
    """One export: planned from the manifests, then written to a carrier part by part."""

    def __init__(
        self,
        facts: Facts,
        manifests: Callable[[], Iterator[CarriedManifest]],
        check: Check,
        progress: Progress,
        *,
        bytes_max: int = USAGE_BYTES_MAX,
    ) -> None:
        """`manifests` is called twice and must give the same each time."""
        self._facts = facts
        self._manifests = manifests
        self._check = check
        self._progress = progress
        self._bytes_max = bytes_max

    def to(self, carrier: Carrier) -> list[Part]:
        """Every part, safe to be carried away. No parts: there was nothing to write.

        Raises SyncError; parts that were finished before stay, and are recognised next time.
        """
        carrier.sweep(f"{_slug(self._facts.site)}-")
        plans = self._plan()
        total = sum(plan.manifests for plan in plans)
        new = [plan for plan in plans if not self._is_there(carrier, plan)]
        carrier.require_space(sum(plan.size_bytes for plan in new))
        done = 0
        manifests = self._manifests()
        for plan in plans:
            if plan in new:
                with carrier.writing(self._name(plan)) as file:
                    for count in plan.write(file, self._facts.checkpoint, manifests):
                        self._progress("Writing", done + count, total)
            else:
                for _ in range(plan.manifests):
                    next(manifests, None)
            done += plan.manifests
        parts: list[Part] = []
        for plan in plans:
            before = sum(part.manifests for part in parts)
            parts.append(self._read_again(carrier, plan, before, total))
        return parts

    def _plan(self) -> list[UsageWriter]:
        plans: list[UsageWriter] = []
        for count, manifest in enumerate(self._manifests(), 1):
            if not plans or not plans[-1].add(manifest):
                plans.append(
                    UsageWriter(
                        self._facts.appliance_id,
                        self._facts.site,
                        self._facts.keys,
                        bytes_max=self._bytes_max,
                    )
                )
                plans[-1].add(manifest)
            self._progress("Reading", count, 0)
        return plans

    def _name(self, plan: UsageWriter) -> str:
        return usage_name(self._facts.site, plan.first, plan.last)

    def _is_there(self, carrier: Carrier, plan: UsageWriter) -> bool:
        """Whether the very bundle lies there; raises BundleExists when another has its name."""
        name = self._name(plan)
        if not carrier.holds(name):
            return False
        # A link, a folder and a torn file are as much in the way as another bundle.
        with suppress(BadBundle, SyncError), carrier.reading(name) as file:
            if UsageReader(file).index == plan.index(self._facts.checkpoint):
                return True
        raise BundleExists(
            f"{carrier.path / name} is there already, and is another bundle or a damaged one.",
            next_step="Move it away, or export into another folder. Nothing was overwritten.",
        )

    def _read_again(self, carrier: Carrier, plan: UsageWriter, before: int, total: int) -> Part:
        name = self._name(plan)
        with carrier.reading(name) as file:
            try:
                reader = UsageReader(file)
                same = reader.index == plan.index(self._facts.checkpoint)
                self._check(reader, lambda n: self._progress("Checking", before + n, total))
            except BadBundle as error:
                carrier.discard(name)
                raise _unreliable(carrier, error.message) from error
            if not same:
                carrier.discard(name)
                raise _unreliable(carrier, "its index is another one.")
            size_bytes = os.fstat(file.fileno()).st_size
        path = carrier.path / name
        return Part(path, size_bytes, plan.first, plan.last, plan.manifests)


def _unreliable(carrier: Carrier, what: str) -> CarrierUnreliable:
    return CarrierUnreliable(
        f"{carrier.path} does not give back what was written: {what}",
        next_step="Do not use this stick; take another. Nothing is lost.",
    )


def usage_name(site: str, first: tuple[int, int], last: tuple[int, int]) -> str:
    """`<site>-<from>-<to>.usage`, fit for any file system; past epoch 1 with the epoch."""
    return f"{_slug(site)}-{_number(first)}-{_number(last)}.usage"


def _slug(site: str) -> str:
    return _SLUG.sub("-", site).strip("-").lower()[:_SLUG_CHARS_MAX].rstrip("-") or "site"


def _number(where: tuple[int, int]) -> str:
    epoch, seq = where
    return str(seq) if epoch == 1 else f"{epoch}.{seq}"


@dataclass(frozen=True, slots=True)
class Brought:
    """What a file from the control plane holds. `appliance_id` is "" for a single document."""

    appliance_id: str
    envelopes: Sequence[bytes]


def read_brought(path: Path) -> Brought:
    """The documents in a `.receipt`, or the one signed document that the file is. Nothing of them
    is believed yet. Raises BundleUnreadable, BadBundle, and DocumentRefused for a `.usage`.
    """
    with opened(path) as file:
        found = container_format(file)
        if found is None:
            return Brought("", (_single(path, file),))
        if found == RECEIPT_FORMAT:
            receipts = read_receipts(file)
            return Brought(receipts.appliance_id, [one.envelope for one in receipts.documents])
    if found == USAGE_FORMAT:
        raise DocumentRefused(
            f"{path} is a bundle of usage: it goes to the control plane, not to a site.",
            next_step=f"Give it to the vendor. `cic verify {path}` checks it here.",
        )
    raise BadBundle(
        f"{path} is of the format {found!r:.80}, which is not known here.",
        next_step="It may come from a newer version: update this one.",
    )


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A plain file to read. Raises BundleUnreadable, also when it fails in the midst of it."""
    try:
        # Without waiting: a pipe of that name would never let go.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123 (opens a descriptor)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise BundleUnreadable(
                    f"{path} is no plain file.", next_step="Name the file itself."
                )
            yield file
    except OSError as error:
        raise BundleUnreadable(
            f"{path} cannot be read: {error.strerror or error}.",
            next_step="Check its name, and that the stick is mounted and sound.",
        ) from error


def read_key(path: Path) -> PublicKey:
    """The public key in a PEM file. Raises BundleUnreadable or BadPublicKey."""
    with opened(path) as file:
        return PublicKey.from_pem(file.read(PEM_BYTES_MAX))


def _single(path: Path, file: BinaryIO) -> bytes:
    raw = file.read(ENVELOPE_BYTES_MAX + 1)
    if not raw.startswith(b"{") or len(raw) > ENVELOPE_BYTES_MAX:
        raise BadBundle(
            f"{path} is no bundle and no signed document.",
            next_step="Bring the file as the control plane wrote it.",
        )
    return raw.removesuffix(b"\n")
