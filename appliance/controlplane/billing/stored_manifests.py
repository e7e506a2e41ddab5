"""Whether stored manifests are still those that the sites signed: what a hand in the database did.

- Of each accepted manifest that is read again: its place, its signature, its link to the one
  before, and the root of its lines. The site's id names its first key, so a key that was put into
  the place of another does not go unseen. A revocation ends a key; what was accepted before stands.
- Of each site: whether there are as many as were accepted, up to the head that its receipts name.
"""

import zlib
from typing import Any

from sqlalchemy import Connection, func, select

from appliance.controlplane import sites
from appliance.controlplane.enrolment import appliance_id_of
from appliance.controlplane.examined import unpack
from appliance.controlplane.site_tables import MANIFESTS, ManifestState
from appliance.controlplane.sites import Site
from appliance.manifests.documents import MANIFEST_TYPE
from appliance.manifests.envelope import pre_authentication
from appliance.manifests.lines import split_lines
from appliance.manifests.merkle import leaf_hash, root
from appliance.manifests.verify import Finding, Read, read_envelope


class StoredManifests:
    """Of one report. Rows are shown in the order of site, epoch and number."""

    __slots__ = ("_before", "_connection", "_sites", "problems")

    def __init__(self, connection: Connection) -> None:
        self.problems: list[str] = []
        self._connection = connection
        self._sites: dict[str, Site | None] = {}
        self._before: tuple[str, int, int, str] = ("", 0, 0, "")

    def lines(self, row: Any) -> bytes:
        """The lines of a row of `manifests`; none, and a problem, when they are not as signed."""
        place = f"{row.appliance_id}/{row.epoch}/{row.seq}"
        read = read_envelope(bytes(row.envelope))
        problem = read.detail if isinstance(read, Finding) else self._header_problem(row, read)
        try:
            lines = unpack(bytes(row.lines))
            leaves = [leaf_hash(line) for line in split_lines(lines)]
        except (zlib.error, ValueError):
            lines, leaves = b"", []
            problem = problem or "its lines cannot be read"
        if isinstance(read, Read) and not problem and root(leaves).hex() != read.header.lines_root:
            problem = "its lines are not those that were signed"
        if not problem:
            return lines
        self.problems.append(f"manifest {place} is not what was accepted: {problem}")
        return b""

    def count(self, site: str | None) -> None:
        """Whether all that was accepted of the site, or of every one, is there."""
        columns = MANIFESTS.c
        query = (
            select(columns.appliance_id, columns.epoch, func.count(), func.max(columns.seq))
            .where(columns.state == ManifestState.ACCEPTED.value)
            .group_by(columns.appliance_id, columns.epoch)
        )
        have = {(row[0], row[1]): (row[2], row[3]) for row in self._connection.execute(query)}
        for known in sites.every(self._connection):
            if site not in {None, known.appliance_id}:
                continue
            state = known.state
            accepted = {**dict(state.closed), state.epoch: state.accepted_through}
            for epoch, through in accepted.items():
                stored, last = have.get((known.appliance_id, epoch), (0, 0))
                if (stored, last) != (through, through):
                    self.problems.append(
                        f"of {known.appliance_id}, epoch {epoch}, {through} manifests were"
                        f" accepted, {stored} are stored"
                    )
            self._compare_head(known)

    def _compare_head(self, known: Site) -> None:
        columns, state = MANIFESTS.c, known.state
        head = self._connection.execute(
            select(columns.sha256).where(
                columns.appliance_id == known.appliance_id,
                columns.epoch == state.epoch,
                columns.seq == state.accepted_through,
            )
        ).scalar()
        if head is not None and head != state.head_sha256:
            self.problems.append(f"the newest manifest of {known.appliance_id} is not its head")

    def _header_problem(self, row: Any, read: Read) -> str:
        header, before = read.header, self._before
        self._before = (row.appliance_id, row.epoch, row.seq, read.sha256)
        if (header.appliance_id, header.epoch, header.seq) != tuple(row[:3]):
            return "it was signed for another place"
        if read.sha256 != row.sha256:
            return "its hash is another one"
        follows = before[:3] == (row.appliance_id, row.epoch, row.seq - 1)
        if follows and header.prev_sha256 != before[3]:
            return "it does not continue the one before"
        return "" if self._is_signed(read) else "its signature is not the site's"

    def _is_signed(self, read: Read) -> bool:
        header, signature = read.header, read.envelope.signatures[0]
        if header.appliance_id not in self._sites:
            self._sites[header.appliance_id] = sites.read(self._connection, header.appliance_id)
        site = self._sites[header.appliance_id]
        if site is None or appliance_id_of(site.known.keys[0].key) != header.appliance_id:
            return False
        message = pre_authentication(MANIFEST_TYPE, read.envelope.payload)
        place = (header.epoch, header.seq)
        return any(
            known.key.key_id == signature.key_id == header.key_id
            and known.since <= place
            and (known.until is None or place < known.until)
            and known.key.verify(signature.signature, message)
            for known in site.known.keys
        )
