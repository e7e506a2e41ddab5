"""Sealed manifests of a running site: sealing on demand, and reading beside the traffic."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

from appliance.domain.clock import Clock
from appliance.manifests.lines import Salts
from appliance.metering.reader import LedgerReader
from appliance.sync.head_note import read_note
from appliance.sync.manifest_verification import ManifestVerifier
from appliance.sync.manifest_view import ManifestView
from appliance.sync.proofs import Proofs
from appliance.sync.sealer import Sealer
from appliance.wire.manifests import (
    Manifest,
    ManifestKey,
    ManifestShown,
    ManifestVerification,
    Sealing,
    SealingStatus,
    UsageProof,
)

_TOLD_EVERY_S: Final = 0.2  # progress of a verification


class ManifestService:
    """What the admin API asks of sealing. Used on the event loop; the disk is read in threads."""

    def __init__(
        self,
        sealer: Sealer,
        ledger_file: Path,
        note_file: Path,
        audit_has: Callable[[str], bool],
        clock: Clock,
    ) -> None:
        self._sealer = sealer
        self._reader = LedgerReader(ledger_file)
        self._proofs = Proofs(ledger_file, Salts(sealer.identity.salts))
        self._view = ManifestView(ledger_file)
        self._note_file = note_file
        self._audit_has = audit_has
        self._clock = clock

    async def rows(self, epoch: int, seq: int, count_max: int) -> list[Manifest]:
        return await asyncio.to_thread(self._view.rows, epoch, seq, count_max)

    async def show(self, ref: str, tenant: str | None) -> ManifestShown:
        return await asyncio.to_thread(self._view.show, ref, tenant)

    async def status(self) -> SealingStatus:
        return await asyncio.to_thread(self._view.status, self._sealer.last_error)

    async def key(self, ref: str | None = None) -> ManifestKey:
        return await asyncio.to_thread(self._view.key, ref)

    async def seal(self) -> Sealing:
        made = await self._sealer.seal()
        return await asyncio.to_thread(self._view.sealing, made)

    async def prove(self, ref: str) -> UsageProof:
        return await asyncio.to_thread(self._proofs.prove, ref)

    async def rotate_key(self) -> ManifestKey:
        await self._sealer.rotate()
        return await self.key()

    async def verify(self) -> AsyncIterator[ManifestVerification]:
        """Progress a few times a second, then the verdict."""
        verifier = ManifestVerifier(
            self._reader,
            Salts(self._sealer.identity.salts),
            self._audit_has,
            read_note(self._note_file),
        )
        steps = verifier.run()
        told_s = self._clock.monotonic_s()
        while (step := await asyncio.to_thread(next, steps, None)) is not None:
            now_s = self._clock.monotonic_s()
            if step.done or now_s - told_s >= _TOLD_EVERY_S:
                told_s = now_s
                yield step
