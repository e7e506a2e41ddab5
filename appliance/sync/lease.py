"""What an entitlement allows at a moment: pure, over time.

A lease runs until the later of the entitlement's `lease_until` and that of the newest receipt, and
never beyond `expires`. Then come, each with its own countdown:

    active → warning (the last days of the lease) → grace (`grace_days`) → frozen → throttled

- frozen: what would make the site larger is refused; serving and metering go on as ever.
- throttled: only where the entitlement says so, and only after a week of being frozen.
- Nobody is frozen or throttled unwarned: a site that was switched off over the end of its lease, or
  whose clock jumped, first shows the warning for a day, and a week more before it is throttled.
- Moments are of a clock that does not go back (`Basis.now_ns`): turning the wall clock back gains
  nothing. A new signed document tells a moment that has certainly come, so it sets that clock
  anew: a clock that ran ahead by mistake is forgiven when the vendor is heard again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from appliance.domain.clock import iso
from appliance.manifests.documents import Entitlement
from appliance.sync.moments import moment_ns

SECOND_NS: Final = 1_000_000_000
DAY_NS: Final = 86_400 * SECOND_NS
WARNING_NS: Final = 10 * DAY_NS  # the last part of a lease
WARNED_NS_MIN: Final = DAY_NS  # shown before anything is refused
FROZEN_NS: Final = 7 * DAY_NS  # before the throttle


class Stage(StrEnum):
    NONE = "none"  # no entitlement is installed, or it has not begun
    ACTIVE = "active"
    WARNING = "warning"
    GRACE = "grace"
    FROZEN = "frozen"
    THROTTLED = "throttled"


REFUSES: Final = frozenset({Stage.FROZEN, Stage.THROTTLED})


@dataclass(frozen=True, slots=True)
class Basis:
    """What is remembered beside the documents.

    `seen_ns`: the latest wall time seen since the newest signed document was taken.
    `warned_ns`: since when this lease's end has been shown; None: not yet.
    `receipt_lease`: `lease_until` of the newest receipts, "" when none came.
    """

    seen_ns: int = 0
    warned_ns: int | None = None
    receipt_lease: str = ""

    def now_ns(self, wall_ns: int) -> int:
        return max(wall_ns, self.seen_ns)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the site stands. Moments are wall time; None where there is no such moment."""

    stage: Stage
    entitlement: Entitlement | None = None
    lease_ends_ns: int | None = None
    freezes_ns: int | None = None
    throttles_ns: int | None = None  # None also where the entitlement does not throttle
    now_ns: int = 0

    @property
    def frozen(self) -> bool:
        return self.stage in REFUSES

    @property
    def throttle_tokens_per_s(self) -> int | None:
        """The tokens a second that are left to the whole site; None: no throttle."""
        if self.stage is not Stage.THROTTLED or self.entitlement is None:
            return None
        return self.entitlement.throttle_tokens_per_s

    @property
    def days_left(self) -> int | None:
        """Whole days until the next stage begins; None where none follows."""
        following = self._next_ns()
        return None if following is None else max(0, following - self.now_ns) // DAY_NS

    def _next_ns(self) -> int | None:
        match self.stage:
            case Stage.ACTIVE | Stage.WARNING:
                return self.lease_ends_ns
            case Stage.GRACE:
                return self.freezes_ns
            case Stage.FROZEN:
                return self.throttles_ns
            case _:
                return None


def in_force(entitlements: Sequence[Entitlement], now_ns: int) -> Entitlement | None:
    """Of the installed ones, in the order of their installation, the last that has begun.

    One that begins later may be brought early: until then the one before stays in force.
    """
    begun = [each for each in entitlements if moment_ns(each.not_before) <= now_ns]
    if begun:
        return begun[-1]
    return entitlements[-1] if entitlements else None


def lease_ends_ns(entitlement: Entitlement, receipt_lease: str) -> int:
    """The later of both leases, and never beyond the entitlement's own end."""
    lease = moment_ns(entitlement.lease_until or entitlement.expires)
    if receipt_lease:
        lease = max(lease, moment_ns(receipt_lease))
    return min(lease, moment_ns(entitlement.expires))


def assess(entitlements: Sequence[Entitlement], basis: Basis, wall_ns: int) -> Standing:
    """Where the site stands at `wall_ns`."""
    now_ns = basis.now_ns(wall_ns)
    entitlement = in_force(entitlements, now_ns)
    if entitlement is None or moment_ns(entitlement.not_before) > now_ns:
        return Standing(Stage.NONE, entitlement, now_ns=now_ns)
    ends = lease_ends_ns(entitlement, basis.receipt_lease)
    # Never before the warning was shown for a day. Not shown yet: it is shown from now on.
    warned = now_ns if basis.warned_ns is None else min(basis.warned_ns, now_ns)
    freezes = max(ends + entitlement.grace_days * DAY_NS, warned + WARNED_NS_MIN)
    throttles = freezes + FROZEN_NS if entitlement.throttle_tokens_per_s > 0 else None
    if now_ns < ends - WARNING_NS:
        stage = Stage.ACTIVE
    elif now_ns < ends:
        stage = Stage.WARNING
    elif now_ns < freezes:
        stage = Stage.GRACE
    elif throttles is None or now_ns < throttles:
        stage = Stage.FROZEN
    else:
        stage = Stage.THROTTLED
    return Standing(stage, entitlement, ends, freezes, throttles, now_ns)


def remember(standing: Standing, basis: Basis, wall_ns: int) -> Basis:
    """The basis after the site stood so: how far its clock was, and since when it warns."""
    warns = standing.stage not in {Stage.NONE, Stage.ACTIVE}
    warned_ns = basis.warned_ns
    if not warns:
        warned_ns = None
    elif warned_ns is None:
        warned_ns = standing.now_ns
    return Basis(basis.now_ns(wall_ns), warned_ns, basis.receipt_lease)


def heard(basis: Basis, signed_at: str, wall_ns: int, lease_until: str = "") -> Basis:
    """The basis after a new document of the control plane, signed at `signed_at`, was taken.

    The clock's height is set anew: what was seen before is forgotten, the signed moment counts.
    A lease only ever grows longer.
    """
    leases = [lease for lease in (basis.receipt_lease, lease_until) if lease]
    return Basis(
        seen_ns=max(wall_ns, moment_ns(signed_at)),
        warned_ns=basis.warned_ns,
        receipt_lease=max(leases, key=moment_ns, default=""),
    )


def words(standing: Standing) -> tuple[str, str]:
    """What a person is told, and what to do about it; ("", "") when all is well."""
    renew = "Renew it: let the site reach the control plane, or carry a bundle there and back."
    entitlement = standing.entitlement
    if entitlement is None:
        return "", ""
    match standing.stage:
        case Stage.NONE:
            return f"The entitlement begins at {entitlement.not_before}.", ""
        case Stage.WARNING:
            return f"The lease ends in {_days(standing)}, at {_at(standing.lease_ends_ns)}.", renew
        case Stage.GRACE:
            return (
                f"The lease has ended. In {_days(standing)}, at {_at(standing.freezes_ns)},"
                " management changes are refused.",
                renew,
            )
        case Stage.FROZEN if standing.throttles_ns is not None:
            return (
                f"The lease has ended: management changes are refused. In {_days(standing)}, at"
                f" {_at(standing.throttles_ns)}, the site is slowed down to"
                f" {entitlement.throttle_tokens_per_s:,} tokens a second.",
                renew,
            )
        case Stage.FROZEN:
            return (
                "The lease has ended: management changes are refused. Serving goes on.",
                renew,
            )
        case Stage.THROTTLED:
            return (
                "The lease has ended: management changes are refused, and the site is slowed down"
                f" to {entitlement.throttle_tokens_per_s:,} tokens a second.",
                renew,
            )
        case _:
            return "", ""


def _days(standing: Standing) -> str:
    days = standing.days_left or 0
    return "less than a day" if days == 0 else "1 day" if days == 1 else f"{days} days"


def _at(moment: int | None) -> str:
    return "" if moment is None else iso(moment)
