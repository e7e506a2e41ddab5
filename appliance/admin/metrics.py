"""Figures in Prometheus' exposition format, collected anew for every scrape."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import get_args

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import CollectorRegistry

from appliance.admin.metrics_gpus import node_metrics
from appliance.admin.metrics_process import process_metrics
from appliance.admin.metrics_reservations import reservation_metrics
from appliance.admin.ports import Figures, HistogramFigures, MetricsSource, ReplicaFigures
from appliance.wire.stream import Alert, AlertSeverity

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class Exposition:
    """`/metrics` of one appliance. Every name begins with `crosslogic_`; units come last."""

    def __init__(
        self, source: MetricsSource, version: str, alerts: Callable[[], Iterable[Alert]] = tuple
    ) -> None:
        self._source = source
        self._alerts = alerts
        self._version = version
        self._collectors = CollectorRegistry(auto_describe=False)
        self._collectors.register(self)

    def text(self) -> bytes:
        return generate_latest(self._collectors)

    def collect(self) -> Iterator[Metric]:
        """prometheus-client asks for this with each scrape."""
        figures = self._source.figures()
        build = GaugeMetricFamily(
            "crosslogic_build_info", "The running version.", labels=["version"]
        )
        build.add_metric([self._version], 1)
        yield build
        yield GaugeMetricFamily("crosslogic_up", "1 while the appliance runs.", value=1)
        yield GaugeMetricFamily(
            "crosslogic_ready", "1 when /readyz answers 200.", value=int(figures.ready)
        )
        yield from _traffic(figures)
        yield from _replicas(figures)
        yield from node_metrics(figures.nodes)
        yield from process_metrics(figures.loop_delay_s)
        yield from _ledger(figures)
        yield from _sync(figures)
        yield from reservation_metrics(figures.reservations)
        yield _attention(self._alerts())


def _traffic(figures: Figures) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "crosslogic_requests",
        "Requests that ended, by how they ended.",
        labels=["operation", "model", "status"],
    )
    for row in figures.requests:
        requests.add_metric([row.operation, row.model, row.status], row.requests)
    yield requests
    refusals = CounterMetricFamily(
        "crosslogic_refusals", "Requests refused before any work, by error code.", labels=["code"]
    )
    for code, refused in figures.refusals.items():
        refusals.add_metric([code], refused)
    yield refusals
    tokens = CounterMetricFamily("crosslogic_tokens", "Tokens in the ledger.", labels=["kind"])
    for kind, count in figures.tokens.items():
        tokens.add_metric([kind], count)
    yield tokens
    for name, meaning, value in (
        ("retries", "Requests tried on another replica.", figures.retries),
        ("replays", "Answers given again for an idempotency key.", figures.replays),
        ("connections_refused", "Connections of clients refused.", figures.connections_refused),
    ):
        yield CounterMetricFamily(f"crosslogic_{name}", meaning, value=value)
    for name, meaning, value in (
        ("connections_open", "Connections of clients.", figures.connections_open),
        ("requests_running", "Requests at an engine.", figures.requests_running),
        ("streams_open", "Streamed answers in flight.", figures.streams_open),
    ):
        yield GaugeMetricFamily(f"crosslogic_{name}", meaning, value=value)
    queued = GaugeMetricFamily(
        "crosslogic_requests_queued", "Requests that wait for a replica.", labels=["deployment"]
    )
    for deployment, waiting in figures.queued.items():
        queued.add_metric([deployment], waiting)
    yield queued
    yield from _histogram(
        "crosslogic_first_token_seconds", "From request to first byte.", figures.first_token
    )
    yield from _histogram(
        "crosslogic_request_seconds", "From request to end of answer.", figures.latency
    )


def _replicas(figures: Figures) -> Iterator[Metric]:
    names = ["deployment", "replica", "node"]

    def labels(replica: ReplicaFigures) -> list[str]:
        return [replica.deployment, replica.replica, replica.node]

    state = GaugeMetricFamily(
        "crosslogic_replica_state", "1 for the state a replica is in.", labels=[*names, "state"]
    )
    running = GaugeMetricFamily(
        "crosslogic_replica_requests_running", "Requests at this replica.", labels=names
    )
    outstanding = GaugeMetricFamily(
        "crosslogic_replica_outstanding_tokens", "Tokens of work it still has.", labels=names
    )
    rate = GaugeMetricFamily(
        "crosslogic_replica_tokens_per_second", "Measured; absent until it is.", labels=names
    )
    failures = CounterMetricFamily(
        "crosslogic_replica_failures", "Requests it failed.", labels=names
    )
    for replica in figures.replicas:
        state.add_metric([*labels(replica), replica.state], 1)
        running.add_metric(labels(replica), replica.running)
        outstanding.add_metric(labels(replica), replica.outstanding_tokens)
        if replica.tokens_per_s is not None:
            rate.add_metric(labels(replica), replica.tokens_per_s)
        failures.add_metric(labels(replica), replica.failures)
    yield from (state, running, outstanding, rate, failures)


def _ledger(figures: Figures) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "crosslogic_ledger_records", "Records in the ledger.", value=figures.ledger_records
    )
    yield GaugeMetricFamily(
        "crosslogic_ledger_open", "Openings that are not settled yet.", value=figures.ledger_open
    )
    commits = SummaryMetricFamily(
        "crosslogic_ledger_commit_seconds", "Group commits, each until it is on disk."
    )
    commits.add_metric([], figures.ledger_commits, figures.ledger_commit_s)
    yield commits
    yield CounterMetricFamily(
        "crosslogic_ledger_failures",
        "Group commits that were refused.",
        value=figures.ledger_failures,
    )


def _sync(figures: Figures) -> Iterator[Metric]:
    sync, entitlement = figures.sync, figures.entitlement
    if sync is not None:
        state = GaugeMetricFamily(
            "crosslogic_sync_state", "1 for how it stands with the control plane.", labels=["state"]
        )
        state.add_metric([sync.state.replace(" ", "_")], 1)
        yield state
        alarm = GaugeMetricFamily(
            "crosslogic_sync_alarm", "1 while a receipt was refused.", labels=["alarm"]
        )
        if sync.alarm:
            alarm.add_metric([sync.alarm], 1)
        yield alarm
        yield GaugeMetricFamily(
            "crosslogic_manifests_unreceipted", "Sealed, not receipted.", value=sync.lag_manifests
        )
        yield GaugeMetricFamily(
            "crosslogic_manifests_unreceipted_age_seconds",
            "Since the oldest of them was sealed.",
            value=sync.lag_age_s,
        )
    if entitlement is not None:
        stage = GaugeMetricFamily(
            "crosslogic_entitlement_stage", "1 for the stage of the lease.", labels=["stage"]
        )
        stage.add_metric([entitlement.stage], 1)
        yield stage
        if entitlement.days_left is not None:
            yield GaugeMetricFamily(
                "crosslogic_entitlement_days_left",
                "Whole days until the next stage.",
                value=entitlement.days_left,
            )


def _attention(alerts: Iterable[Alert]) -> Metric:
    """Zero for a severity that nothing has: so a rule on it sees the end of an alert."""
    found = Counter((alert.severity, alert.acknowledged_at is not None) for alert in alerts)
    family = GaugeMetricFamily(
        "crosslogic_alerts", "What wants an administrator now.", labels=["severity", "acknowledged"]
    )
    for severity in get_args(AlertSeverity):
        for known in (False, True):
            family.add_metric([severity, str(known).lower()], found[severity, known])
    return family


def _histogram(name: str, meaning: str, figures: HistogramFigures | None) -> Iterator[Metric]:
    if figures is None:
        return
    buckets = [
        (bound, float(count))
        for bound, count in zip((*map(repr, figures.bounds_s), "+Inf"), figures.counts, strict=True)
    ]
    yield HistogramMetricFamily(name, meaning, buckets=buckets, sum_value=figures.sum_s)
