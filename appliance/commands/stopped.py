"""The books of a stopped site: read from their files, with the same answers."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Final

from appliance.admin.ledger_usage import LedgerUsage
from appliance.admin.site import audit_verdict, audit_view
from appliance.metering.reader import LedgerReader
from appliance.metering.verification import Progress
from appliance.registry.audit import entries, verify_chain
from appliance.storage.database import connect
from appliance.wire.admin import (
    AuditEntry,
    AuditVerification,
    LedgerRow,
    LedgerVerification,
    UsageColumn,
    UsageRow,
)
from appliance.wire.home import Home

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
