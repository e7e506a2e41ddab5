"""What wants an administrator: pure rules over what is observed of the site.

A rule yields Findings. A finding's id names its cause, so the same cause is the same alert for as
long as it lasts.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from appliance.wire.backups import BackupList
from appliance.wire.certificates import SiteCertificate
from appliance.wire.fleet import Node
from appliance.wire.gpu import NodeGpu
from appliance.wire.reservations import Capacity, Reservation
from appliance.wire.stream import AlertSeverity, DeploymentRow, LimitRow, ReplicaRow, SiteRow
from appliance.wire.sync import EntitlementStatus, SyncStatus

# A GPU this close to where it slows itself down, °C.
_HOT: Final = 3
_LIMIT_PERCENT: Final = 90
_LAG_S: Final = 24 * 3_600
_DAYS_LEFT: Final = 14
_DISK_PERCENT: Final = 10
_DISK_BYTES: Final = 2 * 1024**3
_BACKUP_LATE: Final = 2.0  # so many times its interval


@dataclass(frozen=True, slots=True)
class Disk:
    path: str
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Observed:
    """The site at one moment."""

    now: datetime
    site: SiteRow
    nodes: Mapping[str, Node] = field(default_factory=dict)
    gpus: Mapping[str, NodeGpu] = field(default_factory=dict)
    deployments: Mapping[str, DeploymentRow] = field(default_factory=dict)
    replicas: Mapping[str, ReplicaRow] = field(default_factory=dict)
    limits: Mapping[str, LimitRow] = field(default_factory=dict)
    sync: SyncStatus | None = None
    entitlement: EntitlementStatus | None = None
    ledger_healthy: bool = True
    seal_error: str = ""
    certificates: tuple[SiteCertificate, ...] = ()
    disks: tuple[Disk, ...] = ()
    backups: BackupList | None = None
    backup_every_s: float = 0.0
    reservations: tuple[Reservation, ...] = ()
    capacity: tuple[Capacity, ...] = ()
    clock_jump_s: float = 0.0  # since the last look, beyond what passed


@dataclass(frozen=True, slots=True)
class Finding:
    """One cause. `id` is `<subject>:<ref>:<what>`."""

    id: str
    severity: AlertSeverity
    subject: str
    ref: str
    text: str
    next_step: str


Rule = Callable[[Observed], Iterable[Finding]]


def _found(
    severity: AlertSeverity, subject: str, ref: str, what: str, text: str, next_step: str
) -> Finding:
    return Finding(f"{subject}:{ref}:{what}", severity, subject, ref, text, next_step)


def nodes(seen: Observed) -> Iterator[Finding]:
    for node in seen.nodes.values():
        show = f"cic node show {node.name}"
        if node.state in ("unreachable", "failed"):
            severity: AlertSeverity = "error"
            text = f"Node {node.name} is {node.state}. {node.reason}".strip()
            yield _found(severity, "node", node.id, node.state, text, show)
        if node.notice is not None:
            text = f"Node {node.name} will be gone at {node.notice.at} ({node.notice.source})."
            yield _found("warning", "node", node.id, "notice", text, show)
        if node.driver is not None and node.driver.problem:
            text = f"Node {node.name}: {node.driver.problem}"
            yield _found("error", "node", node.id, "driver", text, show)
        for fault in node.health.faults if node.health is not None else ():
            if fault.gpu_uuid is None and node.state != "unreachable":
                worst: AlertSeverity = fault.severity
                text = f"Node {node.name}: {fault.message}"
                yield _found(worst, "node", node.id, fault.code, text, fault.next_step or show)


def gpus(seen: Observed) -> Iterator[Finding]:
    for node in seen.nodes.values():
        if node.health is None or node.state == "unreachable":
            continue
        for fault in node.health.faults:
            if fault.gpu_uuid is None:
                continue
            gpu = seen.gpus.get(fault.gpu_uuid)
            name = f"GPU {gpu.index}" if gpu is not None else f"GPU {fault.gpu_uuid}"
            # Most say themselves which GPU they are about.
            what = fault.message if fault.message.startswith("GPU ") else f"{name}: {fault.message}"
            yield _found(
                *(fault.severity, "gpu", fault.gpu_uuid, fault.code),
                f"{node.name} {what}",
                fault.next_step or f"cic node drain {node.name}",
            )
    for uuid, gpu in seen.gpus.items():
        hot_at, now = gpu.temperature_slowdown, gpu.temperature
        if not gpu.stale and hot_at is not None and now is not None and now >= hot_at - _HOT:
            yield _found(
                *("warning", "gpu", uuid, "hot"),
                f"{gpu.node} GPU {gpu.index} is at {now} °C; it slows down at {hot_at} °C.",
                "Look at the machine's air and fans.",
            )


def deployments(seen: Observed) -> Iterator[Finding]:
    for row in seen.deployments.values():
        show = f"cic deployment show {row.name}"
        if row.state == "failed":
            text = f"{row.name} serves nobody. {row.reason}".strip()
            yield _found("error", "deployment", row.id, "failed", text, show)
        elif row.state == "degraded":
            text = f"{row.name} has {row.replicas_ready} of {row.replicas_wanted} replicas."
            yield _found(
                *("warning", "deployment", row.id, "degraded"), f"{text} {row.reason}".strip(), show
            )
        if row.requests_queued and row.requests_queued >= max(8, row.requests_running):
            yield _found(
                *("warning", "deployment", row.id, "queue"),
                f"{row.requests_queued} requests wait for {row.name}, {row.requests_running} run.",
                f"cic deployment update {row.name} --replicas {row.replicas_wanted + 1}",
            )
    for replica in seen.replicas.values():
        if replica.state == "ejected":
            text = f"A replica of {replica.deployment} on {replica.node} failed {replica.failures}"
            yield _found(
                *("warning", "replica", replica.id, "ejected"),
                f"{text} requests in a row and gets none for now. {replica.reason}".strip(),
                f"cic deployment logs {replica.deployment}",
            )


def reservations(seen: Observed) -> Iterator[Finding]:
    for each in seen.reservations:
        minute = each.attained
        if each.slipping and minute is not None and minute.attained_percent is not None:
            whose = each.tenant + (f"/{each.environment}" if each.environment else "")
            yield _found(
                *("error", "reservation", each.id, "slipping"),
                f"{whose} was promised {each.tokens_per_s:,} tokens/s of {each.model} and got"
                f" {minute.attained_percent:.0f}% of what it was owed in the last minute.",
                f"cic reservation show {each.id}",
            )
    for room in seen.capacity:
        measured = room.measured_tokens_per_s or 0
        if room.promised_tokens_per_s > measured:
            yield _found(
                *("error", "reservation", room.model, "short"),
                f"{room.promised_tokens_per_s:,} tokens/s of {room.model} are promised, its ready"
                f" replicas make {measured:,}.",
                f"cic deployment show {room.model}",
            )


def limits(seen: Observed) -> Iterator[Finding]:
    for row_id, row in seen.limits.items():
        if row.layer == "key" or not row.value or row.limit == "concurrency":
            continue
        percent = 100 * row.used / row.value
        if percent >= _LIMIT_PERCENT:
            words = row.limit.replace("_", " ")
            yield _found(
                *("info", "limit", row_id, "full"),
                f"{row.name}: {percent:.0f}% of its {words} ({row.value:,}) are used.",
                f"cic limit show --tenant {row.name.partition('/')[0]}"
                if row.layer != "global"
                else "cic limit show",
            )


def books(seen: Observed) -> Iterator[Finding]:
    if not seen.ledger_healthy:
        yield _found(
            *("fatal", "ledger", "ledger", "unwritable"),
            "The ledger cannot be written: requests are refused, so that none goes uncounted.",
            "cic doctor",
        )
    if seen.seal_error:
        text = f"Records are not sealed into manifests: {seen.seal_error}"
        yield _found("error", "ledger", "manifests", "seal", text, "cic manifest list")


def syncing(seen: Observed) -> Iterator[Finding]:
    sync = seen.sync
    if sync is None or sync.state == "never enrolled":
        return
    if sync.alarm:
        text = f"The control plane disagrees: {sync.alarm}. {sync.alarm_detail}".strip()
        yield _found("fatal", "sync", "sync", "alarm", text, sync.next_step or "cic sync status")
    if sync.lag_age_s > _LAG_S:
        days = sync.lag_age_s / 86_400
        yield _found(
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
    if severity is None and licence.days_left is not None and licence.days_left <= _DAYS_LEFT:
        severity = "warning"
    if severity is not None:
        text = f"The entitlement is {licence.stage}. {licence.message}".strip()
        what = licence.stage
        yield _found(severity, "entitlement", "entitlement", what, text, "cic entitlement show")
    for each in licence.exceeded:
        ref = each.what
        yield _found("error", "entitlement", ref, "exceeded", each.message, each.next_step)


def certificates(seen: Observed) -> Iterator[Finding]:
    for each in seen.certificates:
        if each.kind == "node" or each.state not in ("ending", "expired"):
            continue  # those of nodes renew themselves, or their node is silent
        severity: AlertSeverity = "error" if each.state == "expired" else "warning"
        text = f"The certificate of {each.name} is {each.state}: {each.expires_at}."
        yield _found(severity, "certificate", each.name, each.state, text, each.renewal)


def disks(seen: Observed) -> Iterator[Finding]:
    for disk in seen.disks:
        share = 100 * disk.free_bytes / disk.total_bytes if disk.total_bytes else 100.0
        if disk.free_bytes < _DISK_BYTES or share < _DISK_PERCENT:
            severity: AlertSeverity = "error" if disk.free_bytes < _DISK_BYTES / 4 else "warning"
            yield _found(
                *(severity, "disk", disk.path, "full"),
                f"The disk of {disk.path} has {disk.free_bytes / 1024**3:.1f} GiB free"
                f" ({share:.0f}%).",
                "Make room: old backups, models that nobody serves, logs.",
            )


def clock(seen: Observed) -> Iterator[Finding]:
    if abs(seen.clock_jump_s) >= 1.0:
        way = "ahead" if seen.clock_jump_s > 0 else "back"
        yield _found(
            *("warning", "clock", "clock", "jump"),
            f"The host's clock went {abs(seen.clock_jump_s):.0f} s {way}.",
            "Look at its time service: timedatectl status.",
        )


def backups(seen: Observed) -> Iterator[Finding]:
    known = seen.backups
    if known is None or not seen.backup_every_s:
        return
    if known.last_error:
        text = f"The last backup failed: {known.last_error}"
        yield _found("error", "backup", "backup", "failed", text, "cic backup create")
    newest = known.backups[0] if known.backups else None
    if newest is not None:
        age_s = (seen.now - datetime.fromisoformat(newest.made_at)).total_seconds()
        if age_s > _BACKUP_LATE * seen.backup_every_s:
            text = f"The newest backup is {age_s / 86_400:.1f} days old."
            yield _found("warning", "backup", "backup", "late", text, "cic backup create")
        if not known.key_kept and newest.protection == "key":
            text = "Nothing but this home has the key of its backups."
            step = "cic backup key --to /media/stick/backup-key"
            yield _found("warning", "backup", "backup", "key", text, step)


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
    clock,
    backups,
)


def findings(seen: Observed, rules: Iterable[Rule] = RULES) -> dict[str, Finding]:
    """Everything that is the case, by its id."""
    return {found.id: found for rule in rules for found in rule(seen)}
