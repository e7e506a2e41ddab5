"""A window of the ledger, read and added up in a thread beside a busy event loop.

The work is done in pieces of a few milliseconds, and after each it sleeps as long as it worked:
requests then find the interpreter's lock free, and a site under full load still seals faster than
it records.
"""

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from appliance.manifests.archive import (
    Chain,
    Kind,
    ManifestRow,
    chain_state,
    newest,
    pack_lines,
    store_sealed,
    sync_state,
)
from appliance.manifests.canonical import decode
from appliance.manifests.documents import Entitlement
from appliance.manifests.engine_counts import EngineCounts, load_counts
from appliance.manifests.envelope import parse
from appliance.manifests.lines import LineBuilder, Salts, SealedLines, Sums
from appliance.manifests.merkle import Frontier
from appliance.manifests.seal import ChainState, Moment, SealContext, seal
from appliance.metering.reader import LedgerReader
from appliance.security.signing import SigningKey
from appliance.sync.identity import signing_key_now

PIECE_S: Final = 0.002


@dataclass(frozen=True, slots=True)
class Standing:
    """What the ledger says before a window is made."""

    chain: Chain
    record_seq: int  # the last record's number
    key_id: str  # of the key that signs the next manifest
    last_receipt_sha256: str
    entitlement_id: str  # "" when none is installed
    engines: EngineCounts


@dataclass(frozen=True, slots=True)
class Window:
    """Records `record_seq_lo` to `record_seq_hi` of the ledger, added up."""

    record_seq_lo: int
    record_seq_hi: int
    lines: SealedLines
    packed: bytes  # the lines as they are stored


def give_way(worked_s: float) -> None:
    """Sleep as long as was worked, so that others get at least half of the time."""
    time.sleep(max(worked_s, 0.0005))


def standing(connection: sqlite3.Connection) -> Standing:
    """To be read from one snapshot of the file."""
    entitlement = newest(connection, Kind.ENTITLEMENT)
    state = sync_state(connection)
    return Standing(
        chain=chain_state(connection),
        record_seq=int(connection.execute("SELECT seq FROM head").fetchone()[0]),
        key_id=signing_key_now(connection, state)[0].key_id,
        last_receipt_sha256=state.last_receipt_sha256,
        entitlement_id=""
        if entitlement is None
        else decode(parse(entitlement.envelope).payload, Entitlement).entitlement_id,
        engines=load_counts(connection),
    )


def read_window(
    reader: LedgerReader,
    salts: Salts,
    chain: Chain,
    record_seq: int,
    *,
    rest: Callable[[float], None] = give_way,
) -> Window | None:
    """The next window, up to `record_seq` or until it is full. None: there is no new record.

    `rest` is told how long a piece of work took, in seconds, and sleeps.
    """
    if record_seq <= chain.record_seq_hi:
        return None
    builder = LineBuilder(salts)
    hi = fill(builder, reader, chain.record_seq_hi, record_seq, rest)
    lines = builder.finish(chain.epoch, chain.seq + 1)
    return Window(chain.record_seq_hi + 1, hi, lines, pack_lines(lines.ndjson))


def fill(
    builder: LineBuilder,
    reader: LedgerReader,
    since: int,
    until: int,
    rest: Callable[[float], None],
) -> int:
    """Add records to the builder; the number of the last one that found a place."""
    last = since
    begun_s = time.monotonic()
    for page in reader.pages(since, until):
        for record in page:
            if not builder.add(record):
                return last
            last = record.seq
        now_s = time.monotonic()
        if now_s - begun_s >= PIECE_S:
            rest(now_s - begun_s)
            begun_s = time.monotonic()
    return last


def state_of(chain: Chain) -> ChainState:
    """The chain in the words of sealing."""
    return ChainState(
        epoch=chain.epoch,
        seq=chain.seq,
        head_sha256=chain.head_sha256,
        event_seq_hi=chain.event_seq_hi,
        cumulative=Sums(
            chain.requests, chain.input_tokens, chain.cached_tokens, chain.output_tokens
        ),
        log=Frontier.from_bytes(chain.frontier),
        watermark_ns=chain.watermark_ns,
        regressions=chain.regressions,
    )


def chain_of(state: ChainState, record_seq_hi: int) -> Chain:
    """And back: what is stored after a manifest."""
    return Chain(
        epoch=state.epoch,
        seq=state.seq,
        head_sha256=state.head_sha256,
        event_seq_hi=state.event_seq_hi,
        record_seq_hi=record_seq_hi,
        requests=state.cumulative.requests,
        input_tokens=state.cumulative.input_tokens,
        cached_tokens=state.cumulative.cached_tokens,
        output_tokens=state.cumulative.output_tokens,
        frontier=state.log.to_bytes(),
        watermark_ns=state.watermark_ns,
        regressions=state.regressions,
    )


@dataclass(frozen=True, slots=True)
class Made:
    """A signed manifest, ready to be stored."""

    row: ManifestRow
    envelope: bytes
    packed_lines: bytes
    before: Chain
    after: Chain

    def store(self, connection: sqlite3.Connection) -> None:
        """In one transaction. Raises ChainMoved when the chain went on meanwhile."""
        store_sealed(
            *(connection, self.row, self.envelope, self.packed_lines, self.before, self.after)
        )


def make(chain: Chain, window: Window, now: Moment, context: SealContext, key: SigningKey) -> Made:
    """Sign a window that continues the chain."""
    totals = window.lines.totals
    hi = chain.event_seq_hi + totals.requests
    state = state_of(chain)
    sealed = seal(state, window.lines, chain.event_seq_hi + 1, hi, now, context, key)
    row = ManifestRow(
        epoch=sealed.header.epoch,
        seq=sealed.header.seq,
        sha256=sealed.sha256,
        record_seq_lo=window.record_seq_lo,
        record_seq_hi=window.record_seq_hi,
        line_count=window.lines.line_count,
        requests=totals.requests,
        input_tokens=totals.input_tokens,
        cached_tokens=totals.cached_tokens,
        output_tokens=totals.output_tokens,
        sealed_at_ns=now.wall_ns,
    )
    after = chain_of(sealed.next, window.record_seq_hi)
    return Made(row, sealed.envelope.to_bytes(), window.packed, chain, after)
