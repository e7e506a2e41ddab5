"""Sealed manifests and signed documents as rows of ledger.db.

Functions over a connection; who calls them brings the transaction (`Ledger.transact` to write, any
reader to read). The tables are those of ledger 2 in `appliance.metering.schema`. Numbers are ints,
hashes 64 hex digits, moments nanoseconds since 1970.
"""

import sqlite3
import zlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

from appliance.manifests.documents import NO_HASH
from appliance.manifests.errors import ChainMoved, NoSuchManifest

# The roots and salts of lines are noise; of the names little is left even by the quickest level.
_PACK_LEVEL: Final = 1

_ROW: Final = (
    "epoch, seq, sha256, record_seq_lo, record_seq_hi, line_count, requests, input_tokens,"
    " cached_tokens, output_tokens, sealed_at_ns"
)
_CHAIN: Final = (
    "epoch, seq, head_sha256, event_seq_hi, record_seq_hi, requests, input_tokens, cached_tokens,"
    " output_tokens, frontier, watermark_ns, regressions"
)


_STORED: Final = (
    f"SELECT {', '.join(f'm.{name}' for name in _ROW.split(', '))}, m.envelope, l.packed"  # noqa: S608 (constants)
    " FROM manifests m JOIN manifest_lines l USING (epoch, seq)"
)


class Kind(StrEnum):
    """What kinds of signed documents are kept."""

    RECEIPT = "receipt"
    ENTITLEMENT = "entitlement"
    KEY_ROTATION = "key-rotation"
    REVOCATION = "key-revocation"
    EPOCH_GRANT = "epoch-grant"
    PRICE_BOOK = "price-book"
    PLANS = "plans"


@dataclass(frozen=True, slots=True)
class Chain:
    """Where the chain stands: what the next manifest continues.

    `record_seq_hi` is the ledger's last number that is sealed, or set aside by an epoch grant;
    `event_seq_hi` is what the manifests call it. They differ only after such a grant.
    """

    epoch: int = 1
    seq: int = 0  # of the last manifest; 0: none yet in this epoch
    head_sha256: str = NO_HASH
    event_seq_hi: int = 0
    record_seq_hi: int = 0
    requests: int = 0  # cumulative, as are the tokens
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    frontier: bytes = b""  # `merkle.Frontier` of the log
    watermark_ns: int = 0
    regressions: int = 0


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """What is told of a sealed manifest in a list. Tokens and requests are those of its window."""

    epoch: int
    seq: int
    sha256: str  # of the payload
    record_seq_lo: int  # numbers of the ledger
    record_seq_hi: int
    line_count: int
    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    sealed_at_ns: int


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest with its bytes, as they were signed."""

    row: ManifestRow
    envelope: bytes  # DSSE, JSON
    lines: bytes  # NDJSON

    @property
    def epoch(self) -> int:
        return self.row.epoch

    @property
    def seq(self) -> int:
        return self.row.seq


@dataclass(frozen=True, slots=True)
class StoredDocument:
    kind: Kind
    document_id: str
    at_ns: int  # the document's own moment
    envelope: bytes


class SyncState(msgspec.Struct, frozen=True, kw_only=True):
    """What the site knows of itself towards its control plane. Fields may be added with a default.

    `appliance_id` is "" only in a file that never belonged to a site.
    """

    appliance_id: str = ""
    first_key_pem: str = ""  # the first manifest key; rotations lead from it to today's
    epoch: int = 0  # of the newest receipt; 0: none yet
    accepted_through: int = 0
    accepted_sha256: str = NO_HASH
    last_receipt_sha256: str = NO_HASH  # of its payload
    frozen: bool = False
    frozen_reason: str = ""
    control_plane_url: str = ""
    control_plane_key_pem: str = ""  # pinned
    last_contact_ns: int | None = None
    last_error: str = ""
    newest_received_at: str = ""  # of the newest receipt
    next_step: str = ""  # what a person does about being frozen, or about the alarm
    alarm: str = ""  # a receipt was refused: why, until one fits again
    alarm_detail: str = ""
    lease_seen_ns: int = 0  # latest wall time since the newest signed document came
    lease_warned_ns: int | None = None  # since when the end of the lease is shown
    receipt_lease: str = ""  # the latest that a receipt gave
    plans_taken: dict[str, str] = {}  # tenant -> `since` of the plan that was applied last


_sync_decoder: Final = msgspec.json.Decoder(SyncState)


def pack_lines(ndjson: bytes) -> bytes:
    """Lines as they are stored. Takes time: to be called before the transaction."""
    return zlib.compress(ndjson, _PACK_LEVEL)


# -- The chain


def chain_state(connection: sqlite3.Connection) -> Chain:
    row = connection.execute(f"SELECT {_CHAIN} FROM chain").fetchone()  # noqa: S608 (a constant)
    epoch, seq, head, event, record, requests, inputs, cached, output, frontier, mark, back = row
    return Chain(
        epoch,
        seq,
        bytes(head).hex(),
        event,
        record,
        requests,
        inputs,
        cached,
        output,
        bytes(frontier),
        mark,
        back,
    )


def set_chain_state(connection: sqlite3.Connection, chain: Chain) -> None:
    """For sealing, and for the beginning of an epoch that a grant allows."""
    connection.execute(
        f"UPDATE chain SET ({_CHAIN}) = (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 (a constant)
        (
            chain.epoch,
            chain.seq,
            bytes.fromhex(chain.head_sha256),
            chain.event_seq_hi,
            chain.record_seq_hi,
            chain.requests,
            chain.input_tokens,
            chain.cached_tokens,
            chain.output_tokens,
            chain.frontier,
            chain.watermark_ns,
            chain.regressions,
        ),
    )


def raise_watermark(connection: sqlite3.Connection, wall_ns: int) -> None:
    """Remember the latest moment this site ever saw."""
    connection.execute("UPDATE chain SET watermark_ns = max(watermark_ns, ?)", (wall_ns,))


def store_sealed(
    connection: sqlite3.Connection,
    row: ManifestRow,
    envelope: bytes,
    packed_lines: bytes,
    before: Chain,
    after: Chain,
) -> None:
    """Store a manifest and so mark its records, if the chain still stands at `before`.

    `packed_lines` is from `pack_lines`. Raises ChainMoved when another manifest, a key or an epoch
    came in between: then nothing was written.
    """
    now = chain_state(connection)
    if (now.epoch, now.seq, now.head_sha256, now.record_seq_hi) != (
        before.epoch,
        before.seq,
        before.head_sha256,
        before.record_seq_hi,
    ):
        raise ChainMoved(
            f"The chain went on to {now.epoch}/{now.seq} while {row.epoch}/{row.seq} was made.",
            next_step="Nothing was changed; seal again.",
        )
    connection.execute(
        f"INSERT INTO manifests ({_ROW}, envelope) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 (a constant)
        (
            row.epoch,
            row.seq,
            bytes.fromhex(row.sha256),
            row.record_seq_lo,
            row.record_seq_hi,
            row.line_count,
            row.requests,
            row.input_tokens,
            row.cached_tokens,
            row.output_tokens,
            row.sealed_at_ns,
            envelope,
        ),
    )
    connection.execute(
        "INSERT INTO manifest_lines VALUES (?, ?, ?)", (row.epoch, row.seq, packed_lines)
    )
    set_chain_state(connection, after)
    raise_watermark(connection, now.watermark_ns)


# -- Manifests


def manifest_rows(
    connection: sqlite3.Connection, epoch: int = 0, seq: int = 0, limit: int = 500
) -> list[ManifestRow]:
    """At most `limit` manifests after (epoch, seq), oldest first, without their bytes."""
    rows = connection.execute(
        f"SELECT {_ROW} FROM manifests WHERE (epoch, seq) > (?, ?) ORDER BY epoch, seq LIMIT ?",  # noqa: S608 (a constant)
        (epoch, seq, limit),
    )
    return [_row(row) for row in rows]


def manifests_after(
    connection: sqlite3.Connection, epoch: int, seq: int, limit: int
) -> list[StoredManifest]:
    """At most `limit` manifests after (epoch, seq), oldest first, over all epochs."""
    rows = connection.execute(
        f"{_STORED} WHERE (m.epoch, m.seq) > (?, ?) ORDER BY m.epoch, m.seq LIMIT ?",
        (epoch, seq, limit),
    )
    return [_stored(row) for row in rows]


def manifest(connection: sqlite3.Connection, seq: int, epoch: int | None = None) -> StoredManifest:
    """One manifest; without `epoch` that of the newest epoch. Raises NoSuchManifest."""
    row = connection.execute(
        f"{_STORED} WHERE m.seq = ?1 AND (?2 IS NULL OR m.epoch = ?2)"
        " ORDER BY m.epoch DESC LIMIT 1",
        (seq, epoch),
    ).fetchone()
    if row is None:
        named = f"{seq}" if epoch is None else f"{epoch}/{seq}"
        raise NoSuchManifest(
            f"There is no manifest {named}.", next_step="`cic manifest list` shows what there is."
        )
    return _stored(row)


def manifest_row(connection: sqlite3.Connection, epoch: int, seq: int) -> ManifestRow | None:
    row = connection.execute(
        f"SELECT {_ROW} FROM manifests WHERE epoch = ? AND seq = ?",  # noqa: S608 (a constant)
        (epoch, seq),
    ).fetchone()
    return None if row is None else _row(row)


def manifest_of_record(connection: sqlite3.Connection, record_seq: int) -> ManifestRow | None:
    """The manifest that holds a record of the ledger; None: not sealed, or set aside."""
    row = connection.execute(
        f"SELECT {_ROW} FROM manifests WHERE record_seq_hi >= ? ORDER BY record_seq_hi LIMIT 1",  # noqa: S608 (a constant)
        (record_seq,),
    ).fetchone()
    if row is None or row[3] > record_seq:
        return None
    return _row(row)


def manifest_count(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM manifests").fetchone()[0])


def unreceipted_count(connection: sqlite3.Connection) -> int:
    """Manifests that the control plane has not said to have accepted."""
    state = sync_state(connection)
    row = connection.execute(
        "SELECT count(*) FROM manifests WHERE (epoch, seq) > (?, ?)",
        (state.epoch, state.accepted_through),
    ).fetchone()
    return int(row[0])


def set_aside(connection: sqlite3.Connection, record_seq: int) -> int:
    """Forget manifests that reach beyond this number, which an epoch grant lets be sealed anew.

    They were not accepted; the control plane keeps those it saw as evidence. How many there were.
    """
    gone = connection.execute(
        "DELETE FROM manifests WHERE record_seq_hi > ? RETURNING epoch, seq", (record_seq,)
    ).fetchall()
    connection.executemany("DELETE FROM manifest_lines WHERE epoch = ? AND seq = ?", gone)
    return len(gone)


# -- Documents


def store_document(
    connection: sqlite3.Connection, kind: Kind, document_id: str, envelope: bytes, at_ns: int
) -> bool:
    """Keep a signed document; False when one of that kind and id is there already."""
    done = connection.execute(
        "INSERT INTO documents (kind, document_id, at_ns, envelope) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO NOTHING",
        (kind.value, document_id, at_ns, envelope),
    )
    return done.rowcount > 0


def has_document(connection: sqlite3.Connection, kind: Kind, document_id: str) -> bool:
    found = connection.execute(
        "SELECT 1 FROM documents WHERE kind = ? AND document_id = ?", (kind.value, document_id)
    ).fetchone()
    return found is not None


def documents(connection: sqlite3.Connection, kind: Kind) -> list[StoredDocument]:
    """All of a kind in the order in which they came."""
    rows = connection.execute(
        "SELECT document_id, at_ns, envelope FROM documents WHERE kind = ? ORDER BY number",
        (kind.value,),
    )
    return [StoredDocument(kind, row[0], row[1], bytes(row[2])) for row in rows]


def newest(connection: sqlite3.Connection, kind: Kind) -> StoredDocument | None:
    """The one with the latest moment; of equal ones the last that came."""
    row = connection.execute(
        "SELECT document_id, at_ns, envelope FROM documents WHERE kind = ?"
        " ORDER BY at_ns DESC, number DESC LIMIT 1",
        (kind.value,),
    ).fetchone()
    return None if row is None else StoredDocument(kind, row[0], row[1], bytes(row[2]))


# -- The state of synchronisation


def sync_state(connection: sqlite3.Connection) -> SyncState:
    row = connection.execute("SELECT body FROM sync_state").fetchone()
    return SyncState() if row is None else _sync_decoder.decode(bytes(row[0]))


def set_sync_state(connection: sqlite3.Connection, state: SyncState) -> None:
    """Replace it whole: `msgspec.structs.replace(sync_state(connection), ...)`, one transaction."""
    connection.execute(
        "INSERT INTO sync_state VALUES (1, ?)"
        " ON CONFLICT (only) DO UPDATE SET body = excluded.body",
        (msgspec.json.encode(state),),
    )


def _row(row: sqlite3.Row) -> ManifestRow:
    return ManifestRow(row[0], row[1], bytes(row[2]).hex(), *row[3:11])


def _stored(row: sqlite3.Row) -> StoredManifest:
    return StoredManifest(_row(row), bytes(row[11]), zlib.decompress(bytes(row[12])))
