"""Seals the ledger: every few minutes, and whenever it is asked to.

A window is read and signed outside of any transaction; then one transaction stores it, if the chain
still stands where the window began. So a stop at any moment leaves a record either sealed or to be
sealed next, and the next start goes on there.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeVar

from appliance.domain.clock import Clock, iso
from appliance.domain.errors import CrossLogicError
from appliance.manifests import archive
from appliance.manifests.archive import ManifestRow
from appliance.manifests.documents import KeyRotation
from appliance.manifests.engine_counts import EngineTally, advance, store_counts
from appliance.manifests.errors import ChainMoved
from appliance.manifests.keys import sign_rotation
from appliance.manifests.lines import Salts
from appliance.manifests.seal import Moment, SealContext
from appliance.metering.reader import LedgerReader
from appliance.security.signing import PublicKey
from appliance.sync.errors import KeyUnused
from appliance.sync.head_note import Note, write_note
from appliance.sync.identity import Identity, current, prepare_key, signing_key_now
from appliance.sync.windows import Standing, make, read_window, standing

R = TypeVar("R")

_TRIES: Final = 5  # while something else moves the chain
_BOOT_ID_FILE: Final = Path("/proc/sys/kernel/random/boot_id")

log = logging.getLogger(__name__)


class Writer(Protocol):
    """The one thread that writes ledger.db (`metering.ledger.Ledger`)."""

    def transact(self, run: Callable[[sqlite3.Connection], R]) -> Future[R]: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a header says of the site beside the ledger, asked for at each seal."""

    audit_head: Callable[[], Awaitable[str]]  # 64 hex digits
    engines: EngineTally
    software_digest: str
    boot_id: str


def read_boot_id(path: Path = _BOOT_ID_FILE) -> str:
    """Which start of this machine it is; "" where the system does not tell."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


class Sealer:
    """One for each running site; `run` as a background task, the rest from the event loop."""

    def __init__(
        self,
        ledger_file: Path,
        writer: Writer,
        secrets: Path,
        identity: Identity,
        surroundings: Surroundings,
        clock: Clock,
        *,
        window_s: float,
        note_file: Path,
    ) -> None:
        """`note_file` keeps the number of the newest manifest."""
        self._reader = LedgerReader(ledger_file)
        self._writer = writer
        self._secrets = secrets
        self._identity = identity
        self._salts = Salts(identity.salts)
        self._surroundings = surroundings
        self._clock = clock
        self._window_s = window_s
        self._note_file = note_file
        self._listeners: list[Callable[[], None]] = []
        self._lock = asyncio.Lock()
        self.last_error = ""  # of the last attempt; "" when it succeeded

    @property
    def identity(self) -> Identity:
        return self._identity

    def on_sealed(self, listener: Callable[[], None]) -> None:
        """Call this after each manifest, on the event loop."""
        self._listeners.append(listener)

    async def run(self) -> None:
        """Seal what the last run left, then at the end of every window. Ends with its task."""
        while True:
            try:
                for row in await self.seal():
                    log.info("sealed", extra=_told(row))
                await self._transact(
                    lambda connection: archive.raise_watermark(connection, self._clock.wall_ns())
                )
                self.last_error = ""
            except CrossLogicError as error:
                # A full disk, say: the records are safe, and are sealed when it can be done.
                self.last_error = str(error)
                log.warning("sealing_failed", extra={"code": error.code, "reason": error.message})
            await asyncio.sleep(self._window_s)

    async def seal(self) -> list[ManifestRow]:
        """Seal every record there is now; the manifests made, none when there was nothing new.

        Raises LedgerError, StorageError or ManifestError; what was sealed before it stays.
        """
        async with self._lock:
            rows: list[ManifestRow] = []
            until: int | None = None
            while True:
                row, until = await self._seal_next(until)
                if row is None:
                    return rows
                rows.append(row)
                if row.record_seq_hi >= until:
                    return rows

    async def rotate(self) -> PublicKey:
        """Sign with a new key from the next manifest on; both keys sign the change.

        Raises SecurityError, LedgerError or KeyUnused: then the old key stays.
        """
        async with self._lock:
            old = self._identity.key
            new = await asyncio.to_thread(prepare_key, self._secrets)
            at_ns = self._clock.wall_ns()

            def change(connection: sqlite3.Connection) -> None:
                chain = archive.chain_state(connection)
                _, since = signing_key_now(connection, archive.sync_state(connection))
                if (chain.epoch, chain.seq + 1) <= since:
                    raise KeyUnused(
                        "Nothing was signed with today's manifest key yet.",
                        next_step="Seal what there is with `cic manifest seal`, then rotate.",
                    )
                rotation = KeyRotation(
                    appliance_id=self._identity.appliance_id,
                    epoch=chain.epoch,
                    seq=chain.seq + 1,
                    old_key_id=old.key_id,
                    new_key_pem=new.public.pem,
                    at=iso(at_ns),
                )
                envelope = sign_rotation(rotation, old, new)
                archive.store_document(
                    *(connection, archive.Kind.KEY_ROTATION, new.key_id),
                    *(envelope.to_bytes(), at_ns),
                )

            await self._transact(change)
            await asyncio.to_thread(self._adopt)
            log.info("manifest_key_rotated", extra={"old": old.key_id, "new": new.key_id})
            return new.public

    async def adopt(self) -> None:
        """Sign with the key that the documents name now, after a grant of the control plane."""
        async with self._lock:
            await asyncio.to_thread(self._adopt)

    def _adopt(self) -> None:
        self._identity = self._reader.query(lambda connection: current(self._secrets, connection))

    async def _seal_next(self, until: int | None) -> tuple[ManifestRow | None, int]:
        """Make and store one manifest; None when there is no record after the last. And how far.

        `until`: the number up to which this call of `seal` goes; None: to the newest record.
        """
        for attempt in range(_TRIES):
            before = await asyncio.to_thread(self._reader.query, standing)
            if before.key_id != self._identity.key.key_id:
                await asyncio.to_thread(self._adopt)  # a grant of the control plane named another
            goal = before.record_seq if until is None else until
            try:
                return await self._seal_window(before, goal), goal
            except ChainMoved:
                if attempt == _TRIES - 1:
                    raise
        raise AssertionError("the loop returns or raises")

    async def _seal_window(self, before: Standing, goal: int) -> ManifestRow | None:
        window = await asyncio.to_thread(read_window, self._reader, self._salts, before.chain, goal)
        if window is None:
            return None
        readings = self._surroundings.engines.readings()
        engines = advance(before.engines, readings)
        context = SealContext(
            appliance_id=self._identity.appliance_id,
            software_digest=self._surroundings.software_digest,
            entitlement_id=before.entitlement_id,
            last_receipt_sha256=before.last_receipt_sha256,
            audit_head=await self._surroundings.audit_head(),
            engines=engines.counters(),
        )
        now = Moment(
            wall_ns=self._clock.wall_ns(),
            mono_ns=int(self._clock.monotonic_s() * 1_000_000_000),
            boot_id=self._surroundings.boot_id,
        )
        made = make(before.chain, window, now, context, self._identity.key)

        def store(connection: sqlite3.Connection) -> None:
            made.store(connection)
            store_counts(connection, engines, readings)

        await self._transact(store)
        self._surroundings.engines.sealed(readings)
        await asyncio.to_thread(self._write_note, made.row)
        for listener in self._listeners:
            listener()
        return made.row

    def _write_note(self, row: ManifestRow) -> None:
        try:
            write_note(self._note_file, Note(row.epoch, row.seq, row.sha256))
        except OSError as error:
            # The manifest is stored; only a replaced ledger would be found one later.
            log.warning("manifest_note_failed", extra={"reason": str(error)})

    async def _transact(self, run: Callable[[sqlite3.Connection], R]) -> R:
        return await asyncio.wrap_future(self._writer.transact(run))


def _told(row: ManifestRow) -> dict[str, object]:
    return {
        "manifest": f"{row.epoch}/{row.seq}",
        "records": row.requests,
        "sha256": row.sha256,
    }
