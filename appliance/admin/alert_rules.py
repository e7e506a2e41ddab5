"""What wants an administrator: pure rules over what is observed of the site.

A rule yields Findings. A finding's id names its cause, so the same cause is the same alert for as
long as it lasts. What each means is in alert_kinds.py, from where on in the settings.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final

from appliance.admin.alert_rules_fleet import deployments, gpus, limits, nodes, reservations
from appliance.admin.findings import Finding, Rule, found
from appliance.admin.observed import Observed
from appliance.wire.stream import AlertSeverity

_BACKUP_LATE: Final = 2.0  # so many times its interval
_NEVER_S: Final = 7 * 86_400.0  # a site that makes none by itself


def books(seen: Observed) -> Iterator[Finding]:
    if not seen.ledger_healthy:
        yield found(
            *("fatal", "ledger", "ledger", "unwritable"),
            "The ledger cannot be written: requests are refused, so that none goes uncounted.",
            "cic doctor",
        )
    if seen.seal_error:
        text = f"Records are not sealed into manifests: {seen.seal_error}"
        yield found("error", "ledger", "manifests", "seal", text, "cic manifest list")


def syncing(seen: Observed) -> Iterator[Finding]:
    sync = seen.sync
    if sync is None or sync.state == "never enrolled":
        return
    if sync.alarm:
        text = f"The control plane disagrees: {sync.alarm}. {sync.alarm_detail}".strip()
        yield found("fatal", "sync", "sync", "alarm", text, sync.next_step or "cic sync status")
    if sync.lag_age_s > seen.thresholds.sync_lag_s:
        days = sync.lag_age_s / 86_400
        yield found(
            *("warning", "sync", "sync", "lag"),
            f"{sync.lag_manifests} manifests wait for the control plane, the oldest for"
            f" {days:.1f} days.",
            sync.next_step or "cic bundle export --to /media/stick",
        )


def entitlement(seen: Observed) -> Iterator[Finding]:
    licence = seen.entitlement
    if licence is None or licence.stage == "none":
        return
    stages: Mapping[str, AlertSeverity] = {
        "warning": "warning",
        "grace": "error",
        "frozen": "error",
        "throttled": "fatal",
    }
    severity = stages.get(licence.stage)
    if (
        severity is None
        and licence.days_left is not None
        and licence.days_left <= seen.thresholds.entitlement_days
    ):
        severity = "warning"
    if severity is not None:
        text = f"The entitlement is {licence.stage}. {licence.message}".strip()
        what = licence.stage
        yield found(severity, "entitlement", "entitlement", what, text, "cic entitlement show")
    for each in licence.exceeded:
        ref = each.what
        yield found("error", "entitlement", ref, "exceeded", each.message, each.next_step)


def certificates(seen: Observed) -> Iterator[Finding]:
    """Those of nodes renew themselves, or their node is silent."""
    days = seen.thresholds.certificate_days
    for each in seen.certificates:
        soon = each.kind == "endpoint" and each.days_left is not None and each.days_left <= days
        state = "ending" if each.state == "good" and soon else each.state
        if each.kind == "node" or state not in ("ending", "expired"):
            continue
        severity: AlertSeverity = "error" if state == "expired" else "warning"
        text = f"The certificate of {each.name} is {state}: {each.expires_at}."
        yield found(severity, "certificate", each.name, state, text, each.renewal)


def disks(seen: Observed) -> Iterator[Finding]:
    least = seen.thresholds.disk_free_bytes
    for disk in seen.disks:
        share = 100 * disk.free_bytes / disk.total_bytes if disk.total_bytes else 100.0
        if disk.free_bytes < least or share < seen.thresholds.disk_free_percent:
            severity: AlertSeverity = "error" if disk.free_bytes < least / 4 else "warning"
            yield found(
                *(severity, "disk", disk.path, "full"),
                f"The disk of {disk.path} has {disk.free_bytes / 1024**3:.1f} GiB free"
                f" ({share:.0f}%).",
                "Make room: old backups, models that nobody serves, logs.",
            )


def memory(seen: Observed) -> Iterator[Finding]:
    """Of the appliance's own host; a node's memory is among its faults."""
    free, total = seen.host.memory_free_bytes, seen.host.memory_total_bytes
    if free is None or not total:
        return
    share = 100 * free / total
    if share < seen.thresholds.memory_free_percent:
        severity: AlertSeverity = (
            "error" if share < seen.thresholds.memory_free_percent / 2 else ("warning")
        )
        yield found(
            *(severity, "memory", "host", "low"),
            f"{free / 1024**3:.1f} of {total / 1024**3:.1f} GiB of this host's memory are left.",
            "See what takes it: `ps aux --sort -rss | head`.",
        )


def clock(seen: Observed) -> Iterator[Finding]:
    most_s, host = seen.thresholds.clock_offset_s, seen.host
    if abs(seen.clock_jump_s) >= most_s:
        way = "ahead" if seen.clock_jump_s > 0 else "back"
        yield found(
            *("warning", "clock", "clock", "jump"),
            f"The host's clock went {abs(seen.clock_jump_s):.0f} s {way}.",
            "Look at its time service: timedatectl status.",
        )
    off = host.clock_off_s is not None and host.clock_off_s > most_s
    if host.clock_kept is False or (host.clock_kept and off):
        text = f"This host's clock may be off by {host.clock_off_s or 0:.1f} s."
        if host.clock_kept is False:
            text = "Nothing keeps this host's clock right."
        step = "Let chrony, ntpd or systemd-timesyncd keep it, from a time server of the site."
        yield found("warning", "clock", "clock", "offset", text, step)


def backups(seen: Observed) -> Iterator[Finding]:
    known, every_s = seen.backups, seen.backup_every_s
    if known is None:
        return
    if known.last_error and every_s:
        text = f"The last backup failed: {known.last_error}"
        yield found("error", "backup", "backup", "failed", text, "cic backup create")
    newest = known.backups[0] if known.backups else None
    if newest is None:
        age_s = seen.site_age_s
        if age_s is not None and age_s > (_BACKUP_LATE * every_s or _NEVER_S):
            text = f"Of this site there is no backup in {known.folder}."
            yield found("error", "backup", "backup", "never", text, "cic backup create")
        return
    most_s = seen.thresholds.backup_age_s or _BACKUP_LATE * every_s
    age_s = (seen.now - datetime.fromisoformat(newest.made_at)).total_seconds()
    if most_s and age_s > most_s:
        text = f"The newest backup is {age_s / 86_400:.1f} days old."
        yield found("warning", "backup", "backup", "late", text, "cic backup create")
    if every_s and not known.key_kept and newest.protection == "key":
        text = "Nothing but this home has the key of its backups."
        step = "cic backup key --to /media/stick/backup-key"
        yield found("warning", "backup", "backup", "key", text, step)


def notifications(seen: Observed) -> Iterator[Finding]:
    """A channel that cannot be reached is told on the others."""
    for channel in seen.channels:
        step = f"cic notification channel test {channel.name}"
        if channel.state == "active" and channel.failing_since is not None:
            text = (
                f"The notification channel {channel.name} fails since {channel.failing_since}:"
                f" {channel.last_error}"
            )
            yield found("error", "notification", channel.id, "failing", text, step)


RULES: Final[tuple[Rule, ...]] = (
    nodes,
    gpus,
    deployments,
    reservations,
    limits,
    books,
    syncing,
    entitlement,
    certificates,
    disks,
    memory,
    clock,
    backups,
    notifications,
)


def findings(seen: Observed, rules: Iterable[Rule] = RULES) -> dict[str, Finding]:
    """Everything that is the case, by its id."""
    return {each.id: each for rule in rules for each in rule(seen)}
