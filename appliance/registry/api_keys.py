"""API keys: credentials of an environment. Names are unique in their environment.

A rotation gives the same key (same id, same limits, same usage) a new secret; the old secret goes
on until the end of the overlap.
"""

from dataclasses import dataclass

from appliance.domain.ids import EnvironmentId, KeyId, TenantId
from appliance.domain.limits import UNLIMITED, Limits
from appliance.registry.snapshot import Role


@dataclass(frozen=True, slots=True)
class KeyRow:
    id: KeyId
    name: str
    prefix: str  # of the newest secret, for people
    tenant_id: TenantId
    tenant_name: str
    environment_id: EnvironmentId
    environment_name: str
    role: Role
    suspended: bool
    expires_at_ns: int | None
    retiring_until_ns: int | None  # an older secret is valid until then (may lie in the past)
    created_at_ns: int
    limits: Limits


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key with its secret, which is shown once and kept nowhere."""

    row: KeyRow
    secret: str


class APIKeys:
    """`ref` is an id or a name; `tenant` and `environment` narrow where a name is ambiguous."""

    async def create(
        self,
        actor: str,
        *,
        tenant: str,
        environment: str,
        name: str | None = None,
        role: Role = Role.DEVELOPER,
        expires_at_ns: int | None = None,
        test: bool = False,
        limits: Limits = UNLIMITED,
    ) -> NewKey:
        """`name` None: `key-` and six hex digits."""
        raise NotImplementedError

    async def list(
        self, *, tenant: str | None = None, environment: str | None = None
    ) -> list[KeyRow]:
        """By tenant's name, environment's name, name."""
        raise NotImplementedError

    async def get(
        self, ref: str, *, tenant: str | None = None, environment: str | None = None
    ) -> KeyRow:
        """Raises NotFound, Ambiguous."""
        raise NotImplementedError

    async def update(
        self,
        actor: str,
        ref: str,
        *,
        tenant: str | None = None,
        environment: str | None = None,
        name: str | None = None,
        role: Role | None = None,
        expires_at_ns: int | None = None,
        never_expires: bool = False,
    ) -> KeyRow:
        """None leaves a field as it is; `never_expires` takes the expiry away."""
        raise NotImplementedError

    async def rotate(
        self,
        actor: str,
        ref: str,
        *,
        tenant: str | None = None,
        environment: str | None = None,
        overlap_s: int = 86_400,
    ) -> NewKey:
        """Every older secret ends after `overlap_s` at the latest; 0 ends them at once."""
        raise NotImplementedError

    async def suspend(
        self, actor: str, ref: str, *, tenant: str | None = None, environment: str | None = None
    ) -> KeyRow:
        raise NotImplementedError

    async def resume(
        self, actor: str, ref: str, *, tenant: str | None = None, environment: str | None = None
    ) -> KeyRow:
        raise NotImplementedError

    async def delete(
        self, actor: str, ref: str, *, tenant: str | None = None, environment: str | None = None
    ) -> None:
        raise NotImplementedError
