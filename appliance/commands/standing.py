"""How the site stands with its control plane and its licence, as commands show it to people."""

from appliance.commands.output import print_fields
from appliance.wire.sync import EntitlementStatus, SyncStatus


def print_standing(found: SyncStatus) -> None:
    """For people; what is not there is left out."""
    rows: list[tuple[str, object]] = [
        ("state", found.state),
        ("appliance", found.appliance_id),
        ("control plane", found.control_plane_url),
        ("mode", found.mode),
        ("last contact", found.last_contact),
        ("epoch", found.epoch),
        ("sealed through", found.sealed_through),
        ("accepted through", found.accepted_through),
        ("not receipted", lag(found)),
    ]
    rows += [
        (name, value)
        for name, value in (
            ("last error", found.last_error),
            ("alarm", found.alarm and f"{found.alarm}: {found.alarm_detail}"),
            ("frozen", found.frozen_reason),
            ("what to do", found.next_step),
        )
        if value
    ]
    print_fields(rows)


def lag(found: SyncStatus) -> str:
    """`2 manifests, the oldest 7 min old`."""
    if found.lag_manifests == 0:
        return "nothing"
    manifests = "1 manifest" if found.lag_manifests == 1 else f"{found.lag_manifests:,} manifests"
    return f"{manifests}, the oldest {_age(found.lag_age_s)} old"


def _age(age_s: int) -> str:
    for unit, length_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if age_s >= 2 * length_s:
            return f"{age_s // length_s:,} {unit}"
    return f"{age_s} s"


def print_licence(found: EntitlementStatus) -> None:
    """For people; what is not there is left out."""
    rows: list[tuple[str, object]] = [
        ("stage", found.stage),
        ("entitlement", found.entitlement_id),
        ("customer", found.customer),
        ("begins", found.not_before),
        ("expires", found.expires),
        ("lease ends", found.lease_ends),
        ("countdown", countdown(found)),
        ("management freezes", found.freezes_at),
        ("throttles", found.throttles_at),
        ("GPUs", _of(found.gpus, found.gpu_count)),
        ("reserved tokens/s", found.reserved_tokens_per_s or "not limited"),
        ("models", ", ".join(found.models) or "all"),
    ]
    if not found.entitlement_id:
        rows = [("stage", found.stage)]
    rows += [("beyond it", f"{each.message} {each.next_step}") for each in found.exceeded]
    if found.message:
        rows.append(("note", f"{found.message} {found.next_step}".rstrip()))
    print_fields(rows)


def countdown(found: EntitlementStatus) -> str:
    """`8 days to the end of the lease`."""
    if found.days_left is None:
        return ""
    days = "1 day" if found.days_left == 1 else f"{found.days_left:,} days"
    following = {
        "active": "the end of the lease",
        "warning": "the end of the lease",
        "grace": "the freezing of management changes",
        "frozen": "the throttle",
    }
    return f"{days} to {following.get(found.stage, 'the next stage')}"


def _of(have: int, entitled: int) -> str:
    return f"{have} of {entitled}" if entitled else f"{have}, not limited"
