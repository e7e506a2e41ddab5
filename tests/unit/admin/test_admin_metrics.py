"""The figures in the exposition format, read back by Prometheus' own parser."""

from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from appliance.admin.errors import ListenFailed
from appliance.admin.metrics import Exposition
from appliance.admin.ports import (
    Figures,
    HistogramFigures,
    Kept,
    ReplicaFigures,
    RequestFigures,
    ReservationFigures,
)
from appliance.scheduler.attainment import Minute
from appliance.wire.stream import Alert
from tests.fakes.admin_site import FixedFigures, served

BUSY = Figures(
    ready=True,
    requests=[RequestFigures("chat", 'a"b\nc', "ok", 7)],
    refusals={"rate_limit_exceeded": 3},
    tokens={"input": 10, "output": 20, "cached": 5},
    streams_open=2,
    queued={"m": 4},
    replicas=[
        ReplicaFigures("rep_1", "m", "gpu1", "ready", 1, 99, 12.5, 0),
        ReplicaFigures("rep_2", "m", "gpu2", "ejected", 0, 0, None, 6),
    ],
    latency=HistogramFigures((0.1, 1.0), (1, 3, 4), 5.5),
    ledger_records=11,
    ledger_commits=2,
    ledger_commit_s=0.25,
)


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_figure_is_shown_under_its_labels() -> None:
    shown = samples(Exposition(FixedFigures(BUSY), "0.1.0").text().decode())
    model = ("model", 'a"b\nc')
    assert shown["crosslogic_requests_total", (model, ("operation", "chat"), ("status", "ok"))] == 7
    assert shown["crosslogic_refusals_total", (("code", "rate_limit_exceeded"),)] == 3
    assert shown["crosslogic_tokens_total", (("kind", "output"),)] == 20
    assert shown["crosslogic_requests_queued", (("deployment", "m"),)] == 4
    assert shown["crosslogic_streams_open", ()] == 2
    assert shown["crosslogic_build_info", (("version", "0.1.0"),)] == 1
    assert shown["crosslogic_ledger_commit_seconds_sum", ()] == 0.25
    assert shown["crosslogic_ledger_commit_seconds_count", ()] == 2


def test_alerts_are_counted_and_none_is_a_zero() -> None:
    def alert(number: int, *, known: bool) -> Alert:
        return Alert(
            id=str(number), severity="error", subject="node", ref="n", text="", next_step="",
            since="", acknowledged_at="2026-11-23T19:22:00.000Z" if known else None,
        )  # fmt: skip

    alerts = [alert(1, known=False), alert(2, known=False), alert(3, known=True)]
    exposition = Exposition(FixedFigures(BUSY), "0.1.0", lambda: alerts)
    shown = samples(exposition.text().decode())
    for severity, known, count in (
        ("error", "false", 2),
        ("error", "true", 1),
        ("fatal", "false", 0),
    ):
        assert (
            shown["crosslogic_alerts", (("acknowledged", known), ("severity", severity))] == count
        )


def test_a_promise_is_shown_with_what_became_of_it() -> None:
    def row(name: str, *minutes: Minute) -> ReservationFigures:
        return ReservationFigures(name, "acme", "", "m", 40, Kept(True, 2, minutes))

    rows = [row("rsv_1", Minute(0, 9, 9, 9), Minute(60, 2_400, 2_000, 1_500)), row("rsv_2")]
    text = Exposition(FixedFigures(Figures(ready=True, reservations=rows)), "0.1.0").text().decode()
    shown = samples(text)

    def figure(name: str, ref: str, **more: str) -> float | None:
        labels = {"reservation": ref, "tenant": "acme", "environment": "", "model": "m", **more}
        return shown.get((f"crosslogic_reservation_{name}", tuple(sorted(labels.items()))))

    assert figure("tokens_per_second", "rsv_2") == 40
    assert figure("slipping", "rsv_1") == 1
    assert figure("requests_waiting", "rsv_1") == 2
    kinds = {kind: figure("minute_tokens", "rsv_1", kind=kind) for kind in ("offered", "delivered")}
    assert kinds == {"offered": 2_000, "delivered": 1_500}
    assert figure("minute_tokens", "rsv_2", kind="offered") is None, "not 0: no minute has passed"


def test_a_histogram_keeps_its_sums() -> None:
    shown = samples(Exposition(FixedFigures(BUSY), "0.1.0").text().decode())
    buckets = {
        labels[0][1]: value
        for (name, labels), value in shown.items()
        if name == "crosslogic_request_seconds_bucket"
    }
    assert buckets == {"0.1": 1, "1.0": 3, "+Inf": 4}
    assert shown["crosslogic_request_seconds_count", ()] == 4
    assert shown["crosslogic_request_seconds_sum", ()] == 5.5


def test_what_was_not_measured_is_absent_and_not_zero() -> None:
    shown = samples(Exposition(FixedFigures(BUSY), "0.1.0").text().decode())
    measured = [labels for name, labels in shown if name == "crosslogic_replica_tokens_per_second"]
    assert [dict(labels)["replica"] for labels in measured] == ["rep_1"]


def test_a_scrape_shows_the_figures_of_its_moment(tmp_path: Path) -> None:
    with served(tmp_path) as site:
        response = site.client.get("/metrics")
        assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert samples(response.text)["crosslogic_ready", ()] == 1
        site.metrics.now = Figures(ready=False)
        assert samples(site.client.get("/metrics").text)["crosslogic_ready", ()] == 0


def test_tcp_shows_the_metrics_and_nothing_else(tmp_path: Path) -> None:
    with served(tmp_path, metrics_listen="127.0.0.1:0") as site:
        base = f"http://127.0.0.1:{site.server.metrics_port}"
        assert "crosslogic_ready" in httpx.get(f"{base}/metrics", timeout=5).text
        for path in ("/v1/tenants", "/openapi.json"):
            assert httpx.get(base + path, timeout=5).status_code == 404


@pytest.mark.parametrize("listen", ["here", "127.0.0.1:", ":9", "127.0.0.1:99999", "256.0.0.1:1"])
def test_an_address_that_cannot_be_is_one_error_and_leaves_no_socket(
    tmp_path: Path, listen: str
) -> None:
    with pytest.raises(ListenFailed, match="metrics"), served(tmp_path, metrics_listen=listen):
        pass
    assert not (tmp_path / "run" / "admin.sock").exists()


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with served(tmp_path / "a", metrics_listen="127.0.0.1:0") as site:
        taken = f"127.0.0.1:{site.server.metrics_port}"
        with pytest.raises(ListenFailed, match=taken), served(tmp_path / "b", metrics_listen=taken):
            pass
