"""Environments: the isolation scopes of a tenant. Names are unique in their tenant."""

from collections.abc import Sequence
from dataclasses import dataclass

from appliance.domain.ids import EnvironmentId, TenantId
from appliance.domain.limits import Limits


@dataclass(frozen=True, slots=True)
class EnvironmentRow:
    id: EnvironmentId
    name: str
    tenant_id: TenantId
    tenant_name: str
    region: str
    models: tuple[str, ...] | None  # names of allowed deployments, sorted; None: all
    suspended: bool
    created_at_ns: int
    limits: Limits


class Environments:
    """`ref` is an id or a name; `tenant` (id or name) narrows where a name alone is ambiguous.

    An environment of another tenant than the one given is not found.
    """

    async def create(
        self,
        actor: str,
        name: str,
        *,
        tenant: str,
        region: str | None = None,
        models: Sequence[str] | None = None,
    ) -> EnvironmentRow:
        """`region` None: the site's. An unknown region is registered with multiplier 10000."""
        raise NotImplementedError

    async def list(self, *, tenant: str | None = None) -> list[EnvironmentRow]:
        """By tenant's name, then name."""
        raise NotImplementedError

    async def get(self, ref: str, *, tenant: str | None = None) -> EnvironmentRow:
        """Raises NotFound, Ambiguous."""
        raise NotImplementedError

    async def update(
        self,
        actor: str,
        ref: str,
        *,
        tenant: str | None = None,
        name: str | None = None,
        region: str | None = None,
        models: Sequence[str] | None = None,
        all_models: bool = False,
    ) -> EnvironmentRow:
        """None leaves a field as it is; `all_models` takes the list of allowed models away."""
        raise NotImplementedError

    async def suspend(self, actor: str, ref: str, *, tenant: str | None = None) -> EnvironmentRow:
        raise NotImplementedError

    async def resume(self, actor: str, ref: str, *, tenant: str | None = None) -> EnvironmentRow:
        raise NotImplementedError

    async def delete(
        self, actor: str, ref: str, *, tenant: str | None = None, cascade: bool = False
    ) -> None:
        """Raises InUse when it has living keys, unless `cascade` deletes them with it."""
        raise NotImplementedError
