"""Stage 2 of taking manifests in: inside the transaction, on the locked site."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import Connection, delete, select, update

from appliance.controlplane import evidence, sites
from appliance.controlplane.accepted import AcceptedManifest
from appliance.controlplane.bulk import insert_rows
from appliance.controlplane.evidence import Caps, Refused
from appliance.controlplane.examined import Bytes, Examined, unpack
from appliance.controlplane.site_tables import MANIFESTS, ManifestState
from appliance.controlplane.sites import Site
from appliance.manifests.codes import Code
from appliance.manifests.documents import Disposition
from appliance.manifests.keys import KnownSite, Place
from appliance.manifests.moments import MS_NS
from appliance.manifests.reported import check_chain
from appliance.manifests.verify import Checked, Finding

if TYPE_CHECKING:
    from appliance.controlplane.ingest import Poster

WAITING_MAX: Final = 131_072  # manifests of one site behind a gap; more are to be sent again


class Stored(NamedTuple):
    """A manifest that is stored under its number, accepted or waiting."""

    state: ManifestState
    sha256: str
    receipt_id: str


@dataclass(slots=True)
class Chain:
    """What one transaction makes of a site. `save` writes what was gathered."""

    connection: Connection
    site: Site
    poster: "Poster"
    receipt_id: str
    caps: Caps
    via: str
    now_ns: int
    dispositions: list[Disposition] = field(default_factory=list)
    accepted: int = 0
    changed: bool = False  # something is to be remembered beside the receipt
    _rows: dict[Place, dict[str, Any]] = field(default_factory=dict)
    _arrived: list[Place] = field(default_factory=list)  # rows that wait no longer
    _before: dict[str, None] = field(default_factory=dict)  # receipts of what was accepted before
    _only_before: bool = True

    @property
    def receipt_ids(self) -> list[str]:
        """Of the receipts that told of all that was offered; empty when anything is new."""
        return list(self._before) if self._only_before else []

    def offer(self, examined: Examined) -> None:
        """Judge one manifest and take over what it changes."""
        if examined.checked is None:
            assert examined.finding is not None  # one of the two is always there
            self._refuse(examined, examined.finding)
            return
        stored = self._stored(examined.place)
        state = self.site.state
        verdict = check_chain(
            state, examined.checked, self.now_ns // MS_NS, stored.sha256 if stored else None
        )
        if not isinstance(verdict, Finding):
            self.site = replace(self.site, state=verdict.state, last_received_at_ns=self.now_ns)
            self._accept(examined, examined.checked, verdict.holds, stored)
        elif verdict.code is Code.ALREADY_ACCEPTED:
            assert stored is not None  # nothing else is accepted before
            self._before[stored.receipt_id] = None
            self._only_before = self._only_before and stored.receipt_id != self.receipt_id
            self.dispositions.append(examined.disposition(verdict.code, verdict.detail))
        elif verdict.code is Code.GAP:
            self._wait(examined, verdict, stored)
        elif verdict.code is Code.FORK and state.frozen and not _contradicts(examined, stored):
            # Nothing against this one: it comes again when a person has freed the site.
            self._only_before = False
            detail = f"the appliance is frozen: {self.site.frozen_reason}"
            self.dispositions.append(examined.disposition(verdict.code, detail))
        else:
            if verdict.code is Code.FORK and not state.frozen:
                self.site = sites.frozen(self.site, verdict.detail)
                self.changed = True
            self._refuse(examined, verdict)

    def take_waiting(
        self,
        examine: Callable[[Bytes, KnownSite], Examined],
        manifests_max: int,
        lines_max: int,
    ) -> None:
        """Judge what waited behind the gap, in its order, as far as it goes and fits."""
        taken = lines = 0
        while self.site.waiting and taken < manifests_max and lines < lines_max:
            place = (self.site.state.epoch, self.site.state.accepted_through + 1)
            stored = None if self.site.frozen else self._waiting(place)
            if stored is None:
                return
            examined = examine(stored, self.site.known)
            before = self.site.state.accepted_through
            self.offer(examined)
            if self.site.state.accepted_through == before:
                self._forget(place)  # it is refused now, and kept as evidence
                return
            taken, lines = taken + 1, lines + stored.lines.count(b"\n")

    def save(self) -> None:
        """Write rows, postings and the site."""
        for epoch, seq in self._arrived:
            row = self._rows.pop((epoch, seq))
            self.connection.execute(
                update(MANIFESTS)
                .where(*_at(self.site.appliance_id, (epoch, seq)))
                .values(state=row["state"], receipt_id=row["receipt_id"], holds=row["holds"])
            )
        insert_rows(self.connection, MANIFESTS, list(self._rows.values()))
        if self.accepted:
            self.poster.save()
        if self.changed:
            sites.store_state(self.connection, self.site)

    def _accept(
        self,
        examined: Examined,
        checked: Checked,
        holds: tuple[Code, ...],
        stored: Stored | None,
    ) -> None:
        epoch, seq = examined.place
        manifest = AcceptedManifest(
            self.site.appliance_id, epoch, seq, checked.sha256, checked.lines, holds
        )
        every = tuple(dict.fromkeys((*holds, *self.poster.add(manifest))))
        code = every[0] if every else Code.ACCEPTED
        detail = f"billing is held: {', '.join(every)}" if every else ""
        self.dispositions.append(examined.disposition(code, detail))
        if stored is not None:
            self._came_due(examined.place)
        self._remember(examined, checked, ManifestState.ACCEPTED, every)
        self.accepted += 1

    def _wait(self, examined: Examined, finding: Finding, stored: Stored | None) -> None:
        self._only_before = False
        detail = finding.detail
        assert examined.checked is not None  # or it had not come as far
        if stored is None and self.site.waiting < WAITING_MAX:
            self._remember(examined, examined.checked, ManifestState.WAITING, ())
            self.site = replace(self.site, waiting=self.site.waiting + 1)
        elif stored is None:
            detail += "; too many wait already, this one is to be sent again"
        self.dispositions.append(examined.disposition(finding.code, detail))

    def _refuse(self, examined: Examined, finding: Finding) -> None:
        self._only_before = False
        refused = Refused(examined.envelope, examined.lines, finding, examined.place, self.via)
        if evidence.keep(self.connection, self.site.appliance_id, refused, self.caps, self.now_ns):
            self.changed = True
        self.dispositions.append(examined.disposition(finding.code, finding.detail))

    def _remember(
        self, examined: Examined, checked: Checked, state: ManifestState, holds: tuple[Code, ...]
    ) -> None:
        self._only_before = False
        self.changed = True
        epoch, seq = examined.place
        self._rows[examined.place] = {
            "appliance_id": self.site.appliance_id,
            "epoch": epoch,
            "seq": seq,
            "state": state.value,
            "sha256": checked.sha256,
            "receipt_id": self.receipt_id,
            "holds": " ".join(holds),
            "via": self.via,
            "received_at_ns": self.now_ns,
            "line_count": checked.header.line_count,
            "envelope": examined.envelope,
            "lines": examined.packed,
        }

    def _came_due(self, place: Place) -> None:
        """It waited: its row is there, or was gathered in this very transaction."""
        self.site = replace(self.site, waiting=self.site.waiting - 1)
        if place not in self._rows:
            self._arrived.append(place)

    def _forget(self, place: Place) -> None:
        self.site = replace(self.site, waiting=self.site.waiting - 1)
        self.changed = True
        if self._rows.pop(place, None) is None:
            self.connection.execute(delete(MANIFESTS).where(*_at(self.site.appliance_id, place)))

    def _stored(self, place: Place) -> Stored | None:
        row = self._rows.get(place)
        if row is not None:
            return Stored(ManifestState(row["state"]), row["sha256"], row["receipt_id"])
        # Beyond what was ever stored there is nothing to find: the common case asks nothing.
        state = self.site.state
        if place == (state.epoch, state.accepted_through + 1) and not self.site.waiting:
            return None
        found = self.connection.execute(
            select(MANIFESTS.c.state, MANIFESTS.c.sha256, MANIFESTS.c.receipt_id).where(
                *_at(self.site.appliance_id, place)
            )
        ).one_or_none()
        return None if found is None else Stored(ManifestState(found[0]), found[1], found[2])

    def _waiting(self, place: Place) -> Bytes | None:
        row = self._rows.get(place)
        if row is not None:
            return Bytes(row["envelope"], unpack(row["lines"]))
        found = self.connection.execute(
            select(MANIFESTS.c.envelope, MANIFESTS.c.lines).where(
                *_at(self.site.appliance_id, place)
            )
        ).one_or_none()
        return None if found is None else Bytes(bytes(found[0]), unpack(bytes(found[1])))


def _contradicts(examined: Examined, stored: Stored | None) -> bool:
    return stored is not None and stored.sha256 != examined.sha256


def _at(appliance_id: str, place: Place) -> tuple[Any, ...]:
    return (
        MANIFESTS.c.appliance_id == appliance_id,
        MANIFESTS.c.epoch == place[0],
        MANIFESTS.c.seq == place[1],
    )
