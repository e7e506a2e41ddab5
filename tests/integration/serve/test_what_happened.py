"""A served site tells what wants an administrator, what happened, and how it went."""

import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.engine import FaultEngine, engine_in_thread
from tests.fakes.site import Site, running_site

DARK = "http://127.0.0.1:9/v1"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with running_site(tmp_path) as running:
        yield running


@pytest.fixture
def engine() -> Iterator[FaultEngine]:
    with engine_in_thread() as running:
        yield running


def alerts(site: Site) -> dict[str, Any]:
    return {row["text"].split()[0]: row for row in json.loads(site.ask("GET", "/v1/alerts"))}


def events(site: Site, since: int = 0) -> list[dict[str, Any]]:
    return [json.loads(each) for each in site.ask("GET", f"/v1/events?since={since}").splitlines()]


def test_an_alert_begins_is_acknowledged_and_ends_with_its_cause(
    site: Site, engine: FaultEngine
) -> None:
    site.deployment("dark", DARK, wait=False)
    alert = site.until(lambda: alerts(site).get("dark"), 60.0, "an alert about dark")
    assert alert["severity"] == "error"
    assert alert["next_step"].startswith("cic deployment show dark")
    listed = site.run("alert", "list").stdout
    assert "dark" in listed
    assert "cic deployment show dark" in listed
    done = site.run("--json", "alert", "acknowledge", alert["id"])
    assert json.loads(done.stdout)["acknowledged_by"]
    assert alerts(site)["dark"]["acknowledged_by"]
    audit = [json.loads(each) for each in site.ask("GET", "/v1/audit").splitlines()]
    assert [(each["action"], each["object_kind"]) for each in audit][-1] == ("acknowledge", "alert")
    site.run("deployment", "update", "dark", "--url", engine.url)
    site.until(lambda: "dark" not in alerts(site), 60.0, "the end of the alert")
    kinds = [each["kind"] for each in events(site)]
    assert {"site.started", "alert.begun", "alert.ended", "audit.acknowledge"} <= set(kinds)
    refused = site.run("alert", "acknowledge", alert["id"], check=False)
    assert refused.returncode == 3
    assert "may have ended" in refused.stderr


def test_events_are_followed_and_kept_over_a_restart(site: Site) -> None:
    site.until(lambda: events(site), 20.0, "the first event")
    following = subprocess.Popen(
        [*site.command, "--json", "events", "--follow"],
        stdout=subprocess.PIPE,
        env=site.environ,
        text=True,
    )
    found: list[dict[str, Any]] = []
    assert following.stdout is not None
    output = following.stdout
    reading = threading.Thread(
        target=lambda: found.extend(json.loads(line) for line in output), daemon=True
    )
    reading.start()
    try:
        site.admin("POST", "/v1/tenants", {"name": "acme"})
        site.until(
            lambda: [e for e in found if e["kind"] == "audit.create" and "acme" in e["text"]],
            30.0,
            "the new tenant among the events",
        )
    finally:
        following.terminate()
        following.wait(10)
        reading.join(10)
        output.close()
    assert [each["seq"] for each in found] == sorted({each["seq"] for each in found})
    last = found[-1]["seq"]
    site.restart()
    after = events(site)
    assert {each["seq"] for each in found} <= {each["seq"] for each in after}
    new = [each for each in after if each["seq"] > last]
    assert [each["kind"] for each in new][:2] == ["site.stopped", "site.started"]


def test_history_is_kept_over_a_restart_and_damage_is_not_fatal(site: Site) -> None:
    def running() -> list[list[Any]]:
        rows = json.loads(site.ask("GET", "/v1/history?series=running&span=1h"))
        return rows[0]["points"] if rows else []

    before = site.until(running, 30.0, "a first point")
    site.restart()
    assert site.until(running, 30.0, "the points of before")[0][0] == before[0][0]
    site.stop()
    folder = next(path.parent for path in site.home.rglob("history.mp"))
    for path in folder.iterdir():
        path.write_bytes(b"\x00damaged")
    site.start()
    assert "what was observed is lost" in site.printed()
    assert site.until(lambda: events(site), 20.0, "events anew")[0]["kind"] == "site.started"


def test_top_for_scripts_screen_readers_and_terminals(site: Site) -> None:
    once = site.run("top", "--once").stdout
    assert "Nothing wants attention." in once or "ATTENTION" in once
    assert site.base_url.removesuffix("/v1") in once
    plain = site.run("top", "--once", "--plain").stdout
    assert all(line.endswith((".", "`")) for line in plain.splitlines()), plain
    assert not {sign for sign in plain if ord(sign) > 0x2000}  # nothing is drawn
    assert site.run("top", "--plain").stdout  # told once, too
    told = json.loads(site.run("top", "--json").stdout)
    assert told["tables"]["site"]["site"]["endpoint"] == site.base_url
