"""A served site looked after by its administrator: checks, settings, the log, certificates."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.engine import FaultEngine, engine_in_thread
from tests.fakes.site import Site, running_site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with running_site(tmp_path) as running:
        yield running


@pytest.fixture
def engine() -> Iterator[FaultEngine]:
    with engine_in_thread() as running:
        yield running


def checks(site: Site, only: str = "") -> dict[tuple[str, str], Any]:
    lines = site.ask("GET", f"/v1/checks?only={only}").splitlines()
    found = [json.loads(line) for line in lines]
    assert [row["number"] for row in found] == list(range(1, len(found) + 1))
    assert not found or found[-1]["total"] == len(found)
    return {(row["name"], row["subject"]): row for row in found}


def test_a_new_site_is_well_and_its_books_are_read(site: Site) -> None:
    found = checks(site)
    assert {row["outcome"] for row in found.values()} <= {"ok", "warning", "skipped"}
    names = {name for name, _ in found}
    assert names >= {
        *("disk.space", "disk.latency", "ledger.tip", "ledger.commit", "registry.integrity"),
        *("host.clock", "host.memory", "process.open-files", "process.event-loop", "node", "gpu"),
        *("certificates", "home.modes", "settings.file", "sync", "entitlement", "deployment"),
        "backup",
    }
    for key in (("ledger.tip", ""), ("registry.integrity", ""), ("home.modes", "")):
        assert found[key]["outcome"] == "ok", found[key]


def test_each_deployment_gives_a_real_token_or_the_check_says_why_not(
    site: Site, engine: FaultEngine
) -> None:
    site.deployment("good", engine.url)
    site.deployment("dark", "http://127.0.0.1:9/v1", wait=False)
    site.deployment("held", engine.url)
    site.admin("POST", "/v1/deployments/held/suspend")
    found = {name: row for (_, name), row in checks(site, "deployment").items()}
    assert found["good"]["outcome"] == "ok"
    assert found["good"]["seen"].startswith("A token of 1 replica")
    assert found["dark"]["outcome"] in {"failed", "warning"}
    assert "no replica serves" in found["dark"]["seen"]
    assert found["held"]["outcome"] == "skipped"
    asked = [seen for seen in engine.requests if seen.target == "/v1/chat/completions"]
    assert len(asked) == 1
    assert site.ledger() == []  # the appliance's own request is nobody's usage
    assert checks(site, "deployment.") == {}  # nothing is named so
    for fault in ("reset_before_head", "not_http", "close_mid_body"):
        engine.next_fault(fault, path="/v1/chat/completions")
        again = checks(site, "deployment")[("deployment", "good")]
        assert again["outcome"] == "failed", fault
        assert "gave no token" in again["seen"]
        assert "cic deployment logs good" in again["fix"]


def test_exposed_files_and_a_file_that_is_not_understood_are_found(site: Site) -> None:
    (site.home / "secrets" / "manifest-key").chmod(0o644)
    config = site.home / "config.toml"
    config.write_text(config.read_text() + "\n[gateway2]\nx = 1\n")
    done = site.run("--json", "doctor", check=False)
    assert done.returncode == 6
    failed = {c["name"]: c for c in json.loads(done.stdout)["checks"] if c["outcome"] == "failed"}
    assert set(failed) == {"home.modes", "settings.file"}
    assert "would not start again" in failed["settings.file"]["seen"]
    assert failed["home.modes"]["fix"].startswith("chmod 600 ")


def test_a_ledger_that_was_changed_shows_at_its_tip(site: Site, engine: FaultEngine) -> None:
    import sqlite3  # noqa: PLC0415 (for the culprit alone)

    site.deployment("good", engine.url)
    key = site.key()
    body = {"model": "good", "messages": [{"role": "user", "content": "x"}]}
    for _ in range(3):
        assert site.post("/chat/completions", body, key)[0] == 200
    assert checks(site, "ledger.tip")[("ledger.tip", "")]["outcome"] == "ok"
    culprit = sqlite3.connect(site.home / "ledger.db", timeout=10)
    with culprit:
        culprit.execute("UPDATE records SET output_tokens = 1 WHERE seq = 2")
    culprit.close()
    tip = checks(site, "ledger.tip")[("ledger.tip", "")]
    assert tip["outcome"] == "failed"
    assert "Record 2" in tip["seen"]


def test_the_log_is_followed_and_its_level_changes_at_once(site: Site) -> None:
    follower = subprocess.Popen(
        [*site.command, "logs", "--follow", "--json", "--lines", "1"],
        stdout=subprocess.PIPE,
        env=site.environ,
        text=True,
    )
    try:
        assert follower.stdout
        assert json.loads(follower.stdout.readline())["event"]
        # An engine that does not answer is an event.
        site.deployment("dark", "http://127.0.0.1:9/v1", wait=False)
        line = json.loads(follower.stdout.readline())
        assert line["level"] in {"info", "warning"}
        assert line["seq"] > 0
    finally:
        follower.kill()
        follower.wait()
        follower.stdout.close()
    done = site.cic("settings", "set", "log.level", "debug")
    assert (done["written"], done["restart"]) == (True, [])
    debug = [json.loads(x) for x in site.run("logs", "--json").stdout.splitlines()]
    assert debug
    rows = {row["name"]: row for row in site.cic("settings", "list")}
    assert rows["log.level"]["value"] == "debug"
    assert rows["gateway.listen"]["source"] == "command"
    site.restart()
    assert {r["name"]: r for r in site.cic("settings", "list")}["log.level"]["source"] == "file"
    assert site.admin("GET", "/v1/audit/verify")["ok"]


def test_a_site_with_a_bad_setting_is_mended_without_its_appliance(site: Site) -> None:
    site.stop()
    config = site.home / "config.toml"
    config.write_text(config.read_text() + '\n[timeouts]\ndrain_s = "soon"\n')
    assert site.run("serve", check=False).returncode == 7
    assert "drain_s" in site.run("doctor", check=False).stdout
    site.run("settings", "unset", "timeouts.drain_s")
    site.start()
    assert site.status()["ready"]
