"""Whether the sealed manifests are what they claim, and the ledger still what was sealed.

Everything is computed anew from the rows of ledger.db, the site's salts and its public keys: each
signature, the chain, the log, and every line from the records. So a record that was changed, taken
out or put in is found though ledger, hashes and manifests may each look sound. A ledger that was
replaced by an older copy is found by what stands outside of it: the note of the newest manifest.
"""

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from appliance.domain.errors import CrossLogicError
from appliance.manifests import archive
from appliance.manifests.archive import Chain, Kind, ManifestRow, StoredManifest, SyncState
from appliance.manifests.canonical import decode
from appliance.manifests.documents import NO_HASH, EpochGrant, KeyRotation
from appliance.manifests.envelope import parse
from appliance.manifests.keys import KnownKey, KnownSite, Place, granted, rotated
from appliance.manifests.lines import LineBuilder, Salts, Sums
from appliance.manifests.merkle import Frontier
from appliance.manifests.reported import ReportedState, check_chain
from appliance.manifests.verify import Checked, Finding, check_bytes
from appliance.metering.reader import LedgerReader
from appliance.security.signing import PublicKey
from appliance.sync.head_note import Note
from appliance.sync.windows import fill, give_way
from appliance.wire.manifests import ManifestVerification

PROBLEMS_MAX: Final = 100
_PAGE_ROWS: Final = 50  # manifests held in memory at once
_LONG_AGO_MS: Final = 1 << 60  # what a site says of its clock is not held against ours here


@dataclass(frozen=True, slots=True)
class _Claims:
    """What the ledger says of itself."""

    chain: Chain
    state: SyncState
    total: int
    record_seq: int
    rotations: list[bytes]
    grants: dict[int, EpochGrant]  # by epoch
    accepted: ManifestRow | None  # the newest one that a receipt covers


@dataclass(slots=True)
class _Found:
    """What was found so far."""

    total: int
    checked: int = 0
    records: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    reported: ReportedState | None = field(default_factory=ReportedState)
    before: ManifestRow | None = None

    def add(self, problem: str) -> None:
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(problem)

    def told(self) -> ManifestVerification:
        return ManifestVerification(
            done=False,
            ok=not self.problems,
            checked=self.checked,
            total=self.total,
            records=self.records,
        )


class ManifestVerifier:
    """Reads everything once, in memory for a few manifests. Blocks for the disk."""

    def __init__(
        self,
        reader: LedgerReader,
        salts: Salts,
        audit_has: Callable[[str], bool],
        note: Note | None,
        *,
        rest: Callable[[float], None] = give_way,
    ) -> None:
        """`audit_has`: whether the audit of this site ever ended with that hash. `note`: what was
        written outside of the ledger of the newest manifest. `rest` is told how long a piece of
        work took and may sleep.
        """
        self._reader = reader
        self._salts = salts
        self._audit_has = audit_has
        self._note = note
        self._rest = rest

    def run(self) -> Iterator[ManifestVerification]:
        """Progress after each manifest, then the verdict. Raises StorageError."""
        claims = self._reader.query(_claims)
        found = _Found(claims.total)
        site = _site(claims, found)
        place = (0, 0)
        while page := self._page(place):
            for stored in page:
                self._check(stored, site, claims, found)
                found.checked += 1
                yield found.told()
            place = (page[-1].epoch, page[-1].seq)
        _check_end(claims, found, self._note)
        yield ManifestVerification(
            done=True,
            ok=not found.problems,
            checked=found.checked,
            total=found.total,
            records=found.records,
            unsealed=max(0, claims.record_seq - claims.chain.record_seq_hi),
            head_sha256=claims.chain.head_sha256,
            problems=found.problems,
            notes=found.notes[:PROBLEMS_MAX],
        )

    def _page(self, place: tuple[int, int]) -> list[StoredManifest]:
        return self._reader.query(
            lambda connection: archive.manifests_after(connection, *place, _PAGE_ROWS)
        )

    def _check(
        self, stored: StoredManifest, site: KnownSite | None, claims: _Claims, found: _Found
    ) -> None:
        name = f"Manifest {stored.epoch}-{stored.seq}"
        checked = check_bytes(stored.envelope, stored.lines, site)
        if isinstance(checked, Finding):
            found.add(f"{name}: {checked.code}: {checked.detail}.")
            found.reported = None
        else:
            if problem := _row_problem(stored.row, checked, found.before):
                found.add(f"{name}: {problem}.")
            if not self._audit_has(checked.header.audit_head):
                found.add(f"{name}: the audit of this site never had the head that it names.")
            _continue(name, checked, claims, found)
        if problem := self._ledger_problem(stored, found):
            found.add(f"{name}: {problem}")
        found.before = stored.row

    def _ledger_problem(self, stored: StoredManifest, found: _Found) -> str:
        """Compare the lines with those that the ledger's records make; "" when they are equal."""
        row = stored.row
        builder = LineBuilder(self._salts)
        try:
            fill(builder, self._reader, row.record_seq_lo - 1, row.record_seq_hi, self._rest)
        except CrossLogicError as error:
            return error.message
        found.records += builder.record_count
        if builder.finish(row.epoch, row.seq).ndjson == stored.lines:
            return ""
        return (
            f"the ledger's records {row.record_seq_lo} to {row.record_seq_hi} are not those that"
            " were sealed."
        )


def _claims(connection: sqlite3.Connection) -> _Claims:
    state = archive.sync_state(connection)
    grants = [
        decode(parse(stored.envelope).payload, EpochGrant)
        for stored in archive.documents(connection, Kind.EPOCH_GRANT)
    ]
    return _Claims(
        chain=archive.chain_state(connection),
        state=state,
        total=archive.manifest_count(connection),
        record_seq=int(connection.execute("SELECT seq FROM head").fetchone()[0]),
        rotations=[one.envelope for one in archive.documents(connection, Kind.KEY_ROTATION)],
        grants={grant.epoch: grant for grant in grants},
        accepted=archive.manifest_row(connection, state.epoch, state.accepted_through),
    )


def _site(claims: _Claims, found: _Found) -> KnownSite | None:
    """The keys of the site, each allowed from its place on."""
    try:
        first = PublicKey.from_pem(claims.state.first_key_pem)
        site = KnownSite(claims.state.appliance_id, (KnownKey(first),))
        changes: list[tuple[Place, bytes | EpochGrant]] = [
            *((_place(raw), raw) for raw in claims.rotations),
            *(((grant.epoch, 1), grant) for grant in claims.grants.values()),
        ]
        for _, change in sorted(changes, key=lambda each: each[0]):
            site = rotated(site, change) if isinstance(change, bytes) else granted(site, change)
    except CrossLogicError as error:
        found.add(f"The keys of this site do not follow from one another: {error.message}")
        return None
    return site


def _place(raw: bytes) -> Place:
    rotation = decode(parse(raw).payload, KeyRotation)
    return rotation.epoch, rotation.seq


def _row_problem(row: ManifestRow, checked: Checked, before: ManifestRow | None) -> str:
    """Whether what is told of a manifest in lists is what it says itself."""
    header, totals = checked.header, checked.totals
    told = Sums(row.requests, row.input_tokens, row.cached_tokens, row.output_tokens)
    if (row.epoch, row.seq, row.sha256, row.line_count, told) != (
        header.epoch,
        header.seq,
        checked.sha256,
        header.line_count,
        totals,
    ):
        return "the list of manifests says something else than it says itself"
    if row.record_seq_hi - row.record_seq_lo + 1 != totals.requests:
        return "it marks more or fewer records than it counts"
    if before is not None and before.epoch == row.epoch:
        first = before.record_seq_hi + 1
    else:
        first = 1 if row.epoch == 1 else row.record_seq_lo
    if row.record_seq_lo != first:
        return f"it begins with record {row.record_seq_lo}, not {first}"
    return ""


def _continue(name: str, checked: Checked, claims: _Claims, found: _Found) -> None:
    """Whether it continues the one before. After the first that does not the chain is lost."""
    epoch = checked.header.epoch
    if found.reported is not None and epoch != found.reported.epoch:
        grant = claims.grants.get(epoch)
        if grant is None:
            found.add(f"{name}: no grant of the control plane lets epoch {epoch} begin.")
        found.reported = None if grant is None else _granted(grant)
    if found.reported is None:
        return
    verdict = check_chain(found.reported, checked, _LONG_AGO_MS)
    if isinstance(verdict, Finding):
        found.add(f"{name}: {verdict.code}: {verdict.detail}. After it the chain is not followed.")
        found.reported = None
        return
    found.notes += [f"{name}: {hold}" for hold in verdict.holds]
    found.reported = verdict.state


def _granted(grant: EpochGrant) -> ReportedState:
    """What the first manifest of a granted epoch continues."""
    return ReportedState(
        epoch=grant.epoch,
        head_sha256=grant.predecessor_sha256,
        event_seq_hi=grant.event_seq,
        cumulative=Sums.of(grant.cumulative_totals),
        log=Frontier(grant.log_size, [bytes.fromhex(root) for root in grant.log_frontier]),
    )


def _check_end(claims: _Claims, found: _Found, note: Note | None) -> None:
    """Whether the books end where the manifests do, and nobody knows of a later end."""
    chain, state, reported = claims.chain, claims.state, found.reported
    if reported is not None and reported.epoch == chain.epoch:
        told = Sums(chain.requests, chain.input_tokens, chain.cached_tokens, chain.output_tokens)
        if (chain.seq, chain.head_sha256, chain.event_seq_hi, told) != (
            reported.accepted_through,
            reported.head_sha256,
            reported.event_seq_hi,
            reported.cumulative,
        ) or Frontier.from_bytes(chain.frontier) != reported.log:
            found.add("The end of the chain is not the last manifest.")
    if chain.record_seq_hi > claims.record_seq:
        found.add(
            f"The ledger ends with record {claims.record_seq}, but {chain.record_seq_hi} were"
            " sealed."
        )
    # What a closed epoch had beyond its head may have been lost: that is why it was closed.
    if (
        state.epoch == chain.epoch
        and state.accepted_through
        and (claims.accepted is None or claims.accepted.sha256 != state.accepted_sha256)
    ):
        found.add(
            f"The control plane accepted manifest {state.epoch}-{state.accepted_through}, which is"
            " not here."
        )
    if note is not None and _is_older(chain, note):
        found.add(
            f"This is an older copy of the ledger: manifest {note.epoch}-{note.seq} was sealed on"
            f" this site, and the ledger ends with {chain.epoch}-{chain.seq}."
        )


def _is_older(chain: Chain, note: Note) -> bool:
    here, noted = (chain.epoch, chain.seq), (note.epoch, note.seq)
    if chain.head_sha256 == NO_HASH:
        return True  # an empty chain, where one manifest at least was sealed
    return noted > here or (noted == here and note.sha256 != chain.head_sha256)
