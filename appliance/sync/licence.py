"""The entitlement as the running site lives with it: its countdown, and what it refuses."""

import logging
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from appliance.domain.clock import Clock, iso
from appliance.manifests import archive
from appliance.manifests.documents import Entitlement
from appliance.sync.entitlements import SiteSize, excesses
from appliance.sync.errors import ManagementFrozen
from appliance.sync.installed import basis_of, installed_entitlements, with_basis
from appliance.sync.lease import SECOND_NS, Basis, Stage, Standing, assess, remember, words
from appliance.sync.store import SyncStore
from appliance.wire.sync import EntitlementStatus, Exceeded

log = logging.getLogger(__name__)

# The clock's height is written this often: what a clock that is turned back could gain at most.
_KEPT_EVERY_NS: Final = 60 * SECOND_NS


class Licence:
    """Remembers what is installed and judges it anew whenever it is asked, by the clock of now."""

    def __init__(
        self,
        store: SyncStore,
        clock: Clock,
        size: Callable[[], Awaitable[SiteSize]],
        throttle: Callable[[int | None], Awaitable[None]],
    ) -> None:
        """`throttle(tokens_per_s)` bounds the whole site; None takes the bound away."""
        self._store = store
        self._clock = clock
        self._measure = size
        self._size = SiteSize()
        self._throttle = throttle
        self._installed: Sequence[Entitlement] = ()
        self._basis = Basis()
        self._throttled: int | None = None
        self._stage = Stage.NONE

    async def look(self) -> None:
        """Read the books, remember the clock, and let the throttle follow."""
        wall_ns = self._clock.wall_ns()
        self._installed, self._basis = await self._store.read(_read)
        self._size = await self._measure()
        standing = assess(self._installed, self._basis, wall_ns)
        if self._worth_keeping(remember(standing, self._basis, wall_ns)):
            self._basis = await self._store.write(
                lambda connection: _keep(connection, self._installed, wall_ns)
            )
        if standing.stage is not self._stage:
            self._stage = standing.stage
            log.info("entitlement", extra={"stage": standing.stage})
        wanted = standing.throttle_tokens_per_s
        if wanted != self._throttled:
            await self._throttle(wanted)
            self._throttled = wanted

    def standing(self) -> Standing:
        return assess(self._installed, self._basis, self._clock.wall_ns())

    def check_changes(self) -> None:
        """Raises ManagementFrozen when nothing new may be made on this site."""
        standing = self.standing()
        if standing.frozen:
            message, next_step = words(standing)
            raise ManagementFrozen(
                f"{message} Deleting, suspending and revoking are still possible.",
                next_step=next_step,
            )

    def status(self) -> EntitlementStatus:
        standing, size = self.standing(), self._size
        entitlement = standing.entitlement
        message, next_step = words(standing)
        found = [] if entitlement is None else excesses(entitlement, size)
        told = entitlement or _NOTHING
        return EntitlementStatus(
            stage=standing.stage.value,
            entitlement_id=told.entitlement_id,
            customer=told.customer,
            not_before=told.not_before,
            expires=told.expires,
            lease_ends=_at(standing.lease_ends_ns),
            freezes_at=_at(standing.freezes_ns),
            throttles_at=_at(standing.throttles_ns),
            days_left=standing.days_left,
            grace_days=told.grace_days,
            gpu_count=told.gpu_count,
            gpus=size.gpus,
            reserved_tokens_per_s=told.reserved_tokens_per_s,
            models=list(told.models),
            throttle_tokens_per_s=told.throttle_tokens_per_s,
            exceeded=[
                Exceeded(what=e.what, message=e.message, next_step=e.next_step) for e in found
            ],
            message=message,
            next_step=next_step,
        )

    def _worth_keeping(self, after: Basis) -> bool:
        if not self._installed:
            return False
        return (
            after.warned_ns != self._basis.warned_ns
            or after.seen_ns - self._basis.seen_ns >= _KEPT_EVERY_NS
        )


_NOTHING: Final = Entitlement(
    entitlement_id="",
    customer="",
    appliance_id="",
    appliance_key_id="",
    not_before="",
    expires="",
    lease_until="",
    grace_days=0,
    gpu_count=0,
    reserved_tokens_per_s=0,
    models=(),
    offline_report_days_max=0,
    revocation_epoch=0,
    throttle_tokens_per_s=0,
    issued_at="",
)


def _read(connection: sqlite3.Connection) -> tuple[list[Entitlement], Basis]:
    return installed_entitlements(connection), basis_of(archive.sync_state(connection))


def _keep(connection: sqlite3.Connection, installed: Sequence[Entitlement], wall_ns: int) -> Basis:
    """The basis may have changed since it was read: it is judged again in the transaction."""
    state = archive.sync_state(connection)
    basis = basis_of(state)
    after = remember(assess(installed, basis, wall_ns), basis, wall_ns)
    archive.set_sync_state(connection, with_basis(state, after))
    return after


def _at(moment: int | None) -> str:
    return "" if moment is None else iso(moment)
