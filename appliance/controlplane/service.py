"""A running control plane put together: settings, identity, database, ingest, billing."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from appliance.controlplane.billing.posting import Posting
from appliance.controlplane.database import Database
from appliance.controlplane.enrolment import Act
from appliance.controlplane.evidence import Caps
from appliance.controlplane.examination import Examination
from appliance.controlplane.identity import Identity, bind, load_identity
from appliance.controlplane.ingest import Ingest
from appliance.controlplane.migration import migrate
from appliance.controlplane.settings import (
    ControlHome,
    ControlPlaneSettings,
    database_url,
    load,
)
from appliance.domain.clock import Clock, SystemClock
from appliance.manifests.verify import LIMITS


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """Made by `open_control_plane`, ended by `close`."""

    home: ControlHome
    settings: ControlPlaneSettings
    identity: Identity
    database: Database
    clock: Clock
    entropy: Callable[[int], bytes]
    ingest: Ingest

    def act(self, actor: str) -> Act:
        """What an operator does now."""
        return Act(actor, self.clock.wall_ns(), self.identity.key, self.entropy)

    def close(self) -> None:
        self.ingest.examination.close()
        self.database.close()


def open_control_plane(
    home: ControlHome,
    *,
    clock: Clock | None = None,
    entropy: Callable[[int], bytes] = os.urandom,
    settings: ControlPlaneSettings | None = None,
) -> ControlPlane:
    """Raises ControlPlaneError, SecurityError or SettingsError."""
    identity = load_identity(home)
    told = load(home) if settings is None else settings
    time = SystemClock() if clock is None else clock
    database = Database.open(database_url(home, told))
    try:
        migrate(database, time.wall_ns())
        database.transact(lambda connection: bind(connection, identity.key.key_id))
    except BaseException:
        database.close()
        raise
    ingest = Ingest(
        database=database,
        key=identity.key,
        clock=time,
        entropy=entropy,
        posting=Posting,
        examination=Examination(LIMITS, told.ingest.processes),
        caps=Caps(told.ingest.evidence_per_site_max, told.ingest.evidence_bytes_max),
    )
    return ControlPlane(home, told, identity, database, time, entropy, ingest)
