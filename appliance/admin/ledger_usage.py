"""The ledger's figures in the admin API's words, of a running site and of a stopped one."""

from collections.abc import Sequence
from itertools import islice

from appliance.domain.clock import iso
from appliance.metering.reader import LedgerReader, UsageSum
from appliance.metering.verification import Progress, no_progress
from appliance.wire.admin import LedgerRow, LedgerVerification, UsageColumn, UsageRow
from appliance.wire.records import Record


class LedgerUsage:
    """A UsageSource that reads ledger.db. Every method blocks for the disk."""

    def __init__(self, reader: LedgerReader) -> None:
        self._reader = reader

    def usage(
        self, since_ns: int | None, until_ns: int | None, by: Sequence[UsageColumn]
    ) -> list[UsageRow]:
        return [usage_row(total) for total in self._reader.usage(since_ns, until_ns, by)]

    def rows(self, since_seq: int, count_max: int) -> list[LedgerRow]:
        return [ledger_row(r) for r in islice(self._reader.rows(since_seq), count_max)]

    def verify(self, progress: Progress = no_progress) -> LedgerVerification:
        found = self._reader.verify(progress)
        return LedgerVerification(
            ok=found.ok,
            records=found.records,
            open=found.open,
            head_sha256=found.head_sha256,
            problems=found.problems,
        )

    def records(self) -> int:
        return self._reader.record_count()


def usage_row(total: UsageSum) -> UsageRow:
    return UsageRow(
        requests=total.requests,
        input_tokens=total.input_tokens,
        output_tokens=total.output_tokens,
        cached_tokens=total.cached_tokens,
        tenant=total.tenant,
        environment=total.environment,
        key=total.key,
        model=total.model,
        hour=None if total.hour_ns is None else iso(total.hour_ns),
        tenant_id=total.tenant_id,
        environment_id=total.environment_id,
        key_id=total.key_id,
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
        price_class=record.price_class,
    )
