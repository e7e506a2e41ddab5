"""Limits of the four layers: what is set, what plans and settings give, what is in force."""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from appliance.domain.limits import PLAN_LIMITS, UNLIMITED, Layer, Limits
from appliance.registry.api_keys import find_key
from appliance.registry.ceiling import Ceiling
from appliance.registry.environments import find_environment
from appliance.registry.errors import InvalidValue
from appliance.registry.limit_rows import GLOBAL_SCOPE, read_limits, write_limits
from appliance.registry.store import Change, Store
from appliance.registry.tenants import TenantRow, find_tenant

LimitName = Literal["requests_per_min", "tokens_per_min", "tokens_per_day", "concurrency"]
KIND: Final = "limits"


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One layer: `set` lies over `base`, which a plan or the settings give; `in_force` is both."""

    layer: Layer
    scope_id: str  # "global", or an id
    name: str  # of the tenant, environment or key; "global"
    base: Limits
    base_source: str  # "settings", "plan free", …; "" where nothing gives a base
    set: Limits
    in_force: Limits
    bounded: bool = False  # by an entitlement that ran out


class LayerLimitsTable:
    """`tenant`, `environment` and `key` are ids or names, as everywhere."""

    __slots__ = ("_ceiling", "_global", "_store")

    def __init__(self, store: Store, global_limits: Limits, ceiling: Ceiling) -> None:
        """`global_limits` come from the settings; `ceiling` bounds the global layer."""
        self._ceiling = ceiling
        self._store = store
        self._global = global_limits

    async def show(
        self, *, tenant: str | None = None, environment: str | None = None, key: str | None = None
    ) -> list[LayerRow]:
        """The layers a request of that key (environment, tenant) passes, widest first."""
        return await self._store.read(
            lambda connection: self._layers(connection, tenant, environment, key)
        )

    async def set(
        self,
        actor: str,
        layer: Layer,
        change: Mapping[LimitName, int | None],
        *,
        tenant: str | None = None,
        environment: str | None = None,
        key: str | None = None,
    ) -> LayerRow:
        """A name absent from `change` stays; None takes that limit away."""

        def run(under_way: Change) -> LayerRow:
            connection = under_way.connection
            before = _of_layer(self._layers(connection, tenant, environment, key), layer)
            wanted = replace(before.set, **dict(change))
            if wanted == before.set:
                return before
            write_limits(connection, layer, before.scope_id, wanted)
            under_way.record(
                "update", f"{layer} {KIND}", before.scope_id, before.name, before.set, wanted
            )
            return _of_layer(self._layers(connection, tenant, environment, key), layer)

        return await self._store.change(actor, run)

    def _layers(
        self,
        connection: sqlite3.Connection,
        tenant: str | None,
        environment: str | None,
        key: str | None,
    ) -> list[LayerRow]:
        set_globally = read_limits(connection, Layer.GLOBAL, GLOBAL_SCOPE)
        source = "" if self._global.unlimited else "settings"
        whole = _row(Layer.GLOBAL, GLOBAL_SCOPE, GLOBAL_SCOPE, self._global, source, set_globally)
        bounded = self._ceiling.over(whole.in_force)
        layers = [replace(whole, in_force=bounded, bounded=bounded != whole.in_force)]
        if key is not None:
            of_key = find_key(connection, key, tenant=tenant, environment=environment)
            scope = find_environment(connection, of_key.environment_id, tenant=None)
            layers += [
                _of_tenant(find_tenant(connection, of_key.tenant_id)),
                _row(Layer.ENVIRONMENT, scope.id, scope.name, UNLIMITED, "", scope.limits),
                _row(Layer.KEY, of_key.id, of_key.name, UNLIMITED, "", of_key.limits),
            ]
        elif environment is not None:
            scope = find_environment(connection, environment, tenant=tenant)
            layers += [
                _of_tenant(find_tenant(connection, scope.tenant_id)),
                _row(Layer.ENVIRONMENT, scope.id, scope.name, UNLIMITED, "", scope.limits),
            ]
        elif tenant is not None:
            layers.append(_of_tenant(find_tenant(connection, tenant)))
        return layers


def _of_tenant(tenant: TenantRow) -> LayerRow:
    base = PLAN_LIMITS[tenant.plan]
    source = "" if base.unlimited else f"plan {tenant.plan}"
    return _row(Layer.TENANT, tenant.id, tenant.name, base, source, tenant.limits)


def _row(
    layer: Layer, scope_id: str, name: str, base: Limits, base_source: str, is_set: Limits
) -> LayerRow:
    return LayerRow(layer, scope_id, name, base, base_source, is_set, is_set.over(base))


def _of_layer(layers: list[LayerRow], layer: Layer) -> LayerRow:
    for row in layers:
        if row.layer is layer:
            return row
    raise InvalidValue(
        f"Limits of the layer '{layer}' need to be told whose they are.",
        next_step=f"Name the {layer}.",
    )
