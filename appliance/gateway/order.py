"""What was asked, by whom, and what was held for it: fixed from admission on."""

from typing import Final

import msgspec
from msgspec.structs import replace

from appliance.domain.ids import RecordId, RequestId
from appliance.domain.limits import LayerLimits
from appliance.gateway import request, slots
from appliance.gateway.naming import Naming
from appliance.gateway.request import Ask
from appliance.gateway.routes import Route
from appliance.limits.reservation import Reservation
from appliance.metering.accounting import Bounds
from appliance.metering.records import Opening
from appliance.registry.snapshot import Credential, DeploymentEntry
from appliance.scheduler.replicas import ReplicaTarget

PRICE_CLASS: Final = "serverless"
RESERVED_CLASS: Final = "reserved"
# It has no use for a cache salt. The other engines either know it or ignore it.
_LLAMACPP: Final = "llamacpp"


class Order(msgspec.Struct, frozen=True, gc=False):
    """A request that passed every check of its own. `lines` are the limits, for every answer."""

    route: Route
    ask: Ask
    body: bytes
    content_type: bytes
    caller: Credential
    entry: DeploymentEntry
    reservation: Reservation
    spared: tuple[LayerLimits, ...]  # held in none of these, as it was within a promise
    prompt_estimate: int
    bounds: Bounds
    lines: bytes
    shared: bool  # more than one tenant uses this site

    def opening(self, record_id: RecordId, request_id: str, now_ns: int) -> Opening:
        """What the ledger is told before the first byte leaves."""
        caller, entry = self.caller, self.entry
        return Opening(
            record_id=record_id,
            request_id=RequestId(request_id),
            opened_at_ns=now_ns,
            tenant_id=caller.tenant_id,
            tenant_name=caller.tenant_name,
            environment_id=caller.environment_id,
            environment_name=caller.environment_name,
            key_id=caller.key_id,
            key_name=caller.key_name,
            model_name=entry.name,
            model_digest=entry.model_digest,
            deployment_id=entry.deployment_id,
            region=entry.region,
            operation=self.route.operation,
            price_class=PRICE_CLASS,
            prompt_estimate=self.prompt_estimate,
        )

    def billed(self, opening: Opening, *, reserved: bool) -> Opening:
        """The opening with the class that the request ran in, which is known when it has run."""
        return replace(opening, price_class=RESERVED_CLASS) if reserved else opening

    def for_engine(self, target: ReplicaTarget, request_id: str) -> bytes:
        """The request as this replica gets it, head and body."""
        body = self.body
        if not self.route.multipart:
            salted = self.route.generates and self.entry.engine != _LLAMACPP
            body = request.forwarded(
                body,
                self.ask,
                self.route.operation,
                upstream_model=target.upstream_model,
                cache_salt=self.caller.cache_salt if salted else "",
            )
            if self.entry.engine == _LLAMACPP and self.route.generates:
                body = slots.for_llamacpp(body, shared=self.shared)
        head = request.head(
            target,
            self.route.upstream,
            self.content_type,
            len(body),
            request_id,
            stream=self.ask.stream,
        )
        return head + body

    def naming(self, target: ReplicaTarget) -> Naming | None:
        """How this replica's name of the model becomes the client's; None where it is the same."""
        if target.upstream_model is None or target.upstream_model == self.ask.model:
            return None
        return Naming(client=self.ask.model, engine=target.upstream_model)
