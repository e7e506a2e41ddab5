"""Limits of the four layers: what is set, what plans and settings give, what is in force."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from appliance.domain.limits import Layer, Limits

LimitName = Literal["requests_per_min", "tokens_per_min", "tokens_per_day", "concurrency"]


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


class LayerLimitsTable:
    """`tenant`, `environment` and `key` are ids or names, as everywhere."""

    async def show(
        self, *, tenant: str | None = None, environment: str | None = None, key: str | None = None
    ) -> list[LayerRow]:
        """The layers a request of that key (environment, tenant) passes, widest first."""
        raise NotImplementedError

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
        raise NotImplementedError
