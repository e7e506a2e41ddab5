"""Proofs of single requests, made from the books of a site. Blocks for the disk."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from appliance.manifests import archive
from appliance.manifests.lines import Salts, line_key
from appliance.manifests.proof import make_proof
from appliance.metering.reader import LedgerReader
from appliance.sync.errors import NoSuchRecord, NotSealedYet
from appliance.sync.windows import PIECE_S, give_way
from appliance.wire.manifests import UsageProof
from appliance.wire.records import Record


class Proofs:
    """Reads the records of one line for each proof, in pieces that give way to requests."""

    def __init__(
        self,
        ledger_file: Path,
        salts: Salts,
        *,
        rest: Callable[[float], None] = give_way,
    ) -> None:
        self._reader = LedgerReader(ledger_file)
        self._salts = salts
        self._rest = rest

    def prove(self, ref: str, tenant_id: str | None = None) -> UsageProof:
        """The proof of a record, by its id or its request's.

        With `tenant_id` a record of another tenant is as unknown as one that never was. Raises
        NoSuchRecord, NotSealedYet, ManifestError or StorageError.
        """
        record = self._reader.record(ref)
        if record is None or (tenant_id is not None and record.tenant_id != tenant_id):
            raise NoSuchRecord(
                "There is no record of that id.",
                next_step="Ask with the id of a request that was answered: its `x-request-id`.",
            )
        row = self._reader.query(
            lambda connection: archive.manifest_of_record(connection, record.seq)
        )
        if row is None:
            raise NotSealedYet(
                "The window of that request is not sealed yet.",
                next_step="Ask again after the next seal; `cic manifest seal` makes it now.",
            )
        stored = self._reader.query(
            lambda connection: archive.manifest(connection, row.seq, row.epoch)
        )
        records = self._line_records(record, row.record_seq_lo - 1, row.record_seq_hi)
        raw = make_proof(stored.envelope, stored.lines, records, record.record_id, self._salts)
        return UsageProof(
            record_id=record.record_id,
            request_id=record.request_id,
            epoch=row.epoch,
            seq=row.seq,
            proof=msgspec.Raw(raw),
        )

    def _line_records(self, like: Record, since: int, until: int) -> Iterator[Record]:
        """All records of the window that were added up in the same line."""
        wanted = line_key(like)
        begun_s = time.monotonic()
        for page in self._reader.pages(since, until, like=like):
            yield from (record for record in page if line_key(record) == wanted)
            worked_s = time.monotonic() - begun_s
            if worked_s >= PIECE_S:
                self._rest(worked_s)
                begun_s = time.monotonic()
