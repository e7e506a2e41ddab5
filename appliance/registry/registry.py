"""The registry: the configuration of a site, one sub-object for each noun."""

import os
from collections.abc import Callable
from pathlib import Path

from appliance.domain.clock import Clock
from appliance.domain.limits import UNLIMITED, Limits
from appliance.registry.api_keys import APIKeys
from appliance.registry.audit import Audit
from appliance.registry.deployments import Deployments
from appliance.registry.environments import Environments
from appliance.registry.limits import LayerLimitsTable
from appliance.registry.models import Models
from appliance.registry.nodes import Nodes
from appliance.registry.regions import Regions
from appliance.registry.replicas import Replicas
from appliance.registry.reservations import Reservations
from appliance.registry.settings import SiteSettings
from appliance.registry.snapshot import Snapshot
from appliance.registry.tenants import Tenants
from appliance.security.seal import Seal
from appliance.storage.database import Database


class Registry:
    """Reads and writes registry.db. Every write is audited in its own transaction.

    A write returns when it is durable and every callback of `on_change` has had the new tables,
    so that a key works the moment its creator is told of it.
    """

    tenants: Tenants
    environments: Environments
    keys: APIKeys
    limits: LayerLimitsTable
    regions: Regions
    models: Models
    deployments: Deployments
    replicas: Replicas
    nodes: Nodes
    reservations: Reservations
    settings: SiteSettings
    audit: Audit

    def __init__(
        self,
        database: Database,
        *,
        pepper: bytes,
        seal: Seal,
        clock: Clock,
        site_region: str = "local",
        global_limits: Limits = UNLIMITED,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """`database` is `open_database(home.registry_file)`; the caller closes it, after `close`.

        `site_region` and `global_limits` come from the settings.
        """
        raise NotImplementedError

    async def snapshot(self) -> Snapshot:
        """The tables of now, loaded in a thread and cached by version."""
        raise NotImplementedError

    def on_change(self, callback: Callable[[Snapshot], None]) -> None:
        """Call `callback` on the event loop with the new tables after each committed change."""
        raise NotImplementedError

    async def close(self) -> None:
        """Wait for the changes under way."""
        raise NotImplementedError


def open_database(path: Path) -> Database:
    """Open registry.db, brought to the newest schema; creates it. Raises StorageError."""
    raise NotImplementedError


def initialise(path: Path, *, actor: str, region: str, clock: Clock) -> None:
    """Create registry.db with the site's region. Doing it again changes nothing. Blocks."""
    raise NotImplementedError
