"""Manifests for tests of the admin API and the commands: a real ledger, sealed without a sealer."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from appliance.manifests.lines import Salts
from appliance.metering.reader import LedgerReader
from appliance.sync.manifest_verification import ManifestVerifier
from appliance.sync.manifest_view import ManifestView
from appliance.sync.proofs import Proofs
from appliance.wire.manifests import (
    Manifest,
    ManifestKey,
    ManifestShown,
    ManifestVerification,
    Sealing,
    SealingStatus,
    UsageProof,
)
from tests.fakes.sealed_site import SealedSite


@dataclass
class SealedPort:
    """`site.record(3)` lets there be something to seal."""

    site: SealedSite
    rotated: int = 0

    @property
    def view(self) -> ManifestView:
        return ManifestView(self.site.home.ledger_file)

    async def rows(self, epoch: int, seq: int, count_max: int) -> list[Manifest]:
        return self.view.rows(epoch, seq, count_max)

    async def show(self, ref: str, tenant: str | None) -> ManifestShown:
        return self.view.show(ref, tenant)

    async def status(self) -> SealingStatus:
        return self.view.status("")

    async def key(self, ref: str | None = None) -> ManifestKey:
        return self.view.key(ref)

    async def seal(self) -> Sealing:
        row = self.site.seal()
        return self.view.sealing([] if row is None else [row])

    async def prove(self, ref: str) -> UsageProof:
        proofs = Proofs(self.site.home.ledger_file, Salts(self.site.identity.salts))
        return proofs.prove(ref)

    async def rotate_key(self) -> ManifestKey:
        self.rotated += 1
        return self.view.key()

    async def verify(self) -> AsyncIterator[ManifestVerification]:
        reader = LedgerReader(self.site.home.ledger_file)
        salts = Salts(self.site.identity.salts)
        verifier = ManifestVerifier(
            *(reader, salts, lambda _head: True, None), rest=lambda _worked_s: None
        )
        for step in verifier.run():
            yield step
