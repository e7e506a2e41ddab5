"""Synchronisation put together for a running site: what it asks of registry, fleet and ledger."""

import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from appliance.domain.clock import Clock
from appliance.domain.limits import Plan
from appliance.fleet.service import Fleet
from appliance.metering.ledger import Ledger
from appliance.registry.errors import InvalidValue
from appliance.registry.registry import Registry
from appliance.security.signing import SigningKey, load_signing_key
from appliance.settings import Settings
from appliance.sync.entitlements import SiteSize
from appliance.sync.identity import NEXT_KEY_FILE
from appliance.sync.licence import Licence
from appliance.sync.service import Synchronisation
from appliance.sync.shipper import Shipper
from appliance.sync.store import SyncStore
from appliance.wire.home import Home

_SECONDS: Final = 60  # of the minute that the global layer counts in


class RegistryPlans:
    """Plans of tenants in the registry, for what the control plane changes."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def set_plan(self, actor: str, tenant_id: str, plan: str) -> None:
        try:
            known = Plan(plan)
        except ValueError as error:
            raise InvalidValue(
                f"There is no plan {plan!r}.", next_step="Update this appliance."
            ) from error
        await self._registry.tenants.update(actor, tenant_id, plan=known)


def synchronisation(
    home: Home,
    settings: Settings,
    registry: Registry,
    ledger: Ledger,
    fleet: Fleet,
    clock: Clock,
    *,
    key: Callable[[], SigningKey],
    key_changed: Callable[[], Awaitable[None]],
) -> Synchronisation:
    """`key` is the key that signs manifests now; `key_changed` looks at it again."""

    async def throttle(tokens_per_s: int | None) -> None:
        await registry.bound_tokens(None if tokens_per_s is None else tokens_per_s * _SECONDS)

    async def size() -> SiteSize:
        nodes = [fleet.node(row.id) for row in await registry.nodes.list()]
        deployments = await registry.deployments.list()
        return SiteSize(
            gpus=sum(len(node.gpus) for node in nodes if node is not None),
            reserved_tokens_per_s=sum(
                row.tokens_per_s
                for row in await registry.reservations.list(clock.wall_ns())
                if row.promise.holds_at(clock.wall_ns())
            ),
            models=sorted({row.model_name for row in deployments if row.model_name}),
        )

    def held_key_ids() -> Sequence[str]:
        """Reads a small file, where a key waits for its grant."""
        waiting = home.secrets / NEXT_KEY_FILE
        others = [load_signing_key(waiting).key_id] if waiting.exists() else []
        return [key().key_id, *others]

    store = SyncStore(home.ledger_file, ledger.transact)
    return Synchronisation(
        site=settings.site.name,
        settings=settings.sync,
        secrets=home.secrets,
        store=store,
        shipper=Shipper(
            site=settings.site.name,
            settings=settings.sync,
            store=store,
            clock=clock,
            key=key,
            held_key_ids=held_key_ids,
            entropy=os.urandom,
        ),
        licence=Licence(store, clock, size, throttle),
        plans=RegistryPlans(registry),
        key=key,
        held_key_ids=held_key_ids,
        key_changed=key_changed,
        clock=clock,
        entropy=os.urandom,
    )
