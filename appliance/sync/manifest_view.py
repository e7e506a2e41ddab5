"""Sealed manifests as they are shown, of a running site and of a stopped one."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import msgspec

from appliance.domain.clock import iso
from appliance.manifests import archive
from appliance.manifests.archive import ManifestRow, StoredManifest, SyncState
from appliance.manifests.canonical import decode, encode
from appliance.manifests.documents import Header, Line
from appliance.manifests.envelope import parse
from appliance.manifests.errors import NoSuchManifest
from appliance.manifests.lines import split_lines
from appliance.manifests.merkle import leaf_hash
from appliance.manifests.redaction import Redacted
from appliance.metering.reader import LedgerReader
from appliance.sync.identity import signing_key_now, signing_keys
from appliance.wire.manifests import (
    LineShown,
    Manifest,
    ManifestKey,
    ManifestShown,
    Sealing,
    SealingStatus,
    Totals,
)

_lines = msgspec.json.Decoder(Line)


class ManifestView:
    """Reads ledger.db, blocking for the disk. Every method raises StorageError if it cannot."""

    def __init__(self, ledger_file: Path) -> None:
        self._reader = LedgerReader(ledger_file)

    def is_there(self) -> bool:
        """Whether this ledger can hold manifests: one of an older version cannot."""
        return self._reader.query(_is_there)

    def rows(self, epoch: int, seq: int, count_max: int) -> list[Manifest]:
        """At most `count_max` manifests after that one, oldest first."""
        return self._reader.query(
            lambda connection: shown_rows(
                archive.manifest_rows(connection, epoch, seq, count_max),
                archive.sync_state(connection),
            )
        )

    def show(self, ref: str, tenant: str | None = None) -> ManifestShown:
        """One manifest; with `tenant` (id or name) the lines of others are left out.

        Raises NoSuchManifest.
        """
        epoch, seq = place_of(ref)
        stored, state = self._reader.query(
            lambda connection: (
                archive.manifest(connection, seq, epoch),
                archive.sync_state(connection),
            )
        )
        return ManifestShown(
            manifest=manifest_view(stored.row, state),
            header=msgspec.Raw(parse(stored.envelope).payload),
            lines=_shown_lines(stored, tenant),
            envelope=stored.envelope.decode(),
        )

    def key(self, ref: str | None = None) -> ManifestKey:
        """The key that signs the next manifest, or that signed `ref`. Raises NoSuchManifest."""
        return self._reader.query(lambda connection: _key(connection, ref))

    def status(self, last_error: str) -> SealingStatus:
        return self._reader.query(lambda connection: _status(connection, last_error))

    def sealing(self, made: Sequence[ManifestRow]) -> Sealing:
        """What a seal that made these is told as."""
        chain, state = self._reader.query(
            lambda connection: (archive.chain_state(connection), archive.sync_state(connection))
        )
        newest = (made[-1].epoch, made[-1].seq, made[-1].sha256) if made else None
        epoch, seq, digest = newest or (chain.epoch, chain.seq, chain.head_sha256)
        return Sealing(
            sealed=len(made),
            epoch=epoch,
            seq=seq,
            sha256=digest,
            records=sum(row.requests for row in made),
            totals=Totals(
                requests=sum(row.requests for row in made),
                input_tokens=sum(row.input_tokens for row in made),
                cached_tokens=sum(row.cached_tokens for row in made),
                output_tokens=sum(row.output_tokens for row in made),
            ),
            manifests=shown_rows(made, state),
        )


def _is_there(connection: sqlite3.Connection) -> bool:
    (count,) = connection.execute(
        "SELECT count(*) FROM sqlite_master WHERE name IN ('manifests', 'sync_state')"
    ).fetchone()
    return bool(count == 2)


def place_of(ref: str) -> tuple[int | None, int]:
    """`7` -> (None, 7), `2-7` or `2.7` -> (2, 7). Raises NoSuchManifest."""
    epoch, dash, seq = ref.replace(".", "-").rpartition("-")
    if not (seq.isascii() and seq.isdecimal() and len(seq) < 19):
        raise _no_place(ref)
    if dash and not (epoch.isascii() and epoch.isdecimal() and len(epoch) < 19):
        raise _no_place(ref)
    return (int(epoch) if dash else None), int(seq)


def shown_rows(rows: Sequence[ManifestRow], state: SyncState) -> list[Manifest]:
    return [manifest_view(row, state) for row in rows]


def manifest_view(row: ManifestRow, state: SyncState) -> Manifest:
    accepted = (row.epoch, row.seq) <= (state.epoch, state.accepted_through)
    return Manifest(
        epoch=row.epoch,
        seq=row.seq,
        state="accepted" if accepted else "sealed",
        sealed_at=iso(row.sealed_at_ns),
        records=row.requests,
        lines=row.line_count,
        input_tokens=row.input_tokens,
        cached_tokens=row.cached_tokens,
        output_tokens=row.output_tokens,
        record_seq_lo=row.record_seq_lo,
        record_seq_hi=row.record_seq_hi,
        sha256=row.sha256,
    )


def _shown_lines(stored: StoredManifest, tenant: str | None) -> list[LineShown]:
    shown = []
    for index, raw in enumerate(split_lines(stored.lines)):
        line = _lines.decode(raw)
        ours = tenant is None or tenant in {line.tenant_id, line.tenant}
        leaf = leaf_hash(raw).hex()
        written = raw if ours else encode(Redacted(redacted=leaf))
        shown.append(
            LineShown(index=index, leaf_sha256=leaf, hidden=not ours, line=msgspec.Raw(written))
        )
    return shown


def _status(connection: sqlite3.Connection, last_error: str) -> SealingStatus:
    chain = archive.chain_state(connection)
    row = archive.manifest_row(connection, chain.epoch, chain.seq)
    (records,) = connection.execute("SELECT seq FROM head").fetchone()
    return SealingStatus(
        newest="" if row is None else f"{row.epoch}-{row.seq}",
        sealed_at=None if row is None else iso(row.sealed_at_ns),
        unsealed_records=max(0, records - chain.record_seq_hi),
        last_error=last_error,
    )


def _key(connection: sqlite3.Connection, ref: str | None) -> ManifestKey:
    state = archive.sync_state(connection)
    if ref is None:
        key, (epoch, seq) = signing_key_now(connection, state)
    else:
        wanted_epoch, wanted_seq = place_of(ref)
        stored = archive.manifest(connection, wanted_seq, wanted_epoch)
        key_id = decode(parse(stored.envelope).payload, Header).key_id
        key, (epoch, seq) = next(
            each for each in signing_keys(connection, state) if each[0].key_id == key_id
        )
    return ManifestKey(
        appliance_id=state.appliance_id, key_id=key.key_id, since=f"{epoch}-{seq}", pem=key.pem
    )


def _no_place(ref: str) -> NoSuchManifest:
    return NoSuchManifest(
        f"{ref!r} is no number of a manifest.",
        next_step="Write it as 7, or with its epoch as 1-7; `cic manifest list` shows them.",
    )
