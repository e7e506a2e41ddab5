"""What is logged of a request: ids and causes, for those who run the site. Never content."""

import logging

from appliance.domain.ids import RecordId
from appliance.gateway.errors import GatewayError
from appliance.gateway.order import Order
from appliance.gateway.tally import Tally
from appliance.scheduler.replicas import ReplicaTarget

_log = logging.getLogger("appliance.gateway")


def engine_failed(
    request_id: str, record_id: RecordId, order: Order, target: ReplicaTarget | None, reason: str
) -> None:
    """A replica failed this request; another may still serve it."""
    _log.warning(
        "engine_failed",
        extra={
            "request_id": request_id,
            "record_id": record_id,
            "deployment_id": order.entry.deployment_id,
            "replica_id": None if target is None else target.replica_id,
            "node": None if target is None else target.node_name,
            "reason": reason,
        },
    )


def ended(
    request_id: str,
    record_id: RecordId,
    order: Order,
    tally: Tally,
    status: int,
    failure: GatewayError | None,
) -> None:
    """An admitted request has its answer. Successes are many: they are for the debug level."""
    level = logging.DEBUG if failure is None else logging.INFO
    if not _log.isEnabledFor(level):
        return
    _log.log(
        level,
        "request_ended",
        extra={
            "request_id": request_id,
            "record_id": record_id,
            "tenant_id": order.caller.tenant_id,
            "key_id": order.caller.key_id,
            "model": order.entry.name,
            "operation": order.route.operation,
            "code": "" if failure is None else failure.code,
            "status": status,
            "input_tokens": tally.tokens.input,
            "output_tokens": tally.tokens.output,
            "measured": tally.measured,
        },
    )
