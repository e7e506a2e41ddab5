"""The gateway and the scheduler as the live stream sees them: counters and requests in flight."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from appliance.admin.pace import Counted
from appliance.admin.ports import LiveReplica, LiveRequest, Traffic
from appliance.domain.clock import Clock
from appliance.domain.usage import Status
from appliance.gateway.app import Gateway
from appliance.gateway.traffic import Account, InFlight
from appliance.metering.ledger import Ledger
from appliance.scheduler.scheduler import Scheduler
from appliance.scheduler.tickets import DeploymentView

# What was told last, and of how many requests and tokens in flight.
_Kept = tuple[int, int, Counted]


@dataclass(frozen=True, slots=True)
class Watching:
    """TrafficSource of the admin API. Everything answers at once.

    Who did nothing since the last time is answered with the same object: most need no second look.
    """

    gateway: Gateway
    scheduler: Scheduler
    ledger: Ledger
    clock: Clock
    _deployments: dict[str, _Kept] = field(default_factory=dict)
    _tenants: dict[str, _Kept] = field(default_factory=dict)

    @property
    def bands_s(self) -> tuple[float, ...]:
        return self.gateway.stats.first_token.bounds_s

    def traffic(self) -> Traffic:
        gateway, stats = self.gateway, self.gateway.stats
        flying = gateway.in_flight()
        # What streams has made tokens already; they are settled only when it ends.
        by_deployment: Counter[str] = Counter()
        by_tenant: Counter[str] = Counter()
        for each in flying:
            by_deployment[each.deployment] += each.output_tokens
            by_tenant[each.tenant_id] += each.output_tokens
        traffic = gateway.traffic
        views = self.scheduler.view(self.clock.monotonic_s())
        return Traffic(
            site=Counted(
                requests=sum(stats.requests.values()),
                failures=sum(
                    count
                    for (_, _, status), count in stats.requests.items()
                    if status is Status.FAILED
                ),
                input_tokens=stats.input_tokens,
                output_tokens=stats.output_tokens + sum(by_deployment.values()),
                first_token=tuple(stats.first_token.counts),
            ),
            deployments={
                name: _counted(
                    name, traffic.deployments.get(name), by_deployment[name], self._deployments
                )
                for name in traffic.deployments.keys() | by_deployment.keys()
            },
            tenants={
                tenant_id: _counted(
                    tenant_id, traffic.tenants.get(tenant_id), by_tenant[tenant_id], self._tenants
                )
                for tenant_id in traffic.tenants.keys() | {each.tenant_id for each in flying}
            },
            requests=[_request(each) for each in flying],
            queued={view.deployment_id: view.queued for view in views},
            replicas=_replicas(views),
            streams_open=stats.streams_open,
            connections_open=stats.connections_open,
            records=self.ledger.record_count,
        )


def _counted(name: str, account: Account | None, in_flight: int, kept: dict[str, _Kept]) -> Counted:
    requests = 0 if account is None else account.requests
    known = kept.get(name)
    if known is not None and known[:2] == (requests, in_flight):
        return known[2]
    if account is None:
        counted = Counted(output_tokens=in_flight)
    else:
        counted = Counted(
            requests=requests,
            failures=account.failures,
            input_tokens=account.input_tokens,
            output_tokens=account.output_tokens + in_flight,
            first_token=tuple(account.first_token.counts),
        )
    kept[name] = requests, in_flight, counted
    return counted


def _request(seen: InFlight) -> LiveRequest:
    return LiveRequest(
        request_id=seen.request_id,
        tenant_id=seen.tenant_id,
        tenant=seen.tenant,
        environment=seen.environment,
        key=seen.key,
        deployment=seen.deployment,
        replica_id=seen.replica_id,
        node=seen.node,
        operation=seen.operation,
        phase=seen.phase,
        stream=seen.stream,
        opened_at_ns=seen.opened_at_ns,
        prompt_tokens=seen.prompt_tokens,
        output_tokens=seen.output_tokens,
        client=seen.client,
    )


def _replicas(views: Iterable[DeploymentView]) -> dict[str, LiveReplica]:
    return {
        replica.target.replica_id: LiveReplica(
            running=replica.running,
            ejected=bool(replica.ejected_s),
            tokens_per_s=replica.tokens_per_s,
            failures=replica.failures,
        )
        for view in views
        for replica in view.replicas
    }
