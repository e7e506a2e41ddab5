"""A site whose ledger nobody serves, the shipper that speaks for it, and its control plane."""

import os
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from sqlite3 import Connection
from typing import Any, TypeVar

import msgspec

from appliance.domain.errors import CrossLogicError
from appliance.manifests import archive
from appliance.manifests.archive import SyncState
from appliance.manifests.keys import site_of
from appliance.security.signing import load_signing_key
from appliance.settings import Sync
from appliance.sync.identity import NEXT_KEY_FILE
from appliance.sync.shipper import Exchange, Shipper
from appliance.sync.store import SyncStore
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import ControlPlane
from tests.fakes.sealed_site import SealedSite
from tests.fakes.vendor import Vendor

R = TypeVar("R")


@dataclass
class Wire:
    """A site, its control plane, and the shipper between them."""

    site: SealedSite
    control_plane: ControlPlane
    settings: Sync = field(default_factory=lambda: Sync(connect_s=2, request_s=5))
    batch_bytes_max: int = 32 * 1024 * 1024

    def store(self) -> SyncStore:
        return SyncStore(self.site.home.ledger_file, self._transact)

    def shipper(self) -> Shipper:
        """A new one each time, as after a restart: nothing is carried over in memory."""
        return Shipper(
            site="factory-7",
            settings=self.settings,
            store=self.store(),
            clock=ManualClock(self.control_plane.now_ns),
            key=lambda: self.site.identity.key,
            held_key_ids=self._held,
            entropy=os.urandom,
            batch_bytes_max=self.batch_bytes_max,
        )

    async def exchange(self) -> Exchange:
        return await self.shipper().exchange()

    def enrolled(self, **changes: Any) -> None:
        """As after an enrolment; `changes` are fields of the sync state."""
        known = {
            "control_plane_url": self.control_plane.base_url,
            "control_plane_key_pem": self.control_plane.vendor.key.public.pem,
        }
        with self.site.writing() as connection:
            state = archive.sync_state(connection)
            archive.set_sync_state(
                connection, msgspec.structs.replace(state, **{**known, **changes})
            )

    @property
    def state(self) -> SyncState:
        with self.site.reading() as connection:
            return archive.sync_state(connection)

    def unreceipted(self) -> int:
        with self.site.reading() as connection:
            return archive.unreceipted_count(connection)

    def _transact(self, run: Callable[[Connection], R]) -> Future[R]:
        future: Future[R] = Future()
        try:
            with self.site.writing() as connection:
                result = run(connection)
            future.set_result(result)
        except CrossLogicError as error:  # as the ledger hands it over
            future.set_exception(error)
        return future

    def _held(self) -> list[str]:
        waiting = self.site.home.secrets / NEXT_KEY_FILE
        others = [load_signing_key(waiting).key_id] if waiting.exists() else []
        return [self.site.identity.key.key_id, *others]


def vendor_of(site: SealedSite) -> ControlPlane:
    """A control plane that knows this site and has heard nothing of it; a minute later."""
    key = site.identity.key.public
    return ControlPlane(
        Vendor(site.appliance_id, key.key_id),
        site_of(site.appliance_id, key, ()),
        site.now_ns + 60 * 1_000_000_000,
    )
