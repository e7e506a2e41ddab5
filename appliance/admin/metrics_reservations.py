"""Figures of reserved capacity: promised, offered and delivered in the last whole minute."""

from collections.abc import Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from appliance.admin.ports import ReservationFigures

_LABELS = ("reservation", "tenant", "environment", "model")


def reservation_metrics(rows: Iterable[ReservationFigures]) -> Iterator[Metric]:
    """One set for each reservation that is in force."""
    rate = GaugeMetricFamily(
        "crosslogic_reservation_tokens_per_second", "What is promised.", labels=_LABELS
    )
    tokens = GaugeMetricFamily(
        "crosslogic_reservation_minute_tokens",
        "Tokens of the last whole minute, by kind: promised, offered, delivered.",
        labels=(*_LABELS, "kind"),
    )
    waiting = GaugeMetricFamily(
        "crosslogic_reservation_requests_waiting", "Requests that wait by it.", labels=_LABELS
    )
    slipping = GaugeMetricFamily(
        "crosslogic_reservation_slipping",
        "1 when less than was owed was delivered in the last minutes.",
        labels=_LABELS,
    )
    for row in rows:
        labels = [row.reservation, row.tenant, row.environment, row.model]
        rate.add_metric(labels, row.tokens_per_s)
        waiting.add_metric(labels, row.kept.waiting)
        slipping.add_metric(labels, int(row.kept.slipping))
        if row.kept.minutes:
            minute = row.kept.minutes[-1]
            tokens.add_metric([*labels, "promised"], minute.promised)
            tokens.add_metric([*labels, "offered"], minute.offered)
            tokens.add_metric([*labels, "delivered"], minute.delivered)
    yield from (rate, tokens, waiting, slipping)
