"""What the gateway did for each deployment and tenant since it started, and what it does now."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

from appliance.domain.ids import TenantId
from appliance.domain.usage import Status, TokenCount
from appliance.gateway.stats import Histogram

# waiting: at an engine, and no token yet.
PhaseWord = Literal["queued", "waiting", "streaming"]


class Account:
    """Counters of one deployment or one tenant."""

    __slots__ = ("failures", "first_token", "input_tokens", "output_tokens", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.failures = 0
        self.input_tokens = 0
        self.output_tokens = 0
        self.first_token = Histogram()

    def add(self, status: Status, tokens: TokenCount, first_token_s: float | None) -> None:
        self.requests += 1
        self.failures += status is Status.FAILED
        self.input_tokens += tokens.input
        self.output_tokens += tokens.output
        if first_token_s is not None:
            self.first_token.observe(first_token_s)


class Traffic:
    """Written when a request is settled. As many accounts as there ever were names."""

    __slots__ = ("deployments", "tenants")

    def __init__(self) -> None:
        self.deployments: defaultdict[str, Account] = defaultdict(Account)
        self.tenants: defaultdict[TenantId, Account] = defaultdict(Account)

    def settled(
        self,
        deployment: str,
        tenant_id: TenantId,
        status: Status,
        tokens: TokenCount,
        first_token_s: float | None,
    ) -> None:
        self.deployments[deployment].add(status, tokens, first_token_s)
        self.tenants[tenant_id].add(status, tokens, first_token_s)


@dataclass(frozen=True, slots=True)
class InFlight:
    """An admitted request as of now, without anything of its content."""

    request_id: str
    tenant_id: TenantId
    tenant: str
    environment: str
    key: str
    deployment: str
    replica_id: str | None
    node: str | None
    operation: str
    phase: PhaseWord
    stream: bool
    opened_at_ns: int  # wall clock
    prompt_tokens: int  # estimated
    output_tokens: int  # so far
    client: str
    reservation_id: str | None = None  # that its tenant has for it
