"""How a site stands with its control plane, in one word and in figures: pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from appliance.domain.clock import iso
from appliance.manifests.archive import SyncState
from appliance.security.signing import PublicKey
from appliance.wire.sync import DocumentOutcome, SyncReport, SyncStatus, SyncWord

_SECOND_NS: Final = 1_000_000_000
# An exchange is late only after this many intervals: one lost packet is no state.
_INTERVALS: Final = 3


@dataclass(frozen=True, slots=True)
class Books:
    """What is read of ledger.db for the status, at one moment."""

    state: SyncState
    epoch: int
    sealed_through: int
    unreceipted: int
    oldest_unreceipted_ns: int | None
    price_book_version: int
    plans_version: int


def word(
    state: SyncState, mode: Literal["online", "offline"], interval_s: float, now_ns: int
) -> SyncWord:
    """frozen before all, because it needs a person; then never enrolled, offline, connected."""
    if state.frozen:
        return "frozen"
    if not state.control_plane_key_pem:
        return "never enrolled"
    contact_ns = state.last_contact_ns
    late_ns = round(interval_s * _SECOND_NS) * _INTERVALS
    if mode == "offline" or state.last_error or contact_ns is None or now_ns - contact_ns > late_ns:
        return "offline"
    return "connected"


def status(
    books: Books,
    *,
    mode: Literal["online", "offline"],
    interval_s: float,
    url: str,
    now_ns: int,
) -> SyncStatus:
    state = books.state
    pem = state.control_plane_key_pem
    oldest = books.oldest_unreceipted_ns
    return SyncStatus(
        mode=mode,
        state=word(state, mode, interval_s, now_ns),
        appliance_id=state.appliance_id,
        epoch=books.epoch,
        sealed_through=books.sealed_through,
        accepted_through=state.accepted_through if state.epoch == books.epoch else 0,
        lag_manifests=books.unreceipted,
        lag_age_s=0 if oldest is None else max(0, now_ns - oldest) // _SECOND_NS,
        control_plane_url=url,
        control_plane_key_id=PublicKey.from_pem(pem).key_id if pem else "",
        last_contact=None if state.last_contact_ns is None else iso(state.last_contact_ns),
        last_error=state.last_error,
        alarm=state.alarm,
        alarm_detail=state.alarm_detail,
        frozen_reason=state.frozen_reason,
        next_step=state.next_step,
        price_book_version=books.price_book_version,
        plans_version=books.plans_version,
    )


def report(sent: int, outcomes: Sequence[DocumentOutcome], after: SyncStatus) -> SyncReport:
    """What an exchange, or what was carried by hand, did; documents taken before are left out."""
    refused = any(each.outcome == "refused" for each in outcomes)
    return SyncReport(
        ok=not refused and not after.alarm and not after.frozen_reason,
        sent_manifests=sent,
        documents=[each for each in outcomes if each.outcome != "unchanged"],
        status=after,
    )
