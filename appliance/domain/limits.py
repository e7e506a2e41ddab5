"""The four layers of limits and the plans that fill them."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Layer(StrEnum):
    """Where a limit is set, from the widest to the narrowest. Each request passes all four."""

    GLOBAL = "global"
    TENANT = "tenant"
    ENVIRONMENT = "environment"
    KEY = "key"


class Plan(StrEnum):
    FREE = "free"
    DEVELOPER = "developer"
    BUSINESS = "business"
    ENTERPRISE = "enterprise"


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one layer. None means: this layer does not limit that."""

    requests_per_min: int | None = None
    tokens_per_min: int | None = None
    tokens_per_day: int | None = None
    concurrency: int | None = None

    @property
    def unlimited(self) -> bool:
        return self == UNLIMITED

    def over(self, base: "Limits") -> "Limits":
        """These limits where they are set, `base` where they are not (an override of a plan)."""
        return Limits(
            base.requests_per_min if self.requests_per_min is None else self.requests_per_min,
            base.tokens_per_min if self.tokens_per_min is None else self.tokens_per_min,
            base.tokens_per_day if self.tokens_per_day is None else self.tokens_per_day,
            base.concurrency if self.concurrency is None else self.concurrency,
        )


UNLIMITED: Final = Limits()

# Source: docs/API.md, "Limits". Enterprise is "as set": the plan itself sets nothing.
PLAN_LIMITS: Final = {
    Plan.FREE: Limits(requests_per_min=60, tokens_per_day=100_000),
    Plan.DEVELOPER: Limits(requests_per_min=600, tokens_per_day=10_000_000),
    Plan.BUSINESS: Limits(requests_per_min=6_000, tokens_per_day=100_000_000),
    Plan.ENTERPRISE: UNLIMITED,
}


@dataclass(frozen=True, slots=True)
class LayerLimits:
    """One layer as a request meets it: whose limit it is, and how much."""

    layer: Layer
    scope_id: str  # "global", or the id of the tenant, environment or key
    limits: Limits
