"""Synchronisation over the admin API, and what is refused while the entitlement is frozen."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.admin.metrics import Exposition
from appliance.admin.ports import Figures
from appliance.admin.routes import ROUTES
from appliance.sync.errors import (
    BadEnrolmentCode,
    ControlPlaneAway,
    EntitlementRefused,
    ManagementFrozen,
)
from appliance.wire.sync import DocumentOutcome
from tests.fakes.admin_site import AdminSite, FixedFigures, served
from tests.fakes.sync_port import ENTITLEMENT, STATUS

# Every operation that is not a reading, sorted by hand: may it be asked while frozen?
GROWS = {
    "POST /v1/reservations",
    "PATCH /v1/reservations/{ref}",
    "PUT /v1/limits",
    "POST /v1/bursts",
    "POST /v1/models/packs",
    "POST /v1/node-tokens",
    *(
        f"{verb} /v1/{noun}{ref}"
        for noun in (
            *("tenants", "environments", "keys", "models", "deployments", "nodes", "regions"),
        )
        for verb, ref in (("POST", ""), ("PATCH", "/{ref}"))
    ),
}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[AdminSite]:
    with served(tmp_path) as site:
        yield site


def test_every_operation_that_makes_the_site_larger_is_marked_and_no_other() -> None:
    marked = {f"{route.method} {route.path}" for route in ROUTES if route.grows}
    assert marked == GROWS
    assert not any(route.grows for route in ROUTES if route.method in {"GET", "DELETE"})


def test_while_frozen_nothing_new_is_made_and_all_else_goes_on(site: AdminSite) -> None:
    client = site.client
    assert client.post("/v1/tenants", json={"name": "before"}).status_code == 201
    site.sync.frozen = ManagementFrozen("The lease has ended.", next_step="Renew it.")
    for route in (route for route in ROUTES if route.grows):
        answer = client.request(route.method, route.path.replace("{ref}", "before"), json={})
        assert (answer.status_code, answer.json()["code"]) == (409, "management_frozen")
        assert answer.json()["next_step"] == "Renew it."
    assert client.get("/v1/tenants").status_code == 200
    assert client.post("/v1/tenants/before/suspend").json()["state"] == "suspended"
    assert client.post("/v1/tenants/before/resume").json()["state"] == "active"
    assert client.delete("/v1/tenants/before").status_code == 204
    assert client.post("/v1/sync/now").status_code == 200
    site.sync.frozen = None
    assert client.post("/v1/tenants", json={"name": "after"}).status_code == 201


def test_the_status_has_the_control_plane_and_the_licence(site: AdminSite) -> None:
    status = site.client.get("/v1/status").json()
    assert status["sync"]["lag_manifests"] == 2
    assert status["entitlement"]["days_left"] == 8
    assert site.client.get("/v1/sync").json() == status["sync"]
    assert site.client.get("/v1/entitlement").json() == status["entitlement"]


def test_what_is_given_is_what_is_asked(site: AdminSite) -> None:
    client = site.client
    client.post("/v1/sync/enrol", json={"url": "https://c.example", "code": "clxe_x"})
    client.post("/v1/sync/request", json={"new_key": True})
    client.post("/v1/documents", json={"envelopes": ["{}", "[]"], "control_plane_key": "PEM"})
    client.post("/v1/entitlement", json={"envelope": "{}"})
    assert site.sync.asked == [
        ("enrol", "https://c.example", "clxe_x"),
        ("request", True),
        ("bring", (b"{}", b"[]"), "PEM"),
        ("install", b"{}", None),
    ]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BadEnrolmentCode("Mistyped."), 400),
        (ControlPlaneAway("Nobody there."), 502),
        (EntitlementRefused("Older."), 409),
    ],
)
def test_what_is_refused_has_its_status(site: AdminSite, error: Exception, status: int) -> None:
    site.sync.error = error  # type: ignore[assignment]  # each is a CrossLogicError
    body = {"url": "https://c.example", "code": "clxe_x"}
    assert site.client.post("/v1/sync/enrol", json=body).status_code == status


def test_a_report_with_a_refusal_is_not_ok(site: AdminSite) -> None:
    site.sync.documents = [
        DocumentOutcome(kind="receipt", document_id="rcp_1", outcome="refused", message="No.")
    ]
    report = site.client.post("/v1/sync/now").json()
    assert (report["ok"], report["sent_manifests"]) == (False, 2)
    assert report["documents"][0]["message"] == "No."


def test_the_metrics_tell_what_lags_and_what_runs_out() -> None:
    figures = Figures(ready=True, sync=STATUS, entitlement=ENTITLEMENT)
    text = Exposition(FixedFigures(figures), "1").text().decode()
    assert 'crosslogic_sync_state{state="connected"} 1.0' in text
    assert "crosslogic_manifests_unreceipted 2.0" in text
    assert "crosslogic_manifests_unreceipted_age_seconds 412.0" in text
    assert 'crosslogic_entitlement_stage{stage="warning"} 1.0' in text
    assert "crosslogic_entitlement_days_left 8.0" in text
    assert "crosslogic_sync_alarm{" not in text
