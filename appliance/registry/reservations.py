"""Capacity reservations: tokens/s guaranteed to a tenant on a deployment."""

from dataclasses import dataclass
from typing import NewType

from appliance.domain.ids import DeploymentId, TenantId

ReservationId = NewType("ReservationId", str)


@dataclass(frozen=True, slots=True)
class ReservationRow:
    id: ReservationId
    tenant_id: TenantId
    deployment_id: DeploymentId
    tokens_per_s: int
    created_at_ns: int


class Reservations:
    async def create(
        self, actor: str, *, tenant: str, deployment: str, tokens_per_s: int
    ) -> ReservationRow:
        raise NotImplementedError

    async def list(self, *, tenant: str | None = None) -> list[ReservationRow]:
        raise NotImplementedError

    async def delete(self, actor: str, reservation_id: str) -> None:
        raise NotImplementedError
