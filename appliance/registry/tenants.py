"""Tenants: who is billed. Names are unique among the living."""

from dataclasses import dataclass

from appliance.domain.ids import TenantId
from appliance.domain.limits import Limits, Plan


@dataclass(frozen=True, slots=True)
class TenantRow:
    id: TenantId
    name: str
    plan: Plan
    suspended: bool
    created_at_ns: int
    limits: Limits  # set on this tenant, over its plan


class Tenants:
    """`ref` is an id or a name. Writes return when they are durable and the gateway knows."""

    async def create(self, actor: str, name: str, plan: Plan = Plan.ENTERPRISE) -> TenantRow:
        """Raises InvalidValue, AlreadyExists."""
        raise NotImplementedError

    async def list(self) -> list[TenantRow]:
        """By name."""
        raise NotImplementedError

    async def get(self, ref: str) -> TenantRow:
        """Raises NotFound."""
        raise NotImplementedError

    async def update(
        self, actor: str, ref: str, *, name: str | None = None, plan: Plan | None = None
    ) -> TenantRow:
        """None leaves a field as it is."""
        raise NotImplementedError

    async def suspend(self, actor: str, ref: str) -> TenantRow:
        raise NotImplementedError

    async def resume(self, actor: str, ref: str) -> TenantRow:
        raise NotImplementedError

    async def delete(self, actor: str, ref: str, *, cascade: bool = False) -> None:
        """Raises InUse when it has living environments, unless `cascade` deletes them with it."""
        raise NotImplementedError
