"""Taking manifests in: verified, put in their place, posted and answered, in one transaction.

- Stage 1 looks at bytes and signatures and needs no transaction. Stage 2 locks the site's row and
  decides what continues the chain. Manifest, lines, postings, outbox and receipt commit together.
- Many manifests share a transaction, so many as keep it short and the memory bounded.
- Whatever comes twice, by whichever way, at once or years later, changes nothing and is answered
  with the receipts of the first time.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

from sqlalchemy import Connection

from appliance.controlplane import documents, evidence, receipts, sites
from appliance.controlplane.accepted import AcceptedManifest
from appliance.controlplane.chain import Chain
from appliance.controlplane.database import Database
from appliance.controlplane.evidence import Caps, Refused
from appliance.controlplane.examination import Carried, Examination, examine
from appliance.controlplane.examined import Examined
from appliance.controlplane.sites import Site
from appliance.domain.clock import Clock
from appliance.manifests.codes import HELD, Code
from appliance.manifests.documents import Disposition
from appliance.manifests.keys import KnownSite
from appliance.manifests.verify import LIMITS
from appliance.security.signing import SigningKey

log = logging.getLogger(__name__)

WELL: Final = HELD | {Code.ACCEPTED, Code.ALREADY_ACCEPTED}


class Poster(Protocol):
    """Billing, for one transaction."""

    def add(self, accepted: AcceptedManifest) -> tuple[Code, ...]:
        """Post one manifest; the codes that billing adds to its own."""
        ...

    def save(self) -> None:
        """Write what was gathered, before the commit."""
        ...


@dataclass(frozen=True, slots=True)
class BatchSize:
    """How much goes into one transaction, at most; one manifest always does."""

    manifests: int = 500
    lines: int = 20_000
    bytes: int = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of a batch."""

    site: Site | None  # as it stands after it; None when it is not known here
    dispositions: tuple[Disposition, ...]  # of what was offered, in that order, then of what waited
    receipts: tuple[bytes, ...]  # envelopes
    offered: int  # how many of the dispositions are of what was offered

    @property
    def well(self) -> bool:
        """Whether everything that was offered is accepted, now or before."""
        return all(one.code in WELL for one in self.dispositions[: self.offered])


@dataclass(frozen=True, slots=True)
class _Begun:
    """A batch whose stage 1 has begun, with the keys that it is examined with."""

    batch: list[Carried]
    known: KnownSite | None
    examined: Callable[[], list[Examined]]


class KeysChanged(Exception):
    """Between the stages the site got or lost a key: stage 1 is to be done again."""


@dataclass(slots=True)
class Ingest:
    """Made by the composition of the control plane. Safe to use from several threads."""

    database: Database
    key: SigningKey
    clock: Clock
    entropy: Callable[[int], bytes]
    posting: Callable[[Connection, int], Poster]
    name: str = "crosslogic-control-plane"  # under which checkpoints are cosigned
    examination: Examination = field(default_factory=lambda: Examination(LIMITS, 0))
    caps: Caps = field(default_factory=Caps)
    size: BatchSize = field(default_factory=BatchSize)

    def take(
        self, appliance_id: str, manifests: Iterable[Carried], via: str, checkpoint: bytes = b""
    ) -> Iterator[Taken]:
        """Take manifests in, in the order given; one result for each transaction.

        Raises DatabaseUnavailable; what earlier results told stands.
        """
        known = self._known(appliance_id)
        before: _Begun | None = None
        for batch in self._batches(manifests):
            # While others examine this batch, the one before it is written here.
            begun = _Begun(batch, known, self.examination.begin(batch, known))
            if before is not None:
                yield from self._take(appliance_id, before, via, checkpoint)
            before = begun
        if before is not None:
            yield from self._take(appliance_id, before, via, checkpoint)

    def _batches(self, manifests: Iterable[Carried]) -> Iterator[list[Carried]]:
        batch: list[Carried] = []
        lines = size_bytes = 0
        for each in manifests:
            more = each.lines.count(b"\n")
            more_bytes = len(each.envelope) + len(each.lines)
            if batch and (
                len(batch) >= self.size.manifests
                or lines + more > self.size.lines
                or size_bytes + more_bytes > self.size.bytes
            ):
                yield batch
                batch, lines, size_bytes = [], 0, 0
            batch.append(each)
            lines, size_bytes = lines + more, size_bytes + more_bytes
        if batch:
            yield batch

    def _take(
        self, appliance_id: str, begun: _Begun, via: str, checkpoint: bytes
    ) -> Iterator[Taken]:
        taken = self._settled(appliance_id, begun, via, checkpoint)
        yield taken
        # What waited behind the gap is more than fits into that transaction: go on until none is.
        while taken.site is not None and len(taken.dispositions) > taken.offered:
            known = taken.site.known
            taken = self._settled(appliance_id, _Begun([], known, list), via, checkpoint)
            if taken.dispositions:
                yield taken

    def _settled(self, appliance_id: str, begun: _Begun, via: str, checkpoint: bytes) -> Taken:
        known, examined = begun.known, begun.examined()
        while True:
            try:
                taken = self.database.transact(
                    partial(self._settle, appliance_id, known, examined, via, checkpoint)
                )
            except KeysChanged:
                known = self._known(appliance_id)
                examined = self.examination.begin(begun.batch, known)()
                continue
            _log(appliance_id, taken, via)
            return taken

    def _known(self, appliance_id: str) -> KnownSite | None:
        site = self.database.read(lambda connection: sites.read(connection, appliance_id))
        return None if site is None else site.known

    def _settle(
        self,
        appliance_id: str,
        known: KnownSite | None,
        examined: Sequence[Examined],
        via: str,
        checkpoint: bytes,
        connection: Connection,
    ) -> Taken:
        """Stage 2, inside the transaction."""
        now_ns = self.clock.wall_ns()
        site = sites.lock(connection, appliance_id)
        if (None if site is None else site.known) != known:
            raise KeysChanged
        if site is None:
            return self._unknown(connection, appliance_id, examined, via, now_ns)
        chain = Chain(
            connection=connection,
            site=site,
            poster=self.posting(connection, now_ns),
            receipt_id=receipts.new_id(self.entropy),
            caps=self.caps,
            via=via,
            now_ns=now_ns,
        )
        for each in examined:
            chain.offer(each)
        offered = len(chain.dispositions)
        limits = self.examination.limits
        chain.take_waiting(
            lambda stored, keys: examine(stored, keys, limits),
            self.size.manifests,
            self.size.lines,
        )
        chain.save()
        return Taken(
            site=chain.site,
            dispositions=tuple(chain.dispositions),
            receipts=self._answer(connection, chain, checkpoint, now_ns),
            offered=offered,
        )

    def _answer(
        self, connection: Connection, chain: Chain, checkpoint: bytes, now_ns: int
    ) -> tuple[bytes, ...]:
        if not chain.dispositions:
            return ()
        if chain.receipt_ids:  # nothing but what was accepted before: the same receipts again
            return self._again(connection, chain)
        site = chain.site
        signed = receipts.make(
            site,
            chain.dispositions,
            receipt_id=chain.receipt_id,
            lease_until=receipts.lease_of(connection, site, now_ns, renew=chain.accepted > 0),
            checkpoint=receipts.cosigned(checkpoint, site, self.name, self.key, now_ns),
            key=self.key,
            now_ns=now_ns,
            entropy=self.entropy,
        )
        if chain.changed:
            receipts.keep(connection, signed, now_ns)
        return (signed.envelope,)

    def _again(self, connection: Connection, chain: Chain) -> tuple[bytes, ...]:
        appliance_id = chain.site.appliance_id
        found = [
            documents.by_id(connection, appliance_id, receipts.KIND, receipt_id)
            for receipt_id in chain.receipt_ids
        ]
        found.append(documents.newest(connection, appliance_id, receipts.KIND))
        return tuple(dict.fromkeys(raw for raw in found if raw is not None))

    def _unknown(
        self,
        connection: Connection,
        appliance_id: str,
        examined: Sequence[Examined],
        via: str,
        now_ns: int,
    ) -> Taken:
        """A site that was never enrolled: nothing is taken, and its bytes are kept for a person."""
        dispositions = []
        for each in examined:
            assert each.finding is not None  # without keys nothing can be right
            evidence.keep(
                connection,
                evidence.NOBODY,
                Refused(each.envelope, each.lines, each.finding, each.place, via),
                self.caps,
                now_ns,
            )
            dispositions.append(each.disposition(each.finding.code, each.finding.detail))
        stranger = sites.stranger(appliance_id)
        signed = receipts.make(
            stranger,
            dispositions,
            receipt_id=receipts.new_id(self.entropy),
            lease_until="",
            checkpoint="",
            key=self.key,
            now_ns=now_ns,
            entropy=self.entropy,
        )
        return Taken(None, tuple(dispositions), (signed.envelope,), len(dispositions))


def _log(appliance_id: str, taken: Taken, via: str) -> None:
    counts: dict[str, int] = {}
    for one in taken.dispositions:
        counts[one.code] = counts.get(one.code, 0) + 1
    if taken.dispositions:
        level = logging.INFO if taken.well else logging.WARNING
        fields = {"appliance_id": appliance_id, "via": via, "codes": counts}
        log.log(level, "manifests taken in", extra=fields)
