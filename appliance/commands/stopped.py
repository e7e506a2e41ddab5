"""The books of a stopped site: read from their files, with the same answers."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Final

from appliance.admin.ledger_usage import LedgerUsage
from appliance.admin.site import audit_verdict, audit_view
from appliance.commands.context import Refused, cic_line
from appliance.manifests.lines import Salts
from appliance.metering.reader import LedgerReader
from appliance.metering.verification import Progress
from appliance.registry.audit import AuditHeads, entries, verify_chain
from appliance.storage.database import connect
from appliance.sync.head_note import read_note
from appliance.sync.identity import read_salts
from appliance.sync.manifest_verification import ManifestVerifier
from appliance.sync.manifest_view import ManifestView
from appliance.sync.proofs import Proofs
from appliance.wire.admin import (
    AuditEntry,
    AuditVerification,
    LedgerRow,
    LedgerVerification,
    UsageColumn,
    UsageRow,
)
from appliance.wire.command import ExitCode
from appliance.wire.home import Home
from appliance.wire.manifests import (
    Manifest,
    ManifestKey,
    ManifestShown,
    ManifestVerification,
    UsageProof,
)

_PAGE_ROWS: Final = 500


class StoppedLedger:
    """A site that never served has no ledger yet; that is an empty one."""

    def __init__(self, home: Home) -> None:
        self._view = LedgerUsage(LedgerReader(home.ledger_file))
        self._exists = home.ledger_file.exists()

    def usage(
        self, since_ns: int | None, until_ns: int | None, by: Sequence[UsageColumn]
    ) -> list[UsageRow]:
        if not self._exists:
            nothing = UsageRow(requests=0, input_tokens=0, output_tokens=0, cached_tokens=0)
            return [] if by else [nothing]
        return self._view.usage(since_ns, until_ns, by)

    def rows(self, since_seq: int) -> Iterator[LedgerRow]:
        while self._exists and (page := self._view.rows(since_seq, _PAGE_ROWS)):
            yield from page
            since_seq = page[-1].seq

    def verify(self, progress: Progress) -> LedgerVerification:
        if not self._exists:
            return LedgerVerification(
                ok=True, records=0, open=0, head_sha256="00" * 32, problems=[]
            )
        return self._view.verify(progress)


class StoppedManifests:
    """Manifests lie in the ledger, which `cic init` makes."""

    def __init__(self, home: Home) -> None:
        """Raises Refused where an older version made the ledger and the newer never ran."""
        self._home = home
        self._view = ManifestView(home.ledger_file)
        if not home.ledger_file.exists() or not self._view.is_there():
            raise Refused(
                "no_manifests",
                f"The site in {home.state} is of before manifests.",
                next_step=f"Complete it with `{cic_line(home, 'init')}`.",
                exit_code=ExitCode.CONFIGURATION,
            )

    def rows(self, epoch: int, seq: int) -> Iterator[Manifest]:
        while page := self._view.rows(epoch, seq, _PAGE_ROWS):
            yield from page
            epoch, seq = page[-1].epoch, page[-1].seq

    def show(self, ref: str, tenant: str | None) -> ManifestShown:
        return self._view.show(ref, tenant)

    def key(self, ref: str | None) -> ManifestKey:
        return self._view.key(ref)

    def verify(self) -> Iterator[ManifestVerification]:
        verifier = ManifestVerifier(
            LedgerReader(self._home.ledger_file),
            Salts(read_salts(self._home.secrets)),
            AuditHeads(self._home.registry_file),
            read_note(self._home.manifest_note),
            rest=lambda _worked_s: None,
        )
        yield from verifier.run()

    def prove(self, ref: str) -> UsageProof:
        salts = Salts(read_salts(self._home.secrets))
        return Proofs(self._home.ledger_file, salts, rest=lambda _worked_s: None).prove(ref)


class StoppedAudit:
    """The audit lies in the registry, which `cic init` makes."""

    def __init__(self, home: Home) -> None:
        self._file = home.registry_file

    def entries(self, since_seq: int) -> Iterator[AuditEntry]:
        with closing(connect(self._file, read_only=True)) as connection:
            while page := entries(connection, since_seq, _PAGE_ROWS):
                yield from map(audit_view, page)
                since_seq = page[-1].seq

    def verify(self) -> AuditVerification:
        with closing(connect(self._file, read_only=True)) as connection:
            return audit_verdict(verify_chain(connection))
