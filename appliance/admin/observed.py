"""The site at one moment, as the rules for alerts look at it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from appliance.settings import Alerts as Thresholds
from appliance.wire.backups import BackupList
from appliance.wire.certificates import SiteCertificate
from appliance.wire.fleet import Node
from appliance.wire.gpu import NodeGpu
from appliance.wire.notifications import NotificationChannel
from appliance.wire.reservations import Capacity, Reservation
from appliance.wire.stream import DeploymentRow, LimitRow, ReplicaRow, SiteRow
from appliance.wire.sync import EntitlementStatus, SyncStatus


@dataclass(frozen=True, slots=True)
class Disk:
    path: str
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class HostNow:
    """The appliance's own host. None: the system does not tell."""

    memory_free_bytes: int | None = None
    memory_total_bytes: int | None = None
    clock_kept: bool | None = None  # a program keeps the clock right
    clock_off_s: float | None = None  # at most


@dataclass(frozen=True, slots=True)
class Observed:
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
    site_age_s: float | None = None  # since `cic init`; None: not known
    reservations: tuple[Reservation, ...] = ()
    capacity: tuple[Capacity, ...] = ()
    clock_jump_s: float = 0.0  # since the last look, beyond what passed
    host: HostNow = HostNow()
    channels: tuple[NotificationChannel, ...] = ()
    thresholds: Thresholds = field(default_factory=Thresholds)
