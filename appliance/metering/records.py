"""What the ledger holds: an opening while a request runs, a record when it has ended."""

from dataclasses import dataclass

from appliance.domain.ids import (
    DeploymentId,
    EnvironmentId,
    KeyId,
    RecordId,
    RequestId,
    TenantId,
)
from appliance.domain.usage import Measured, Operation, Status, TokenCount


@dataclass(frozen=True, slots=True)
class Opening:
    """An admitted request, durable before the first byte of its answer leaves.

    `prompt_estimate` is what an aborted request is settled with when nothing better is known.
    """

    record_id: RecordId
    request_id: RequestId  # as echoed to the client
    opened_at_ns: int
    tenant_id: TenantId
    tenant_name: str
    environment_id: EnvironmentId
    environment_name: str
    key_id: KeyId
    key_name: str
    model_name: str
    model_digest: str
    deployment_id: DeploymentId
    region: str
    operation: Operation
    price_class: str  # "serverless"; reserved capacity has its own class later
    prompt_estimate: int


@dataclass(frozen=True, slots=True)
class Settlement:
    """How an opened request ended."""

    opening: Opening
    status: Status
    tokens: TokenCount
    measured: Measured
    http_status: int  # what the client was answered; 499 when it had left
    error_code: str  # "" when ok
    node_name: str
    settled_at_ns: int
    latency_ms: int
    first_token_ms: int | None
