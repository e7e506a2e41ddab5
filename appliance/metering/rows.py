"""What openings and settlements look like as rows of ledger.db. Pure, but for one look-up."""

import sqlite3
from dataclasses import dataclass
from typing import Final

import msgspec

from appliance.domain.ids import RecordId, RequestId
from appliance.domain.usage import Measured, Operation, Status, TokenCount
from appliance.metering.errors import BadRecord
from appliance.metering.records import Opening, Settlement
from appliance.metering.schema import RECORD_COLUMNS, SUBJECT_COLUMNS
from appliance.wire.records import VERSION, Record

Subject = tuple[str, ...]  # the values of SUBJECT_COLUMNS

APPLIANCE_STOPPED: Final = "appliance_stopped"
# Rows of one INSERT. Each statement lets go of the interpreter's lock and must win it back, so few
# statements with many rows are worth much; 32 rows stay below the 999 variables of an old SQLite.
ROWS_MAX: Final = 32

_PLACES: Final = "(" + ",".join("?" * len(RECORD_COLUMNS)) + ")"
INSERT: Final = tuple(
    f"INSERT INTO records VALUES {','.join([_PLACES] * rows)}"  # noqa: S608 (only placeholders)
    for rows in range(ROWS_MAX + 1)
)
ADD_TO_SLOT: Final = """
INSERT INTO slots VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (slot, subject_no) DO UPDATE SET
  requests = requests + excluded.requests,
  input_tokens = input_tokens + excluded.input_tokens,
  output_tokens = output_tokens + excluded.output_tokens,
  cached_tokens = cached_tokens + excluded.cached_tokens,
  seq_hi = excluded.seq_hi
"""
SUBJECT_IS: Final = " AND ".join(f"{name} = ?" for name in SUBJECT_COLUMNS)


class OpenLine(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One opening as it stands in `openings.body`, a JSON list of these."""

    record_id: str
    request_id: str
    subject_no: int
    opened_at_ns: int
    prompt_estimate: int


OPEN_LINES: Final = msgspec.json.Decoder(list[OpenLine])


@dataclass(slots=True)
class Slot:
    """What a group adds to one row of `slots`."""

    slot: int
    subject_no: int
    seq_lo: int
    seq_hi: int = 0
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0

    def row(self) -> tuple[int, ...]:
        return (
            self.slot,
            self.subject_no,
            self.requests,
            self.input_tokens,
            self.output_tokens,
            self.cached_tokens,
            self.seq_lo,
            self.seq_hi,
        )


def subject_of(opening: Opening) -> Subject:
    return (
        opening.tenant_id,
        opening.tenant_name,
        opening.environment_id,
        opening.environment_name,
        opening.key_id,
        opening.key_name,
        opening.model_name,
        opening.model_digest,
        opening.deployment_id,
        opening.region,
        opening.operation._value_,
        opening.price_class,
    )


def record_of(seq: int, settlement: Settlement) -> Record:
    opening, tokens = settlement.opening, settlement.tokens
    if not 0 <= tokens.cached <= tokens.input or tokens.output < 0:
        raise BadRecord(
            f"{tokens} are no token counts (record {opening.record_id}).",
            next_step="Report this: it is a defect of the appliance.",
        )
    # `_value_` and not the enum itself: SQLite binds a plain str at once, a subclass by a search.
    return Record(
        VERSION,
        seq,
        opening.record_id,
        opening.request_id,
        opening.tenant_id,
        opening.tenant_name,
        opening.environment_id,
        opening.environment_name,
        opening.key_id,
        opening.key_name,
        opening.model_name,
        opening.model_digest,
        opening.deployment_id,
        opening.region,
        opening.operation._value_,
        opening.price_class,
        settlement.node_name,
        settlement.status._value_,
        settlement.http_status,
        settlement.error_code,
        settlement.measured._value_,
        opening.prompt_estimate,
        tokens.input,
        tokens.output,
        tokens.cached,
        opening.opened_at_ns,
        settlement.settled_at_ns,
        settlement.latency_ms,
        settlement.first_token_ms,
    )


def row_of(record: Record, subject_no: int, sha256: bytes) -> tuple[object, ...]:
    """The values of RECORD_COLUMNS."""
    return (
        record.seq,
        record.v,
        record.record_id,
        record.request_id,
        subject_no,
        record.node,
        record.status,
        record.http_status,
        record.error_code,
        record.measured,
        record.prompt_estimate,
        record.input_tokens,
        record.output_tokens,
        record.cached_tokens,
        record.opened_at_ns,
        record.settled_at_ns,
        record.latency_ms,
        record.first_token_ms,
        sha256,
    )


def aborted(connection: sqlite3.Connection, line: OpenLine, now_ns: int) -> Settlement:
    """What is written for a request that the stop of the appliance cut off."""
    subject = connection.execute(
        f"SELECT {', '.join(SUBJECT_COLUMNS)} FROM subjects WHERE subject_no = ?",  # noqa: S608
        (line.subject_no,),
    ).fetchone()
    opening = Opening(
        record_id=RecordId(line.record_id),
        request_id=RequestId(line.request_id),
        opened_at_ns=line.opened_at_ns,
        tenant_id=subject[0],
        tenant_name=subject[1],
        environment_id=subject[2],
        environment_name=subject[3],
        key_id=subject[4],
        key_name=subject[5],
        model_name=subject[6],
        model_digest=subject[7],
        deployment_id=subject[8],
        region=subject[9],
        operation=Operation(subject[10]),
        price_class=subject[11],
        prompt_estimate=line.prompt_estimate,
    )
    return Settlement(
        opening=opening,
        status=Status.ABORTED,
        tokens=TokenCount(input=line.prompt_estimate),
        measured=Measured.ESTIMATED,
        http_status=499,
        error_code=APPLIANCE_STOPPED,
        node_name="",
        settled_at_ns=now_ns,
        latency_ms=0,
        first_token_ms=None,
    )
