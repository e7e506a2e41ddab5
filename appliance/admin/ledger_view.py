"""The ledger as messages: the same for a running site, by the admin API, and a stopped one."""

from collections.abc import Sequence

from appliance.domain.clock import iso
from appliance.metering.reader import LedgerReader, UsageSum
from appliance.metering.records import Record
from appliance.wire.admin import LedgerRow, LedgerVerification, UsageColumn, UsageRow


class LedgerView:
    """A `UsageSource` over the file of a ledger. Blocks for the disk."""

    def __init__(self, reader: LedgerReader) -> None:
        self._reader = reader

    def usage(
        self, since_ns: int | None, until_ns: int | None, by: Sequence[UsageColumn]
    ) -> list[UsageRow]:
        return [usage_row(row) for row in self._reader.usage(since_ns, until_ns, by)]

    def rows(self, since_seq: int, count_max: int | None = None) -> list[LedgerRow]:
        return [ledger_row(record) for record in self._reader.rows(since_seq, count_max)]

    def verify(self) -> LedgerVerification:
        found = self._reader.verify()
        return LedgerVerification(
            ok=found.ok,
            records=found.records,
            open=found.open,
            head_sha256=found.head_sha256,
            problems=found.problems,
        )

    def records(self) -> int:
        return self._reader.record_count()


def usage_row(row: UsageSum) -> UsageRow:
    return UsageRow(
        requests=row.requests,
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        cached_tokens=row.cached_tokens,
        tenant=row.tenant,
        environment=row.environment,
        key=row.key,
        model=row.model,
        hour=None if row.hour_ns is None else iso(row.hour_ns),
    )


def ledger_row(record: Record) -> LedgerRow:
    return LedgerRow(
        seq=record.seq,
        record_id=record.record_id,
        request_id=record.request_id,
        status=record.status,
        tenant=record.tenant,
        environment=record.environment,
        key=record.key,
        model=record.model,
        region=record.region,
        operation=record.operation,
        input_tokens=record.input_tokens,
        output_tokens=record.output_tokens,
        cached_tokens=record.cached_tokens,
        measured=record.measured,
        http_status=record.http_status,
        error_code=record.error_code,
        opened_at=iso(record.opened_at_ns),
        settled_at=iso(record.settled_at_ns),
        latency_ms=record.latency_ms,
        first_token_ms=record.first_token_ms,
    )
