"""The registry: the configuration of a site, one sub-object for each noun."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from appliance.domain.clock import Clock
from appliance.domain.limits import UNLIMITED, Limits
from appliance.registry.api_keys import APIKeys
from appliance.registry.audit import Audit
from appliance.registry.bursts import Bursts
from appliance.registry.cascade import empty_environment, empty_tenant, release_deployment
from appliance.registry.ceiling import Ceiling
from appliance.registry.deployments import Deployments
from appliance.registry.environments import Environments
from appliance.registry.errors import OtherSecrets
from appliance.registry.faults import NodeFaults
from appliance.registry.generations import Generations
from appliance.registry.limits import LayerLimitsTable
from appliance.registry.models import Models
from appliance.registry.node_certificates import NodeCertificates
from appliance.registry.node_tokens import NodeTokens
from appliance.registry.nodes import Nodes
from appliance.registry.notices import NodeNotices
from appliance.registry.packs import Packs
from appliance.registry.profiles import Profiles
from appliance.registry.regions import Regions, ensure_region
from appliance.registry.replicas import Replicas
from appliance.registry.reservations import Reservations
from appliance.registry.schema import MIGRATIONS
from appliance.registry.settings import SiteSettings
from appliance.registry.snapshot import Snapshot
from appliance.registry.snapshot_source import SnapshotSource
from appliance.registry.store import Change, Store, apply_change
from appliance.registry.tenants import Tenants
from appliance.security.seal import Seal, derive
from appliance.storage.database import Database

# The setting that holds what `check_pepper` compares.
PEPPER_CHECK: Final = "pepper-check"


class Registry:
    """Reads and writes registry.db. Every write is audited in its own transaction.

    A write returns when it is durable and every callback of `on_change` has had the new tables,
    so that a key works the moment its creator is told of it.
    """

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
        self._ceiling = Ceiling()
        source = SnapshotSource(pepper=pepper, global_limits=global_limits, ceiling=self._ceiling)
        self._source = source
        store = Store(database, clock, entropy, source.load)
        self._store = store
        self._pepper = pepper
        self.tenants = Tenants(store, empty_tenant)
        self.environments = Environments(store, site_region, empty_environment)
        self.keys = APIKeys(store, pepper, entropy)
        self.limits = LayerLimitsTable(store, global_limits, self._ceiling)
        self.regions = Regions(store)
        self.models = Models(store)
        self.deployments = Deployments(store, site_region, seal, release_deployment)
        self.generations = Generations(store)
        self.profiles = Profiles(store)
        self.replicas = Replicas(store)
        self.nodes = Nodes(store, site_region)
        self.node_tokens = NodeTokens(store, site_region, entropy)
        self.node_certificates = NodeCertificates(store)
        self.faults = NodeFaults(store)
        self.notices = NodeNotices(store)
        self.packs = Packs(store)
        self.bursts = Bursts(store)
        self.reservations = Reservations(store)
        self.settings = SiteSettings(store)
        self.audit = Audit(store)

    async def check_pepper(self, actor: str) -> None:
        """Raise OtherSecrets when the pepper is not the one this registry's keys were made with.

        Otherwise every client would be told that its key is wrong, and nobody why. The first call
        remembers a value that follows from the pepper and does not tell it.
        """
        expected = derive(self._pepper, "pepper check", "registry")
        known = await self.settings.get(PEPPER_CHECK)
        if known is None:
            await self.settings.set(actor, PEPPER_CHECK, expected)
        elif known != expected:
            raise OtherSecrets(
                "The site's secrets do not belong to its registry: no API key would be accepted.",
                next_step="Restore secrets/ and registry.db from the same backup.",
            )

    async def bound_tokens(self, tokens_per_min: int | None) -> None:
        """Bound the global layer beneath what is set there; None takes the bound away.

        It is not written: whoever sets it sets it again after a start.
        """
        if tokens_per_min != self._ceiling.tokens_per_min:
            self._ceiling.tokens_per_min = tokens_per_min
            await self._store.refresh(self._source.forget)

    async def snapshot(self) -> Snapshot:
        """The tables of now, loaded in a thread and cached by version."""
        return await self._store.snapshot()

    def on_change(self, callback: Callable[[Snapshot], None]) -> None:
        """Call `callback` on the event loop with the new tables after each committed change."""
        self._store.subscribe(callback)

    async def close(self) -> None:
        """Wait for the changes under way."""
        await self._store.close()


def open_database(path: Path) -> Database:
    """Open registry.db, brought to the newest schema; creates it. Raises StorageError."""
    return Database(path, MIGRATIONS)


def note_stopped(
    path: Path,
    clock: Clock,
    actor: str,
    action: str,
    kind: str,
    name: str,
    what: object,
    entropy: Callable[[int], bytes] = os.urandom,
) -> None:
    """Enter into the audit of a site that does not run what was done to it. Blocks."""

    def run(change: Change) -> None:
        change.record(action, kind, kind, name, None, what)

    database = open_database(path)
    try:
        database.submit(partial(apply_change, actor, clock, entropy, run)).result()
    finally:
        database.close()


def initialise(
    path: Path,
    *,
    actor: str,
    region: str,
    clock: Clock,
    entropy: Callable[[int], bytes] = os.urandom,
) -> None:
    """Create registry.db with the site's region. Doing it again changes nothing. Blocks."""
    database = open_database(path)
    try:
        make_region: Callable[[Change], str] = partial(ensure_region, name=region)
        database.submit(partial(apply_change, actor, clock, entropy, make_region)).result()
    finally:
        database.close()
