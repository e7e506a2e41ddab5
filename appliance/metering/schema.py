"""The tables of ledger.db.

- `records` is append-only. Its names and ids live in `subjects`, one row for each combination ever
  seen, so that a record is small and sums are quick; a record's hash covers them all the same.
  Its rules are checked by the writer and by `verify`, not by CHECK, which costs 1.6 µs a row.
- `slots` sums the records of each subject over five minutes of settlement time, and says between
  which numbers they lie: totals are read from few rows, and exact times by looking at few records.
- `openings` holds what was opened by one commit and has not wholly settled: a row for each commit,
  not for each request. An opening whose record exists is settled, whatever stands here.
- `head` is one row: the last record's number and hash, and the sums over all records.
- `manifests` and `manifest_lines` are what was sealed, `chain` is one row: where the next window
  begins. A record is sealed by lying in the run of numbers of a manifest.
- `documents` are signed papers that came or were made; `sync_state` is one row of JSON: what the
  site knows of its control plane. `appliance.manifests.archive` alone reads and writes these.
- `engine_readings` and `engine_totals` add up what the engines' own counters say.
- `starts` says when and after which record the appliance was started.
"""

from collections.abc import Callable
from typing import Final

from appliance.storage.database import Migration, Schema

SUBJECT_COLUMNS: Final = (
    "tenant_id",
    "tenant",
    "environment_id",
    "environment",
    "key_id",
    "key",
    "model",
    "model_digest",
    "deployment_id",
    "region",
    "operation",
    "price_class",
)
RECORD_COLUMNS: Final = (
    "seq",
    "v",
    "record_id",
    "request_id",
    "subject_no",
    "node",
    "status",
    "http_status",
    "error_code",
    "measured",
    "prompt_estimate",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "opened_at_ns",
    "settled_at_ns",
    "latency_ms",
    "first_token_ms",
    "sha256",
)

# Yields the fields of `Record`, in its order, then the hash. A left join: a record whose subject is
# gone is still seen, and found damaged.
RECORD_SELECT: Final = """
SELECT r.v, r.seq, r.record_id, r.request_id, s.tenant_id, s.tenant, s.environment_id,
  s.environment, s.key_id, s.key, s.model, s.model_digest, s.deployment_id, s.region, s.operation,
  s.price_class, r.node, r.status, r.http_status, r.error_code, r.measured, r.prompt_estimate,
  r.input_tokens, r.output_tokens, r.cached_tokens, r.opened_at_ns, r.settled_at_ns, r.latency_ms,
  r.first_token_ms, r.sha256 FROM records r LEFT JOIN subjects s USING (subject_no)
"""
SLOT_NS: Final = 300 * 1_000_000_000

_FIRST: Final = """
CREATE TABLE subjects (
  subject_no INTEGER PRIMARY KEY,
  tenant_id TEXT NOT NULL, tenant TEXT NOT NULL,
  environment_id TEXT NOT NULL, environment TEXT NOT NULL,
  key_id TEXT NOT NULL, key TEXT NOT NULL,
  model TEXT NOT NULL, model_digest TEXT NOT NULL, deployment_id TEXT NOT NULL,
  region TEXT NOT NULL, operation TEXT NOT NULL, price_class TEXT NOT NULL,
  UNIQUE (tenant_id, tenant, environment_id, environment, key_id, key,
          model, model_digest, deployment_id, region, operation, price_class)
);
CREATE TABLE records (
  seq INTEGER PRIMARY KEY,
  v INTEGER NOT NULL,
  record_id TEXT NOT NULL UNIQUE,
  request_id TEXT NOT NULL UNIQUE,
  subject_no INTEGER NOT NULL,
  node TEXT NOT NULL,
  status TEXT NOT NULL,
  http_status INTEGER NOT NULL,
  error_code TEXT NOT NULL,
  measured TEXT NOT NULL,
  prompt_estimate INTEGER NOT NULL,
  input_tokens INTEGER NOT NULL,
  output_tokens INTEGER NOT NULL,
  cached_tokens INTEGER NOT NULL,
  opened_at_ns INTEGER NOT NULL,
  settled_at_ns INTEGER NOT NULL,
  latency_ms INTEGER NOT NULL,
  first_token_ms INTEGER,
  sha256 BLOB NOT NULL
);
CREATE TABLE slots (
  slot INTEGER NOT NULL,
  subject_no INTEGER NOT NULL,
  requests INTEGER NOT NULL,
  input_tokens INTEGER NOT NULL,
  output_tokens INTEGER NOT NULL,
  cached_tokens INTEGER NOT NULL,
  seq_lo INTEGER NOT NULL,
  seq_hi INTEGER NOT NULL,
  PRIMARY KEY (slot, subject_no)
) WITHOUT ROWID;
CREATE TABLE openings (group_no INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE head (
  only INTEGER PRIMARY KEY CHECK (only = 1),
  seq INTEGER NOT NULL,
  sha256 BLOB NOT NULL,
  input_tokens INTEGER NOT NULL,
  output_tokens INTEGER NOT NULL,
  cached_tokens INTEGER NOT NULL
);
INSERT INTO head VALUES (1, 0, zeroblob(32), 0, 0, 0);
"""


_SECOND: Final = """
CREATE INDEX slots_of_subject ON slots (subject_no);
CREATE TABLE manifests (
  epoch INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  sha256 BLOB NOT NULL,
  record_seq_lo INTEGER NOT NULL UNIQUE,
  record_seq_hi INTEGER NOT NULL UNIQUE,
  line_count INTEGER NOT NULL,
  requests INTEGER NOT NULL,
  input_tokens INTEGER NOT NULL,
  cached_tokens INTEGER NOT NULL,
  output_tokens INTEGER NOT NULL,
  sealed_at_ns INTEGER NOT NULL,
  envelope BLOB NOT NULL,
  PRIMARY KEY (epoch, seq)
);
CREATE TABLE manifest_lines (
  epoch INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  packed BLOB NOT NULL,
  PRIMARY KEY (epoch, seq)
);
CREATE TABLE chain (
  only INTEGER PRIMARY KEY CHECK (only = 1),
  epoch INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  head_sha256 BLOB NOT NULL,
  event_seq_hi INTEGER NOT NULL,
  record_seq_hi INTEGER NOT NULL,
  requests INTEGER NOT NULL,
  input_tokens INTEGER NOT NULL,
  cached_tokens INTEGER NOT NULL,
  output_tokens INTEGER NOT NULL,
  frontier BLOB NOT NULL,
  watermark_ns INTEGER NOT NULL,
  regressions INTEGER NOT NULL
);
INSERT INTO chain VALUES (1, 1, 0, zeroblob(32), 0, 0, 0, 0, 0, 0, x'', 0, 0);
CREATE TABLE documents (
  number INTEGER PRIMARY KEY,
  kind TEXT NOT NULL,
  document_id TEXT NOT NULL,
  at_ns INTEGER NOT NULL,
  envelope BLOB NOT NULL,
  UNIQUE (kind, document_id)
);
CREATE TABLE sync_state (only INTEGER PRIMARY KEY CHECK (only = 1), body BLOB NOT NULL);
CREATE TABLE engine_readings (
  replica_id TEXT PRIMARY KEY,
  incarnation TEXT NOT NULL,
  prompt_tokens INTEGER NOT NULL,
  generated_tokens INTEGER NOT NULL
);
CREATE TABLE engine_totals (
  only INTEGER PRIMARY KEY CHECK (only = 1),
  prompt_tokens INTEGER NOT NULL,
  generated_tokens INTEGER NOT NULL
);
INSERT INTO engine_totals VALUES (1, 0, 0);
CREATE TABLE starts (
  number INTEGER PRIMARY KEY,
  at_ns INTEGER NOT NULL,
  boot_id TEXT NOT NULL,
  mono_ns INTEGER NOT NULL,
  record_seq INTEGER NOT NULL,
  record_sha256 BLOB NOT NULL
);
"""


def _run(script: str) -> Callable[[Schema], None]:
    def apply(database: Schema) -> None:
        # One statement at a time: `executescript` would commit the transaction of the migration.
        for statement in script.split(";\n"):
            if statement.strip():
                database.execute(statement)

    return apply


MIGRATIONS: Final = (
    Migration("ledger 1: records, slots, openings, head", _run(_FIRST)),
    Migration("ledger 2: manifests, documents, engine counters, starts", _run(_SECOND)),
)
