"""The observer of a served site: alerts, events and history by their routes."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from appliance.admin.calls import Services
from appliance.admin.observer import Observer
from appliance.domain.clock import SystemClock
from tests.fakes.admin_site import AdminSite, served


@pytest.fixture
def site(tmp_path: Path) -> Iterator[AdminSite]:
    with served(tmp_path) as running:
        yield running


def look(site: AdminSite) -> None:
    site.call(site.services.observer.look(site.services))


def of_ledger(site: AdminSite) -> list[dict[str, str]]:
    """Alerts of the ledger: the double's entitlement has one of its own."""
    alerts = site.client.get("/v1/alerts").json()
    return [alert for alert in alerts if alert["subject"] == "ledger"]


def events(site: AdminSite, since: int = 0) -> list[dict[str, object]]:
    answer = site.client.get(f"/v1/events?since={since}")
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def test_an_alert_begins_is_acknowledged_and_ends(site: AdminSite) -> None:
    look(site)
    assert of_ledger(site) == []
    site.services.live.healthy = False  # type: ignore[attr-defined]  # the double's
    look(site)
    (alert,) = of_ledger(site)
    assert (alert["severity"], alert["subject"]) == ("fatal", "ledger")
    path = f"/v1/alerts/{quote(alert['id'], safe='')}/acknowledge"
    assert site.client.post(path).json()["acknowledged_by"]
    assert site.client.post("/v1/alerts/none/acknowledge").json()["code"] == "no_such_alert"
    entries = [json.loads(line) for line in site.client.get("/v1/audit").text.splitlines()]
    assert entries[-1]["action"] == "acknowledge"


def test_what_people_change_and_what_changes_is_told_with_rising_numbers(site: AdminSite) -> None:
    look(site)
    before = max((int(str(event["seq"])) for event in events(site)), default=0)
    site.client.post("/v1/tenants", json={"name": "acme"}).raise_for_status()
    site.services.live.healthy = False  # type: ignore[attr-defined]  # the double's
    look(site)
    told = [event for event in events(site, before) if event["subject"] != "entitlement"]
    assert [event["kind"] for event in told] == ["ledger.state", "alert.begun", "audit.create"]
    numbers = [event["seq"] for event in told]
    assert numbers == sorted(set(numbers))  # type: ignore[type-var]  # numbers
    assert events(site, since=int(str(numbers[-1]))) == []


def test_the_past_is_kept_of_the_site_and_refuses_what_it_does_not_know(site: AdminSite) -> None:
    look(site)
    series = site.client.get("/v1/history?series=queued").json()
    assert [each["unit"] for each in series] == ["requests"]
    assert site.client.get("/v1/history?series=weather").json()["code"] == "bad_request"
    assert site.client.get("/v1/history?span=9y").status_code == 400
    assert site.client.get("/v1/history?newest=-1").status_code == 400
    assert site.client.get("/v1/history?newest=1").json()[0]["points"]


def test_alerts_and_events_are_topics_of_the_live_stream(site: AdminSite) -> None:
    site.services.live.healthy = False  # type: ignore[attr-defined]  # the double's
    look(site)
    look(site)
    with site.client.stream("GET", "/v1/stream?topics=alerts,events") as response:
        line = next(line for line in response.iter_lines() if line.startswith("data: "))
    rows = {change["topic"]: change["rows"] for change in json.loads(line[6:])["changes"]}
    assert "ledger:ledger:unwritable" in rows["alerts"]
    assert "alert.begun" in {event["kind"] for event in rows["events"].values()}


async def test_what_is_changed_before_the_first_look_is_told(
    site: AdminSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.client.post("/v1/tenants", json={"name": "earlier"}).raise_for_status()
    observer = Observer(SystemClock(), tmp_path / "observed")
    released = asyncio.Event()
    look = observer.look

    async def late(services: Services) -> None:
        await released.wait()
        await look(services)

    monkeypatch.setattr(observer, "look", late)
    site.call(observer.start(site.services))
    site.client.post("/v1/tenants", json={"name": "acme"}).raise_for_status()
    site.call(_set(released))
    for _ in range(100):
        told = [event.text for event in observer.events() if event.kind == "audit.create"]
        if told:
            break
        await asyncio.sleep(0.05)
    site.call(observer.stop())
    assert [text.split(": ")[1] for text in told] == ["create tenant acme"]


async def _set(event: asyncio.Event) -> None:
    event.set()


async def test_what_was_seen_outlives_a_restart_and_damage_is_told(
    site: AdminSite, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "observed"

    def restarted() -> Observer:
        observer = Observer(SystemClock(), folder)
        site.call(observer.start(site.services))
        site.call(observer.stop())
        return observer

    first = restarted().events()
    second = restarted().events()
    assert [event.kind for event in second[: len(first)]] == [event.kind for event in first]
    assert second[-1].seq > first[-1].seq
    for file in folder.iterdir():
        assert file.stat().st_mode & 0o777 == 0o600
        file.write_bytes(b"{half")
    assert [event.kind for event in restarted().events()] == ["site.started", "site.stopped"]
    assert "what was observed is lost" in caplog.text
