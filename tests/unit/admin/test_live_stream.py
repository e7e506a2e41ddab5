"""`GET /v1/stream` on a real socket over a real registry."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from appliance.admin import stream
from appliance.admin.pace import Counted
from appliance.admin.ports import Traffic
from tests.fakes.admin_site import AdminSite, served


@pytest.fixture
def site(tmp_path: Path) -> Iterator[AdminSite]:
    with served(tmp_path) as running:
        yield running


def ticks(response: httpx.Response, count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Ids and Ticks as they come."""
    event_id = ""
    for line in response.iter_lines():
        if line.startswith("id: "):
            event_id = line[4:]
        elif line.startswith("data: "):
            yield event_id, json.loads(line[6:])
            count -= 1
            if not count:
                return


def first(site: AdminSite, query: str, last_id: str = "") -> tuple[str, dict[str, Any]]:
    headers = {"Last-Event-ID": last_id} if last_id else {}
    with site.client.stream("GET", f"/v1/stream?{query}", headers=headers) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        return next(ticks(response, 1))


def tables(tick: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {change["topic"]: change["rows"] for change in tick["changes"]}


def test_whole_tables_come_at_once_and_only_those_asked_for(site: AdminSite) -> None:
    site.client.post("/v1/tenants", json={"name": "acme"}).raise_for_status()
    _, tick = first(site, "topics=site,tenants")
    assert [change["whole"] for change in tick["changes"]] == [True, True]
    rows = tables(tick)
    assert set(rows) == {"site", "tenants"}
    (tenant,) = rows["tenants"].values()
    assert (tenant["name"], tenant["plan"], tenant["keys"]) == ("acme", "enterprise", 0)
    assert rows["site"]["site"]["version"] == "0.1.0"


def test_every_topic_is_there_when_none_is_named(site: AdminSite) -> None:
    _, tick = first(site, "")
    assert {"site", "nodes", "keys", "limits", "sync", "requests"} <= set(tables(tick))


def test_who_comes_back_is_told_what_changed_since(site: AdminSite) -> None:
    event_id, _ = first(site, "topics=tenants")
    site.client.post("/v1/tenants", json={"name": "acme"}).raise_for_status()
    headers = {"Last-Event-ID": event_id}
    with site.client.stream("GET", "/v1/stream?topics=tenants", headers=headers) as response:
        (change,) = next(tick["changes"] for _, tick in ticks(response, 5) if tick["changes"])
    assert not change["whole"]
    assert [row["name"] for row in change["rows"].values()] == ["acme"]


@pytest.mark.parametrize("last_id", ["other.5", "nonsense", "a.b.c", "."])
def test_who_comes_back_to_another_appliance_gets_everything(site: AdminSite, last_id: str) -> None:
    _, tick = first(site, "topics=tenants", last_id)
    assert all(change["whole"] for change in tick["changes"])


def test_a_tick_comes_each_interval_even_when_nothing_changed(site: AdminSite) -> None:
    with site.client.stream("GET", "/v1/stream?topics=tenants&every_s=0.5") as response:
        found = list(ticks(response, 3))
    assert [tick["changes"] for _, tick in found[1:]] == [[], []]


def test_requests_in_flight_and_rates_are_rows(site: AdminSite) -> None:
    tenant = site.client.post("/v1/tenants", json={"name": "acme"}).json()
    site.traffic.now = Traffic(
        site=Counted(requests=3, output_tokens=50),
        deployments={},
        tenants={tenant["id"]: Counted(requests=3, output_tokens=50)},
        requests=(),
        queued={},
        replicas={},
        streams_open=2,
        connections_open=4,
        records=9,
    )
    with site.client.stream("GET", "/v1/stream?topics=site,tenants&every_s=1") as response:
        for _, tick in ticks(response, 6):
            row = tables(tick).get("tenants", {}).get(tenant["id"], {})
            if row.get("output_tokens_per_s") is not None:
                break
        else:
            pytest.fail("no rate came")
    assert row["output_tokens_per_s"] >= 0.0


def test_an_unknown_topic_and_a_wrong_interval_are_refused(site: AdminSite) -> None:
    answer = site.client.get("/v1/stream?topics=tenants,weather")
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    assert "weather" in answer.json()["message"]
    assert site.client.get("/v1/stream?every_s=0.1").status_code == 400


def test_only_so_many_may_look_and_who_left_makes_room(
    site: AdminSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_SUBSCRIBERS_MAX", 1)
    with site.client.stream("GET", "/v1/stream?topics=tenants&every_s=0.5") as response:
        next(ticks(response, 1))
        refused = site.client.get("/v1/stream?topics=tenants")
        assert (refused.status_code, refused.json()["code"]) == (503, "too_many_subscribers")
        assert refused.json()["next_step"]
    for _ in range(100):  # until the appliance has written to it once more
        with site.client.stream("GET", "/v1/stream?topics=tenants") as again:
            if again.status_code == 200:
                return
        time.sleep(0.05)
    pytest.fail("who left is still counted")


def test_streams_end_at_once_when_the_appliance_stops(tmp_path: Path) -> None:
    with served(tmp_path) as running:
        client = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(running.home.admin_socket)),
            base_url="http://appliance",
            timeout=20.0,
        )
        with client, client.stream("GET", "/v1/stream?topics=tenants&every_s=60") as response:
            lines = response.iter_lines()
            while not next(lines).startswith("data: "):
                pass
            began_s = time.monotonic()
            running.call(running.server.stop())
            assert time.monotonic() - began_s < 1.5
            assert [line for line in lines if line] == []


def test_what_is_changed_is_seen_with_the_next_tick(site: AdminSite) -> None:
    tenant = site.client.post("/v1/tenants", json={"name": "acme"}).json()
    with site.client.stream("GET", "/v1/stream?topics=tenants,environments&every_s=0.5") as answer:
        seen = ticks(answer, 12)
        next(seen)
        body = {"name": "prod", "tenant": tenant["id"]}
        site.client.post("/v1/environments", json=body).raise_for_status()
        for _, tick in seen:
            rows = tables(tick)
            if rows.get("tenants", {}).get(tenant["id"], {}).get("environments") == 1:
                assert [row["name"] for row in rows["environments"].values()] == ["prod"]
                return
    pytest.fail("the new environment was not told")


def test_a_key_that_expires_is_told_though_nothing_was_changed(site: AdminSite) -> None:
    site.client.post("/v1/tenants", json={"name": "acme"}).raise_for_status()
    body = {"name": "prod", "tenant": "acme"}
    site.client.post("/v1/environments", json=body).raise_for_status()
    ends_ns = site.services.clock.wall_ns() + 900_000_000
    made = site.services.registry.keys.create(
        "0:test", tenant="acme", environment="prod", name="short", expires_at_ns=ends_ns
    )
    key_id = site.call(made).row.id
    with site.client.stream("GET", "/v1/stream?topics=keys&every_s=0.5") as answer:
        states = [
            row["state"]
            for _, tick in ticks(answer, 5)
            if "state" in (row := tables(tick).get("keys", {}).get(key_id, {}))
        ]
    assert states == ["active", "expired"]
