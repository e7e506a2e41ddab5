"""What a receipt changes on this site: pure, from what the site knows of itself.

A receipt has been opened with the pinned key before it comes here, so it is the control plane's own
word; the question is whether it fits. What is looked at, in this order:

1. Another appliance's: refused.
2. Taken before, the same bytes: nothing changes, however often and by whichever way it comes.
3. Of an epoch that is over: superseded. Of one that this site does not know: refused.
4. It says more was accepted than this site ever sealed, or another manifest at a number that this
   site sealed: refused. That is how a restored copy and a clone learn what they are.
5. Its number goes back:
   - signed before the newest one (stick and wire crossed): superseded, nothing changes;
   - signed after it, by more than clocks may differ: the control plane has forgotten manifests (its
     own backup was restored). It is taken, and they are sent again from there: they are still here.
6. It goes on, or repeats the number: taken. The number and the head are remembered, the lease only
   grows, the state is frozen or freed as the receipt says.

A refusal raises an alarm that stays until a receipt fits again; a receipt that is superseded
raises none, for crossing ways are ordinary. Neither takes a manifest out of what is to be sent:
only a receipt that was taken does that.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from appliance.manifests.codes import HELD, Code
from appliance.manifests.documents import Disposition, Receipt
from appliance.sync.lease import SECOND_NS
from appliance.sync.moments import moment_ns

CLOCKS_DIFFER_NS: Final = 300 * SECOND_NS  # two control planes of one database
# What is well, or settles itself: a manifest with another code needs a person.
_WELL: Final = HELD | {Code.ACCEPTED, Code.ALREADY_ACCEPTED, Code.GAP}
# What says that somebody else has reported under this appliance's name, or that this copy is old.
_COPIED: Final = frozenset({Code.FORK, Code.EPOCH_CLOSED})


class Alarm(StrEnum):
    """Why a receipt was refused. Stable: shown, and counted in the metrics."""

    OTHER_APPLIANCE = "other_appliance"
    OTHER_EPOCH = "other_epoch"
    BEYOND_SEALED = "beyond_sealed"
    OTHER_HEAD = "other_head"
    REFUSED_MANIFEST = "refused_manifest"  # the receipt is taken, a manifest was not
    CONTROL_PLANE_WENT_BACK = "control_plane_went_back"  # taken; what it forgot is sent again


@dataclass(frozen=True, slots=True)
class Own:
    """What the site knows of itself. `accepted_through` and `sealed_through` 0: nothing yet."""

    appliance_id: str
    epoch: int
    sealed_through: int
    accepted_through: int = 0
    newest_received_at: str = ""  # of the newest receipt that was taken; "" before the first
    known: frozenset[str] = frozenset()  # SHA-256 of the receipts taken, as far as asked for


@dataclass(frozen=True, slots=True)
class Freeze:
    """The control plane takes no more: why, and what is to be done."""

    reason: str
    next_step: str


@dataclass(frozen=True, slots=True)
class Taken:
    """The receipt fits. `alarm` is raised beside it; None clears what stood there."""

    accepted_through: int
    freeze: Freeze | None
    alarm: Alarm | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Nothing changes. `superseded`: it is older than what was taken; else the very same."""

    superseded: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """The receipt contradicts the site. `freeze` where it tells that this is a copy."""

    alarm: Alarm
    message: str
    next_step: str
    freeze: Freeze | None = None


Verdict = Taken | Unchanged | Refused

GRANT_STEP: Final = (
    "Make a request with `cic sync request --new-key --out FILE` and give it to the vendor; the"
    " epoch grant comes back by wire or with `cic bundle import FILE`. Serving and metering go on."
)
_WRONG_STEP: Final = "Bring the receipt of this site; nothing was changed and nothing is lost."


def numbers_named(receipts: Iterable[Receipt]) -> set[tuple[int, int]]:
    """(epoch, seq) of the manifests whose own hashes are needed to judge these receipts."""
    return {(r.epoch, r.accepted_through) for r in receipts if r.accepted_through > 0}


def judge(
    own: Own, hashes: Mapping[tuple[int, int], str], receipt: Receipt, sha256: str
) -> Verdict:
    """What `receipt` (of that payload's hash) does. `hashes`: the site's own, by (epoch, seq)."""
    if receipt.appliance_id != own.appliance_id:
        return Refused(
            Alarm.OTHER_APPLIANCE,
            f"The receipt is for the appliance {receipt.appliance_id}, this is {own.appliance_id}.",
            _WRONG_STEP,
        )
    if sha256 in own.known:
        return Unchanged(superseded=False)
    if receipt.epoch < own.epoch:
        return Unchanged(superseded=True)
    if receipt.epoch > own.epoch:
        return Refused(
            Alarm.OTHER_EPOCH,
            f"The receipt is of epoch {receipt.epoch}; this site is in epoch {own.epoch}.",
            "Another copy of this site reports under its name, or an epoch grant has not arrived"
            f" yet. {GRANT_STEP}",
            _copied(receipt, f"epoch {receipt.epoch} was begun elsewhere"),
        )
    return _contradiction(own, hashes, receipt) or _in_order(own, receipt)


def _contradiction(
    own: Own, hashes: Mapping[tuple[int, int], str], receipt: Receipt
) -> Refused | None:
    through = receipt.accepted_through
    if through > own.sealed_through:
        return Refused(
            Alarm.BEYOND_SEALED,
            f"The control plane has accepted manifest {through} of this appliance, which has"
            f" sealed only {own.sealed_through}: this site was restored from a backup, or another"
            " copy of it is at work.",
            GRANT_STEP,
            _copied(receipt, f"manifest {through} was reported, and is not known here"),
        )
    # Nothing of this epoch yet: what stands there is no head of ours (the predecessor's, or none).
    if through > 0 and receipt.head_sha256 != hashes.get((receipt.epoch, through)):
        return Refused(
            Alarm.OTHER_HEAD,
            f"The control plane has accepted another manifest {through} of epoch {receipt.epoch}"
            " than the one this site sealed: another copy of it is at work.",
            GRANT_STEP,
            _copied(receipt, f"another manifest {through} was reported"),
        )
    return None


def _in_order(own: Own, receipt: Receipt) -> Taken | Unchanged:
    through = receipt.accepted_through
    newest_ns = moment_ns(own.newest_received_at) if own.newest_received_at else None
    received_ns = moment_ns(receipt.received_at)
    freeze, (alarm, detail) = _freeze(receipt), _of_manifests(receipt)
    if through < own.accepted_through:
        if newest_ns is None or received_ns <= newest_ns + CLOCKS_DIFFER_NS:
            return Unchanged(superseded=True)
        detail = (
            f"The control plane had accepted manifest {own.accepted_through} and now knows"
            f" {through}: what is missing there is sent again."
        )
        return Taken(through, freeze, Alarm.CONTROL_PLANE_WENT_BACK, detail)
    if through == own.accepted_through and newest_ns is not None and received_ns < newest_ns:
        return Unchanged(superseded=True)
    return Taken(through, freeze, alarm, detail)


def _of_manifests(receipt: Receipt) -> tuple[Alarm | None, str]:
    for disposition in receipt.dispositions:
        if disposition.code not in _WELL:
            return Alarm.REFUSED_MANIFEST, _told(disposition)
    return None, ""


def _freeze(receipt: Receipt) -> Freeze | None:
    if not receipt.frozen:
        return None
    copied = next((d for d in receipt.dispositions if d.code in _COPIED), None)
    if copied is not None:
        return Freeze(
            f"The control plane found two copies of this site: {_told(copied)}", GRANT_STEP
        )
    return Freeze(
        "The control plane takes nothing more from this site until a person decides.",
        "Ask the vendor; what is sealed stays here and is sent when the site is freed.",
    )


def _copied(receipt: Receipt, what: str) -> Freeze:
    return _freeze(receipt) or Freeze(
        f"This site is a copy, or was restored from a backup: {what}.", GRANT_STEP
    )


def _told(disposition: Disposition) -> str:
    detail = f": {disposition.detail}" if disposition.detail else ""
    return f"manifest {disposition.epoch}-{disposition.seq} {disposition.code}{detail}"
