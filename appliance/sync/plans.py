"""Plans of tenants as the vendor changes them, applied to the registry once each."""

import logging
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import msgspec

from appliance.domain.errors import CrossLogicError
from appliance.manifests import archive
from appliance.manifests.archive import Kind
from appliance.manifests.documents import Plans, TenantPlan
from appliance.sync.installed import payload
from appliance.sync.moments import moment_ns
from appliance.sync.store import SyncStore

log = logging.getLogger(__name__)

ACTOR: Final = "control plane"  # in the audit


class PlanPort(Protocol):
    """The registry, as far as plans go."""

    async def set_plan(self, actor: str, tenant_id: str, plan: str) -> None:
        """Doing it again changes nothing. Raises RegistryError: no such tenant, no such plan."""
        ...


def due(tenants: Sequence[TenantPlan], taken: Mapping[str, str], now_ns: int) -> list[TenantPlan]:
    """For each tenant the newest plan that has begun, unless that very one was applied before.

    An administrator may change a plan afterwards; it is not changed back with every look.
    """
    newest: dict[str, TenantPlan] = {}
    for each in tenants:
        if moment_ns(each.since) > now_ns:
            continue
        held = newest.get(each.tenant_id)
        if held is None or moment_ns(each.since) >= moment_ns(held.since):
            newest[each.tenant_id] = each
    return [each for each in newest.values() if taken.get(each.tenant_id) != _mark(each)]


async def apply_due(store: SyncStore, port: PlanPort, now_ns: int) -> None:
    """Apply what is due; a plan that cannot be applied is told in the log, once."""
    wanted = await store.read(lambda connection: _due_now(connection, now_ns))
    if not wanted:
        return
    for each in wanted:
        fields = {"tenant_id": each.tenant_id, "plan": each.plan}
        try:
            await port.set_plan(ACTOR, each.tenant_id, each.plan)
            log.info("plan changed by the control plane", extra=fields)
        except CrossLogicError as error:
            log.warning("plan not changed", extra={**fields, "code": error.code})
    marks = {each.tenant_id: _mark(each) for each in wanted}
    # After the registry has them: a crash in between applies them once more, which changes nothing.
    await store.write(lambda connection: _remember(connection, marks))


def _due_now(connection: sqlite3.Connection, now_ns: int) -> list[TenantPlan]:
    kept = archive.newest(connection, Kind.PLANS)
    if kept is None:
        return []
    plans: Plans = payload(kept.envelope, Plans)
    return due(plans.tenants, archive.sync_state(connection).plans_taken, now_ns)


def _remember(connection: sqlite3.Connection, marks: Mapping[str, str]) -> None:
    state = archive.sync_state(connection)
    archive.set_sync_state(
        connection, msgspec.structs.replace(state, plans_taken={**state.plans_taken, **marks})
    )


def _mark(each: TenantPlan) -> str:
    return f"{each.plan} {each.since}"
