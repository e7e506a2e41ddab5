"""Openings and settlements for tests: unremarkable but for what a test names."""

from typing import Any

import msgspec

from appliance.domain.ids import (
    DeploymentId,
    EnvironmentId,
    KeyId,
    RecordId,
    RequestId,
    TenantId,
)
from appliance.domain.usage import Measured, Operation, Status, TokenCount
from appliance.metering.records import Opening, Settlement

NOON_NS = 1_795_348_800 * 1_000_000_000  # 2026-11-22T12:00:00Z


def opening(number: int, **changes: Any) -> Opening:
    """The opening of request `number`."""
    whole = Opening(
        record_id=RecordId(f"rec_{number:028x}"),
        request_id=RequestId(f"req_{number:028x}"),
        opened_at_ns=NOON_NS + number * 1_000_000,
        tenant_id=TenantId("ten_1"),
        tenant_name="acme",
        environment_id=EnvironmentId("env_1"),
        environment_name="prod",
        key_id=KeyId("key_1"),
        key_name="backend",
        model_name="smollm2",
        model_digest="sha256:" + "ab" * 32,
        deployment_id=DeploymentId("dep_1"),
        region="local",
        operation=Operation.CHAT,
        price_class="serverless",
        prompt_estimate=900,
    )
    return msgspec.structs.replace(whole, **changes)


def settlement(opened: Opening, **changes: Any) -> Settlement:
    """A good end of it."""
    whole = Settlement(
        opening=opened,
        status=Status.OK,
        tokens=TokenCount(input=812, output=64, cached=512),
        measured=Measured.ENGINE,
        http_status=200,
        error_code="",
        node_name="node-1",
        settled_at_ns=opened.opened_at_ns + 12_000_000,
        latency_ms=12,
        first_token_ms=4,
    )
    return msgspec.structs.replace(whole, **changes)
