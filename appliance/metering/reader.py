"""Reading ledger.db: rows, sums, and what the limits need after a restart.

Works beside the writer and also on a stopped or killed site: what lies in the write-ahead log is
read with it. Every call has a connection of its own, so a reader may be used from any thread.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from appliance.metering.schema import RECORD_SELECT, SLOT_NS
from appliance.metering.verification import Progress, Verification, no_progress, verify
from appliance.storage.database import connect
from appliance.storage.errors import DatabaseDamaged
from appliance.wire.records import Record

R = TypeVar("R")

HOUR_NS: Final = 3_600 * 1_000_000_000
_PAGE_ROWS: Final = 500
PACKED_PAGE_ROWS: Final = 256
_END_OF_TIME_NS: Final = 2**63 - 1

_FIELDS: Final = ", ".join(Record.__struct_fields__)
# A record without its subject has nulls where a record has text, and is refused by the decoder.
_PACKED: Final = f"""
SELECT json_group_array(json_array({_FIELDS})) FROM (
  {RECORD_SELECT} WHERE r.seq > ? AND r.seq <= ? {{}} ORDER BY r.seq
)
"""  # noqa: S608 (names of this package)
_ROW_TYPES: Final = tuple(field.type for field in msgspec.structs.fields(Record))
_PACKED_DECODER: Final[msgspec.json.Decoder[list[tuple[Any, ...]]]] = msgspec.json.Decoder(
    list[tuple[_ROW_TYPES]]  # type: ignore[valid-type]  # made from the fields of Record
)

# What sums can be told apart by, and the column of `subjects` (or of time) that tells.
GROUPINGS: Final = {
    "tenant": "tenant_id",
    "environment": "environment_id",
    "key": "key_id",
    "model": "model",
    "hour": "hour_ns",
}

# What stands behind the sums: the names, then the ids of the first three.
_TOLD: Final = (*GROUPINGS, "tenant", "environment", "key")


class UsageSum(msgspec.Struct, frozen=True, gc=False):
    """Tokens and requests of one group. Names are the newest known; what was not asked is None."""

    requests: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    tenant: str | None = None
    environment: str | None = None
    key: str | None = None
    model: str | None = None
    hour_ns: int | None = None  # start of the UTC hour
    tenant_id: str | None = None
    environment_id: str | None = None
    key_id: str | None = None


class Tokens(msgspec.Struct, frozen=True, gc=False):
    requests: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int


class KeyUsage(msgspec.Struct, frozen=True, gc=False):
    """What one key used of one model."""

    model: str
    day: Tokens
    month: Tokens
    total: Tokens


class SlotTotal(msgspec.Struct, frozen=True, gc=False):
    """What one key was served in one slot of time."""

    slot_start_ns: int
    tenant_id: str
    environment_id: str
    key_id: str
    requests: int
    tokens: int  # input and output
    price_class: str = "serverless"


class LedgerReader:
    """Read-only view of one ledger file. Makes no file and starts no writer.

    Every method raises DatabaseUnavailable when the file is not there or cannot be read, and
    DatabaseDamaged when it is no database.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def rows(self, since: int = 0, limit: int | None = None) -> Iterator[Record]:
        """Records with `seq > since` in their order, at most `limit` of them.

        Reads page by page, so that a slow consumer does not hold the file.
        """
        left = _END_OF_TIME_NS if limit is None else limit
        with self._reading() as connection:
            while left > 0:
                page = connection.execute(
                    f"{RECORD_SELECT} WHERE r.seq > ? ORDER BY r.seq LIMIT ?",
                    (since, min(left, _PAGE_ROWS)),
                ).fetchall()
                for row in page:
                    yield Record(*row[:-1])
                if len(page) < _PAGE_ROWS:
                    return
                left -= len(page)
                since = page[-1][1]

    def pages(
        self,
        since: int,
        until: int,
        page_rows: int = PACKED_PAGE_ROWS,
        *,
        like: Record | None = None,
    ) -> Iterator[list[Record]]:
        """Records with `since < seq <= until` in their order, page by page.

        `like`: only those of the same key and model. A page has at most `page_rows` numbers.

        For reading much beside a busy event loop: SQLite packs a page into one value, so that the
        interpreter's lock is asked for once a page and not once a row. Raises DatabaseDamaged when
        a row holds what no record holds.
        """
        query = _PACKED.format("" if like is None else "AND s.key_id = ? AND s.model = ?")
        whose = () if like is None else (like.key_id, like.model)
        with self._reading() as connection:
            while since < until:
                hi = min(until, since + page_rows)
                (packed,) = connection.execute(query, (since, hi, *whose)).fetchone()
                try:
                    page = _PACKED_DECODER.decode(packed)
                except (msgspec.DecodeError, TypeError) as error:
                    raise DatabaseDamaged(
                        f"The ledger's records {since + 1} to {hi} cannot be read: {error}.",
                        next_step="`cic ledger verify` says more; restore the file from a backup.",
                    ) from error
                yield [Record(*row) for row in page]
                since = hi

    def record(self, request_or_record_id: str) -> Record | None:
        """The record of one request, by the ledger's id or the request's."""
        with self._reading() as connection:
            row = connection.execute(
                f"{RECORD_SELECT} WHERE r.record_id = ?1 OR r.request_id = ?1 ORDER BY r.seq",
                (request_or_record_id,),
            ).fetchone()
        return None if row is None else Record(*row[:-1])

    def record_count(self) -> int:
        with self._reading() as connection:
            return int(connection.execute("SELECT seq FROM head").fetchone()[0])

    def usage(
        self,
        since_ns: int | None = None,
        until_ns: int | None = None,
        by: Sequence[str] = (),
    ) -> list[UsageSum]:
        """Sums of the records settled in [since_ns, until_ns), told apart by names of GROUPINGS.

        Whole slots come from their sums, the rest from the records. Without `by` there is exactly
        one row. Raises ValueError for an unknown name.
        """
        unknown = set(by) - set(GROUPINGS)
        if unknown:
            raise ValueError(f"cannot group by {', '.join(sorted(unknown))}")
        columns = [GROUPINGS[name] for name in by]
        # SQLite takes the other columns from the row with the maximum: the newest name.
        query = f"""
            WITH parts(subject_no, hour_ns, requests, input, output, cached) AS ({_PARTS})
            SELECT coalesce(sum(requests), 0), coalesce(sum(input), 0), coalesce(sum(output), 0),
              coalesce(sum(cached), 0), tenant, environment, key, model, hour_ns, tenant_id,
              environment_id, key_id, max(subject_no)
            FROM parts JOIN subjects USING (subject_no)
            {f"GROUP BY {', '.join(columns)} ORDER BY {', '.join(columns)}" if columns else ""}
        """  # noqa: S608 (names from GROUPINGS only)
        since_ns = 0 if since_ns is None else max(0, since_ns)
        until_ns = _END_OF_TIME_NS if until_ns is None else max(since_ns, until_ns)
        with self._reading() as connection, _snapshot(connection):
            rows = connection.execute(query, _window(connection, since_ns, until_ns)).fetchall()
        return [
            UsageSum(
                *row[:4],
                *(row[4 + place] if name in by else None for place, name in enumerate(_TOLD)),
            )
            for row in rows
        ]

    def key_usage(self, key_id: str, day_ns: int, month_ns: int) -> list[KeyUsage]:
        """What one key used since these moments and since ever, by model.

        Both moments must be starts of a slot, as the starts of days are.
        """
        with self._reading() as connection:
            rows = connection.execute(
                _KEY_USAGE, {"key": key_id, "day": day_ns // SLOT_NS, "month": month_ns // SLOT_NS}
            ).fetchall()
        return [
            KeyUsage(row[0], Tokens(*row[1:5]), Tokens(*row[5:9]), Tokens(*row[9:13]))
            for row in rows
        ]

    def totals_since(self, since_ns: int, slot_ns: int = SLOT_NS) -> list[SlotTotal]:
        """What each key was served since then, in slots of time: to fill the limits again.

        Every slot that ends after `since_ns` is given whole. The five minutes of the file are
        quick; any other `slot_ns` (a second, for the windows of a minute) reads single records.
        """
        with self._reading() as connection, _snapshot(connection):
            if slot_ns == SLOT_NS:
                rows = connection.execute(
                    """
                    SELECT slot * ?1, tenant_id, environment_id, key_id, sum(requests),
                      sum(input_tokens + output_tokens), price_class
                    FROM slots JOIN subjects USING (subject_no)
                    WHERE slot >= ?2 / ?1 GROUP BY slot, key_id, price_class ORDER BY slot
                    """,
                    (SLOT_NS, since_ns),
                )
            else:
                rows = connection.execute(
                    """
                    SELECT settled_at_ns / ?1 * ?1 AS start_ns, tenant_id, environment_id, key_id,
                      count(*), sum(input_tokens + output_tokens), price_class
                    FROM records JOIN subjects USING (subject_no)
                    WHERE seq >= (SELECT min(seq_lo) FROM slots WHERE slot >= ?2 / ?3)
                      AND settled_at_ns >= ?2 / ?1 * ?1
                    GROUP BY start_ns, key_id, price_class ORDER BY start_ns
                    """,
                    (slot_ns, since_ns, SLOT_NS),
                )
            return [SlotTotal(*row) for row in rows]

    def query(self, run: Callable[[sqlite3.Connection], R]) -> R:
        """What `run` reads of the file, in one snapshot of it."""
        with self._reading() as connection, _snapshot(connection):
            return run(connection)

    def verify(self, progress: Progress = no_progress) -> Verification:
        """Check everything the file claims, in constant memory; see `verification.verify`."""
        with self._reading() as connection, _snapshot(connection):
            return verify(connection, progress)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with closing(connect(self._path, read_only=True)) as connection:
            connection.row_factory = None
            yield connection


def _sums_since(slot: str) -> str:
    columns = ("requests", "input_tokens", "output_tokens", "cached_tokens")
    return ", ".join(f"sum({column} * (slot >= {slot}))" for column in columns)


_KEY_USAGE: Final = f"""
    SELECT model, {_sums_since(":day")}, {_sums_since(":month")}, {_sums_since("0")}
    FROM subjects JOIN slots INDEXED BY slots_of_subject USING (subject_no)
    WHERE key_id = :key GROUP BY model ORDER BY model
"""  # noqa: S608 (names of this file)

# Whole slots between two numbers, and single records of the (at most two) slots at the edges.
_PARTS: Final = f"""
    SELECT subject_no, slot * {SLOT_NS} / {HOUR_NS} * {HOUR_NS}, requests, input_tokens,
      output_tokens, cached_tokens
    FROM slots WHERE slot >= :slot_lo AND slot < :slot_hi
    UNION ALL
    SELECT subject_no, settled_at_ns / {HOUR_NS} * {HOUR_NS}, 1, input_tokens, output_tokens,
      cached_tokens
    FROM records
    WHERE seq BETWEEN :first_lo AND :first_hi
      AND settled_at_ns >= :since AND settled_at_ns < :first_until
    UNION ALL
    SELECT subject_no, settled_at_ns / {HOUR_NS} * {HOUR_NS}, 1, input_tokens, output_tokens,
      cached_tokens
    FROM records
    WHERE seq BETWEEN :last_lo AND :last_hi
      AND settled_at_ns >= :last_since AND settled_at_ns < :until
"""  # noqa: S608 (numbers of this file)


def _window(connection: sqlite3.Connection, since_ns: int, until_ns: int) -> dict[str, int]:
    """The parameters of _PARTS: which slots are whole, and where the records of the edges lie."""
    slot_lo, slot_hi = -(-since_ns // SLOT_NS), until_ns // SLOT_NS
    first_slot, last_slot = since_ns // SLOT_NS, until_ns // SLOT_NS
    first_until = min(slot_lo * SLOT_NS, until_ns)
    # When both ends lie in one slot, the first piece is the whole window.
    last_since = max(last_slot * SLOT_NS, first_until, since_ns)
    first_lo, first_hi = _numbers(connection, first_slot)
    last_lo, last_hi = _numbers(connection, last_slot)
    return {
        "slot_lo": slot_lo,
        "slot_hi": slot_hi,
        "since": since_ns,
        "first_until": first_until,
        "first_lo": first_lo,
        "first_hi": first_hi,
        "last_since": last_since,
        "until": until_ns,
        "last_lo": last_lo,
        "last_hi": last_hi,
    }


def _numbers(connection: sqlite3.Connection, slot: int) -> tuple[int, int]:
    """The first and last number of the records of a slot; (0, 0) when there are none."""
    row = connection.execute(
        "SELECT coalesce(min(seq_lo), 0), coalesce(max(seq_hi), 0) FROM slots WHERE slot = ?",
        (slot,),
    ).fetchone()
    return int(row[0]), int(row[1])


@contextmanager
def _snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """Several queries see the same state of the file."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")  # nothing was written; unlike COMMIT it never fails
