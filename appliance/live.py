"""The running appliance as the admin API sees it: fleet, gateway, limits and ledger in one view."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from appliance.admin.loop_delay import LoopDelay
from appliance.admin.ports import (
    DeploymentLive,
    Figures,
    HistogramFigures,
    NodeLive,
    ReplicaFigures,
    RequestFigures,
)
from appliance.domain.clock import Clock
from appliance.domain.ids import DeploymentId, NodeId
from appliance.domain.limits import Layer, Limits
from appliance.fleet.burst.service import BurstDesk
from appliance.fleet.service import Fleet
from appliance.fleet.view import FleetNode
from appliance.gateway.app import Gateway
from appliance.gateway.stats import Histogram
from appliance.limits.memory import MemoryLimitStore
from appliance.metering.ledger import Ledger
from appliance.reserving import Reserving
from appliance.scheduler.scheduler import Scheduler
from appliance.scheduler.tickets import DeploymentView
from appliance.sync.sealer import Sealer
from appliance.sync.service import Synchronisation
from appliance.wire.agent import QuestionKind
from appliance.wire.placement import Explanation


@dataclass(frozen=True, slots=True)
class Live:
    """LiveState, LimitUsage and MetricsSource of the admin API. Everything answers at once."""

    fleet: Fleet
    gateway: Gateway
    scheduler: Scheduler
    limits: MemoryLimitStore
    ledger: Ledger
    clock: Clock
    address: tuple[str, int]  # where the gateway listens
    sync: Synchronisation
    sealer: Sealer
    bursts: BurstDesk
    reserving: Reserving
    delay: LoopDelay = field(default_factory=LoopDelay)

    def deployment(self, deployment_id: DeploymentId) -> DeploymentLive | None:
        seen = self.fleet.deployment(deployment_id)
        return None if seen is None else DeploymentLive(seen.state, seen.reason, seen.replicas)

    def node(self, node_id: NodeId) -> NodeLive | None:
        seen = self.fleet.node(node_id)
        return None if seen is None else _node(seen)

    async def caught_up(self) -> None:
        await self.fleet.caught_up()

    async def ask_node(self, node_id: NodeId, kind: QuestionKind, subject: str) -> bytes:
        return bytes(await self.fleet.questions.ask(node_id, kind, subject))

    def explain(self, deployment_id: DeploymentId) -> Explanation | None:
        return self.fleet.explain(deployment_id)

    def ledger_healthy(self) -> bool:
        return self.ledger.healthy

    def ready(self) -> bool:
        return self.gateway.ready and self.ledger.healthy

    def endpoint(self) -> str:
        """A host that listens everywhere is named by the loopback, which works from here."""
        host, port = self.address
        if host in {"0.0.0.0", "::"}:  # noqa: S104 (compared, not bound)
            host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"

    def requests_running(self) -> int:
        views = self.scheduler.view(self.clock.monotonic_s())
        return sum(replica.running for view in views for replica in view.replicas)

    def requests_queued(self) -> int:
        return sum(view.queued for view in self.scheduler.view(self.clock.monotonic_s()))

    def used(self, layer: Layer, scope_id: str) -> Limits:  # noqa: ARG002 (the port names both)
        used = self.limits.used(scope_id, self.clock.monotonic_s())
        return Limits(
            used.requests_per_min, used.tokens_per_min, used.tokens_per_day, used.concurrency
        )

    def figures(self) -> Figures:
        stats, counters = self.gateway.stats, self.ledger.counters
        views = self.scheduler.view(self.clock.monotonic_s())
        names = self.gateway.deployment_names()
        return Figures(
            ready=self.ready(),
            requests=[
                RequestFigures(operation.value, model, status.value, count)
                for (operation, model, status), count in stats.requests.items()
            ],
            refusals=dict(stats.refusals),
            tokens={
                "input": stats.input_tokens,
                "output": stats.output_tokens,
                "cached": stats.cached_tokens,
            },
            retries=stats.retries,
            replays=stats.replays,
            connections_open=stats.connections_open,
            connections_refused=stats.connections_refused,
            requests_running=self.requests_running(),
            streams_open=stats.streams_open,
            queued={
                names.get(view.deployment_id, view.deployment_id): view.queued for view in views
            },
            replicas=self._replicas(views, names),
            nodes={name: _node(node) for name, node in self.fleet.nodes().items()},
            first_token=_histogram(stats.first_token),
            latency=_histogram(stats.latency),
            ledger_records=self.ledger.record_count,
            ledger_open=self.ledger.open_count,
            ledger_commits=counters.commits,
            ledger_commit_s=counters.commit_s,
            ledger_failures=counters.failures,
            loop_delay_s=self.delay.latest_s,
            sync=self.sync.last_status,
            entitlement=self.sync.last_entitlement,
            reservations=self.reserving.figures(),
        )

    def _replicas(
        self, views: Iterable[DeploymentView], names: Mapping[DeploymentId, str]
    ) -> list[ReplicaFigures]:
        """Every replica that is wanted, whatever its state: one that failed is to be seen."""
        scheduled = {
            replica.target.replica_id: replica for view in views for replica in view.replicas
        }
        figures = []
        for deployment_id, status in self.fleet.statuses().items():
            for replica in status.replicas:
                view = scheduled.get(replica.row.id)
                figures.append(
                    ReplicaFigures(
                        replica=replica.row.id,
                        deployment=names.get(deployment_id, deployment_id),
                        node=replica.node_name,
                        state="ejected" if view is not None and view.ejected_s else replica.state,
                        running=0 if view is None else view.running,
                        outstanding_tokens=0 if view is None else view.outstanding_tokens,
                        tokens_per_s=None if view is None else view.tokens_per_s,
                        failures=0 if view is None else view.failures,
                    )
                )
        return figures


def _node(seen: FleetNode) -> NodeLive:
    return NodeLive(
        seen.state,
        agent_version=seen.agent_version,
        cores=seen.cores,
        memory_bytes=seen.memory_bytes,
        gpus=seen.gpus,
        engines=seen.engines,
        engine_versions=seen.engine_versions,
        last_seen_at=seen.last_seen_at,
        reason=seen.reason,
        notice=seen.notice,
        gpu_figures=seen.gpu_figures,
        driver=seen.driver,
        health=seen.health,
    )


def _histogram(histogram: Histogram) -> HistogramFigures:
    return HistogramFigures(histogram.bounds_s, histogram.cumulative(), histogram.sum_s)
