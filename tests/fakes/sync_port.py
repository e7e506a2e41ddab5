"""Synchronisation for tests of the admin API and the commands: it answers as it is told."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from appliance.domain.errors import CrossLogicError
from appliance.wire.sync import (
    DocumentOutcome,
    EntitlementStatus,
    SignedRequest,
    SyncReport,
    SyncStatus,
)

STATUS = SyncStatus(
    mode="online",
    state="connected",
    appliance_id="apl_000000000000000000000001",
    epoch=1,
    sealed_through=9,
    accepted_through=7,
    lag_manifests=2,
    lag_age_s=412,
    control_plane_url="https://control.example",
    control_plane_key_id="ab" * 32,
    last_contact="2026-11-22T19:22:03.250Z",
    last_error="",
    alarm="",
    alarm_detail="",
    frozen_reason="",
    next_step="",
    price_book_version=3,
    plans_version=0,
)
ENTITLEMENT = EntitlementStatus(
    stage="warning",
    entitlement_id="ent_1",
    customer="Acme",
    not_before="2026-11-01T00:00:00.000Z",
    expires="2027-11-01T00:00:00.000Z",
    lease_ends="2026-12-01T00:00:00.000Z",
    freezes_at="2026-12-15T00:00:00.000Z",
    throttles_at="",
    days_left=8,
    grace_days=14,
    gpu_count=4,
    gpus=2,
    reserved_tokens_per_s=0,
    models=[],
    throttle_tokens_per_s=0,
    exceeded=[],
    message="The lease ends in 8 days, at 2026-12-01T00:00:00.000Z.",
    next_step="Renew it.",
)


@dataclass
class FixedSync:
    """`asked` is every call with what it was given; `error` is raised by each that may be refused.

    `frozen`: raised by `check_changes`.
    """

    now: SyncStatus = STATUS
    lease: EntitlementStatus = ENTITLEMENT
    documents: list[DocumentOutcome] = field(default_factory=list)
    asked: list[tuple[object, ...]] = field(default_factory=list)
    error: CrossLogicError | None = None
    frozen: CrossLogicError | None = None

    async def status(self) -> SyncStatus:
        return self.now

    async def exchange(self) -> SyncReport:
        self._ask("exchange")
        return self._report(2)

    async def enrol(self, url: str, code: str) -> SyncStatus:
        self._ask("enrol", url, code)
        return self.now

    async def request(self, *, new_key: bool) -> SignedRequest:
        self._ask("request", new_key)
        return SignedRequest(
            appliance_id=self.now.appliance_id, epoch=1, key_id="cd" * 32, envelope='{"payload":""}'
        )

    async def bring(
        self, envelopes: Sequence[bytes], control_plane_key: str | None = None
    ) -> SyncReport:
        self._ask("bring", tuple(envelopes), control_plane_key)
        return self._report(0)

    async def entitlement(self) -> EntitlementStatus:
        return self.lease

    async def install(
        self, envelope: bytes, control_plane_key: str | None = None
    ) -> EntitlementStatus:
        self._ask("install", envelope, control_plane_key)
        return self.lease

    def check_changes(self) -> None:
        if self.frozen is not None:
            raise self.frozen

    def _ask(self, *what: object) -> None:
        self.asked.append(what)
        if self.error is not None:
            raise self.error

    def _report(self, sent: int) -> SyncReport:
        refused = any(each.outcome == "refused" for each in self.documents)
        return SyncReport(
            ok=not refused,
            sent_manifests=sent,
            documents=self.documents,
            status=msgspec.structs.replace(self.now),
        )
