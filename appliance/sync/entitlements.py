"""Which entitlement a site takes, and what of the site goes beyond it: pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from appliance.manifests.documents import Entitlement
from appliance.sync.errors import EntitlementRefused
from appliance.sync.moments import moment_ns

_KEEPS: Final = "What is installed stays in force."
_GRACE_DAYS_MAX: Final = 3_650


@dataclass(frozen=True, slots=True)
class SiteSize:
    """What of a site an entitlement bounds."""

    gpus: int = 0
    reserved_tokens_per_s: int = 0
    models: Sequence[str] = ()  # names of the models that are deployed


@dataclass(frozen=True, slots=True)
class Excess:
    """The site has more than it is entitled to: what, and what to do about it."""

    what: str  # gpus, reserved_tokens_per_s, models
    message: str
    next_step: str


def check_acceptable(
    new: Entitlement, installed: Sequence[Entitlement], appliance_id: str, key_ids: Sequence[str]
) -> None:
    """Raises EntitlementRefused unless it is for this site and not older than what is installed.

    `key_ids`: every key this appliance ever signed with, by its own rotations and grants.
    """
    for text in (new.not_before, new.expires, new.issued_at, new.lease_until or new.expires):
        moment_ns(text)
    if new.grace_days > _GRACE_DAYS_MAX:
        raise EntitlementRefused(
            f"The entitlement has a grace of {new.grace_days} days.",
            next_step=f"Ask the vendor for a sound one. {_KEEPS}",
        )
    if new.appliance_id != appliance_id:
        raise EntitlementRefused(
            f"The entitlement is for the appliance {new.appliance_id}, this is {appliance_id}.",
            next_step=f"Bring the one of this site. {_KEEPS}",
        )
    if new.appliance_key_id not in key_ids:
        raise EntitlementRefused(
            "The entitlement is for another signing key than this appliance's.",
            next_step="Enrol this site again (`cic sync request --out FILE`) and ask the vendor for"
            f" an entitlement for its key. {_KEEPS}",
        )
    if not installed:
        return
    newest = installed[-1]
    if new.revocation_epoch < newest.revocation_epoch:
        raise EntitlementRefused(
            "The entitlement was revoked: a later one is installed.", next_step=_KEEPS
        )
    if moment_ns(new.issued_at) < moment_ns(newest.issued_at):
        raise EntitlementRefused(
            f"The entitlement is older ({new.issued_at}) than the installed one"
            f" ({newest.issued_at}).",
            next_step=_KEEPS,
        )


def excesses(entitlement: Entitlement, size: SiteSize) -> list[Excess]:
    """What goes beyond the entitlement. Limits of 0, and no models, bound nothing."""
    found = []
    if 0 < entitlement.gpu_count < size.gpus:
        found.append(
            Excess(
                "gpus",
                f"The nodes of this site have {size.gpus} GPUs; {entitlement.gpu_count} are"
                " entitled.",
                "Forget a node with `cic node delete NODE`, or ask the vendor for more.",
            )
        )
    if 0 < entitlement.reserved_tokens_per_s < size.reserved_tokens_per_s:
        found.append(
            Excess(
                "reserved_tokens_per_s",
                f"{size.reserved_tokens_per_s:,} tokens a second are reserved;"
                f" {entitlement.reserved_tokens_per_s:,} are entitled.",
                "Release capacity, or ask the vendor for more.",
            )
        )
    strangers = sorted(set(size.models) - set(entitlement.models)) if entitlement.models else []
    if strangers:
        found.append(
            Excess(
                "models",
                f"Not entitled: {', '.join(strangers)}.",
                "Delete the deployments of these models, or ask the vendor for them.",
            )
        )
    return found
