"""`cic settings`, `logs`, `doctor`, `certificate`: of a site that runs, and one that does not."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.commands.logs import sentence
from appliance.settings import load
from appliance.wire.log_lines import LogLine
from appliance.wire.settings import Setting, takes
from tests.fakes.admin_site import AdminSite, served
from tests.fakes.command_line import cic


@pytest.fixture
def site(tmp_path: Path) -> Iterator[AdminSite]:
    with served(tmp_path) as running:
        yield running


def test_settings_are_listed_shown_changed_and_checked(site: AdminSite) -> None:
    home = site.home.root
    rows = cic("--home", home, "settings", "list", "--json").json
    assert {row["name"]: row["source"] for row in rows}["site.name"] == "file"
    assert len(cic("--home", home, "settings", "list", "--changed", "--json").json) == 1
    done = cic("--home", home, "settings", "set", "timeouts.drain_s", "45")
    assert done.code == 0
    assert "after the next start" in done.out
    shown = cic("--home", home, "settings", "show", "timeouts.drain_s")
    assert "seconds, more than 0, at most 31536000" in shown.out
    assert "45" in shown.out
    assert cic("--home", home, "settings", "check", "--json").json["restart"] == [
        "timeouts.drain_s"
    ]
    assert cic("--home", home, "settings", "unset", "timeouts.drain_s").code == 0
    assert load(site.home.config_file, {}).timeouts.drain_s == 30.0
    again = cic("--home", home, "settings", "unset", "timeouts.drain_s")
    assert again.out == "Nothing is different.\n"
    dry = cic("--home", home, "settings", "set", "log.level", "debug", "--check", "--json").json
    assert (dry["written"], dry["changed"]) == (False, ["log.level"])
    refused = cic("--home", home, "--json", "settings", "set", "log.level", "loud")
    assert (refused.code, refused.error["code"]) == (2, "setting_refused")
    missing = cic("--home", home, "settings", "show", "log.loud", "--json")
    assert (missing.code, missing.error["code"]) == (3, "not_found")


def test_a_url_with_a_password_is_read_from_the_input_and_shown_without_it(site: AdminSite) -> None:
    home = site.home.root
    done = cic("--home", home, "settings", "set", "sync.proxy", stdin="http://u:pw1@p:1\n")
    assert done.code == 0
    assert load(site.home.config_file, {}).sync.proxy == "http://u:pw1@p:1"
    told = cic("--home", home, "settings", "show", "sync.proxy").out
    assert "u:***@p" in told
    assert "pw1" not in told + cic("--home", home, "audit", "list").out


def test_a_stopped_site_is_mended(tmp_path: Path) -> None:
    home = tmp_path / "h"
    assert cic("--home", home, "init").code == 0
    file = home / "config.toml"
    file.write_text('[timeouts]\ndrain_s = "soon"\n[gateway]\nport = 3\n')
    refused = cic("--home", home, "--json", "settings", "list")
    assert (refused.code, refused.error["code"]) == (7, "bad_settings")
    assert cic("--home", home, "settings", "check").code == 7
    sick = cic("--home", home, "--json", "doctor", "--only", "settings")
    assert sick.code == 6
    assert [check["outcome"] for check in sick.json["checks"]] == ["failed"]
    assert cic("--home", home, "settings", "unset", "timeouts.drain_s", "gateway.port").code == 0
    assert cic("--home", home, "settings", "check").code == 0
    assert "update" in cic("--home", home, "audit", "list").out
    assert cic("--home", home, "audit", "verify").code == 0
    checked = cic("--home", home, "--json", "doctor").json
    found = {check["name"]: check["outcome"] for check in checked["checks"]}
    assert found["appliance"] == "failed"
    assert found["settings.file"] == found["secrets"] == found["registry.integrity"] == "ok"


def test_an_exposed_secret_and_a_damaged_registry_are_found(tmp_path: Path) -> None:
    home = tmp_path / "h"
    assert cic("--home", home, "init").code == 0
    (home / "secrets" / "seal-key").chmod(0o644)
    (home / "registry.db").write_bytes(b"no database at all" * 1_000)
    checks = cic("--home", home, "--json", "doctor").json["checks"]
    failed = {check["name"]: check for check in checks if check["outcome"] == "failed"}
    assert set(failed) == {"appliance", "home.modes", "secrets", "registry.integrity"}
    assert "chmod 600" in failed["home.modes"]["fix"]


def test_doctor_tells_each_check_with_what_to_do(site: AdminSite) -> None:
    told = cic("--home", site.home.root, "doctor")
    assert told.code == 6  # this one's checks say that nothing runs
    assert "FAILED    appliance: The appliance does not run." in told.out
    assert "-> Start it" in told.out
    assert " failed, " in told.out.splitlines()[-1]


def test_logs_are_shown_filtered_and_as_json(site: AdminSite) -> None:
    ring, home = site.services.upkeep.logs, site.home.root
    for number, level in enumerate((logging.INFO, logging.WARNING, logging.ERROR)):
        record = logging.makeLogRecord(
            {"name": "appliance.x", "levelno": level, "levelname": logging.getLevelName(level)}
            | {"msg": f"event {number}", "node": "n\x1b[31m7"}
        )
        ring.handle(record)
    assert len(cic("--home", home, "logs").out.splitlines()) == 3
    bad = cic("--home", home, "logs", "--level", "error").out
    assert "ERROR" in bad
    assert "x: event 2 node=n\\x1b[31m7" in bad
    assert len(cic("--home", home, "logs", "--grep", "EVENT 1").out.splitlines()) == 1
    lines = cic("--home", home, "logs", "--lines", "2", "--json").out.splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["event 1", "event 2"]
    assert cic("--home", home, "logs", "--since", "1h").out.count("event") == 3
    assert cic("--home", home, "logs", "--since", "2100-01-01").out == ""


def test_certificates_are_listed(site: AdminSite) -> None:
    rows = cic("--home", site.home.root, "certificate", "list", "--json").json
    assert [row["kind"] for row in rows] == ["site CA", "appliance", "endpoint"]
    assert rows[0]["fingerprint"] == site.services.upkeep.authority.fingerprint
    assert "site CA" in cic("--home", site.home.root, "certificate", "list").out


def test_a_line_says_what_was_forgotten_before_it() -> None:
    line = LogLine(
        seq=9, at="2026-11-22T19:22:03.250Z", level="info", logger="a", event="e", missed=1_200
    )
    assert sentence(line).startswith("(1,200 lines before this one are forgotten)\n2026-11-22")


def test_what_a_setting_takes_is_a_sentence() -> None:
    row = Setting(
        name="a.b", section="a", value="x", default="x", source="default", kind="choice",
        choices=("x", "y"), optional=True, meaning="", variable="CIC_A_B", restart=True,
    )  # fmt: skip
    assert takes(row) == "x | y, or none"
