"""The admin API's messages about the control plane and the entitlement.

GET    /v1/sync                SyncStatus
POST   /v1/sync/now            SyncReport           one exchange, now
POST   /v1/sync/enrol          Enrol -> SyncStatus
POST   /v1/sync/request        RequestMake -> SignedRequest    to be carried by hand
POST   /v1/documents           DocumentsBring -> SyncReport    what was carried by hand
GET    /v1/entitlement         EntitlementStatus
POST   /v1/entitlement         EntitlementInstall -> EntitlementStatus
"""

from typing import Literal

import msgspec

SyncMode = Literal["online", "offline"]
SyncWord = Literal["never enrolled", "connected", "offline", "frozen"]
StageWord = Literal["none", "active", "warning", "grace", "frozen", "throttled"]
# unchanged: taken before; superseded: something newer was taken before.
Outcome = Literal["applied", "unchanged", "superseded", "refused"]


class _Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class SyncStatus(_Message, frozen=True):
    """How the site stands with its control plane. Texts are "" where there is nothing to say."""

    mode: SyncMode
    state: SyncWord
    appliance_id: str
    epoch: int
    sealed_through: int  # the last manifest of this epoch
    accepted_through: int  # of it, what a receipt covers
    lag_manifests: int  # sealed, and not receipted
    lag_age_s: int  # since the oldest of them was sealed; 0 when there is none
    control_plane_url: str
    control_plane_key_id: str  # "" until it is pinned
    last_contact: str | None
    last_error: str
    alarm: str  # a word of `Alarm`; stays until a receipt fits again
    alarm_detail: str
    frozen_reason: str
    next_step: str
    price_book_version: int  # 0: none came yet
    plans_version: int


class DocumentOutcome(_Message, frozen=True):
    """What became of one signed document."""

    kind: str
    document_id: str
    outcome: Outcome
    message: str = ""
    next_step: str = ""


class SyncReport(_Message, frozen=True):
    """What one exchange, or what was brought by hand, did. `ok`: nothing was refused."""

    ok: bool
    sent_manifests: int
    documents: list[DocumentOutcome]
    status: SyncStatus


class Enrol(_Message, frozen=True):
    url: str
    code: str


class RequestMake(_Message, frozen=True):
    """`new_key`: the site wants to begin a new epoch with a key of its own making."""

    new_key: bool = False


class SignedRequest(_Message, frozen=True):
    """`envelope` is the signed Enrolment, as it is to be written into a file."""

    appliance_id: str
    epoch: int
    key_id: str
    envelope: str


class DocumentsBring(_Message, frozen=True):
    """Envelopes as they were read from a file. `control_plane_key`: PEM, pins it the first time."""

    envelopes: list[str]
    control_plane_key: str | None = None


class EntitlementInstall(_Message, frozen=True):
    envelope: str
    control_plane_key: str | None = None


class Exceeded(_Message, frozen=True):
    what: str
    message: str
    next_step: str


class EntitlementStatus(_Message, frozen=True):
    """The licence and its countdown. Limits of 0, and no models, bound nothing."""

    stage: StageWord
    entitlement_id: str
    customer: str
    not_before: str
    expires: str
    lease_ends: str  # the later of its own lease and the newest receipt's
    freezes_at: str  # management changes are refused from then on
    throttles_at: str  # "" where the entitlement does not throttle
    days_left: int | None  # until the next stage
    grace_days: int
    gpu_count: int
    gpus: int  # that the nodes have
    reserved_tokens_per_s: int
    models: list[str]
    throttle_tokens_per_s: int
    exceeded: list[Exceeded]
    message: str
    next_step: str
