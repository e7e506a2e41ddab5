"""Settings over the admin API: shown with their sources, changed without losing a comment."""

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.admin.settings_desk import SettingsDesk, edited
from appliance.admin.settings_facts import describe, facts, shown, text_of
from appliance.settings import Settings, SettingsError, load, read_sourced, value_of
from appliance.wire.setting_meanings import MEANINGS
from appliance.wire.settings import SettingsChange
from tests.fakes.admin_site import AdminSite, served

FILE = """# kept: why this site is named so
[site]
name = "test"   # and this

[timeouts]
drain_s = 12.5
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[AdminSite]:
    with served(tmp_path) as running:
        yield running


def desk(tmp_path: Path, text: str = FILE, **environ: str) -> SettingsDesk:
    file = tmp_path / "config.toml"
    file.write_text(text)
    return SettingsDesk(file, environ, load(file, environ))


def row_of(rows: Any, name: str) -> Any:
    return next(row for row in rows if row.name == name)


def test_every_setting_has_a_meaning_a_kind_and_a_default_that_it_takes() -> None:
    assert {fact.name for fact in facts()} == set(MEANINGS)
    for fact in facts():
        assert value_of(fact.name, text_of(fact.default)) == fact.default


def test_a_source_is_told_and_a_variable_goes_before_the_file(tmp_path: Path) -> None:
    rows = desk(tmp_path, CIC_TIMEOUTS_DRAIN_S="7", CIC_HOME="/x").rows()
    assert (row_of(rows, "site.name").source, row_of(rows, "site.name").value) == ("file", "test")
    assert row_of(rows, "timeouts.drain_s").source == "environment"
    assert row_of(rows, "timeouts.drain_s").value == "7"
    assert row_of(rows, "timeouts.head_s").source == "default"
    assert row_of(rows, "timeouts.head_s").minimum == "0"
    assert row_of(rows, "timeouts.head_s").above
    assert row_of(rows, "log.level").choices == ("debug", "info", "warning", "error")
    assert not row_of(rows, "log.level").restart
    assert row_of(rows, "limits.concurrency").optional


def test_an_option_of_serve_is_told_and_nothing_of_it_waits(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(FILE)
    sourced = read_sourced(FILE.encode(), file, {})
    running = load(file, {"CIC_GATEWAY_LISTEN": "127.0.0.1:1"})
    row = row_of(describe(running, sourced, sourced, serving=True), "gateway.listen")
    assert (row.source, row.value, row.pending) == ("command", "127.0.0.1:1", None)


def test_what_was_written_by_hand_waits_also_where_the_command_counts_at_once(
    tmp_path: Path,
) -> None:
    changer = desk(tmp_path, '[log]\nlevel = "error"\n')
    (tmp_path / "config.toml").write_text('[log]\nlevel = "debug"\n')
    row = row_of(changer.rows(), "log.level")
    assert (row.value, row.source, row.pending) == ("error", "file", "debug")
    changer.write(changer.draft(SettingsChange(unset=("log.level",))))
    row = row_of(changer.rows(), "log.level")
    assert (row.value, row.source, row.pending) == ("info", "default", None)


def test_a_change_keeps_comments_order_mode_and_everything_else(tmp_path: Path) -> None:
    changer = desk(tmp_path)
    file = tmp_path / "config.toml"
    file.chmod(0o600)
    change = SettingsChange(
        set={"timeouts.drain_s": "40", "access.viewers": "root, nobody"}, unset=("site.name",)
    )
    changer.write(changer.draft(change))
    text = file.read_text()
    assert "# kept: why this site is named so" in text
    assert "drain_s = 40" in text
    assert load(file, {}).access.viewers == ("root", "nobody")
    assert load(file, {}).site.name == "site"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["config.toml"]
    assert row_of(changer.rows(), "timeouts.drain_s").pending == "40"
    assert changer.waiting() == ["site.name", "timeouts.drain_s"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real = tmp_path / "real.toml"
    real.write_text(FILE)
    link = tmp_path / "config.toml"
    link.symlink_to(real)
    changer = SettingsDesk(link, {}, load(link, {}))
    changer.write(changer.draft(SettingsChange(set={"site.name": "other"})))
    assert link.is_symlink()
    assert 'name = "other"' in real.read_text()


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("timeouts.head_s", "0", "head_s"),
        ("timeouts.head_s", "inf", "head_s"),
        ("timeouts.head_s", "ten", "head_s"),
        ("gateway.listen", "8080", "HOST:PORT"),
        ("gateway.listen", "::1:80", "HOST:PORT"),
        ("metrics.listen", "127.0.0.1:99999", "HOST:PORT"),
        ("log.level", "loud", "level"),
        ("site.name", "", "printable"),
        ("site.region", "a/b", "region"),
        ("sync.control_plane_url", "ftp://x", "URL"),
        ("limits.concurrency", "0", "concurrency"),
        ("gateway.port", "1", "not a setting"),
        ("port", "1", "not a setting"),
    ],
)
def test_what_a_site_would_not_start_with_is_refused_and_nothing_is_written(
    site: AdminSite, name: str, text: str, told: str
) -> None:
    before = site.home.config_file.read_bytes()
    answer = site.client.patch("/v1/settings", json={"set": {name: text}})
    assert answer.status_code == 400
    assert answer.json()["code"] == "setting_refused"
    assert told in answer.json()["message"]
    assert site.home.config_file.read_bytes() == before


def test_a_change_is_audited_and_says_what_waits_for_a_start(site: AdminSite) -> None:
    body = {"set": {"log.level": "debug", "sync.proxy": "http://me:pw@proxy:3128"}}
    checked = site.client.patch("/v1/settings", json={**body, "check": True}).json()
    assert (checked["written"], checked["changed"]) == (False, ["sync.proxy", "log.level"])
    done = site.client.patch("/v1/settings", json=body)
    assert done.json()["written"]
    assert done.json()["restart"] == ["sync.proxy"]
    entry = json.loads(site.client.get("/v1/audit").text.splitlines()[-1])
    assert (entry["action"], entry["object_kind"]) == ("update", "settings")
    assert entry["after"] == {
        "log.level": ["info", "debug"],
        "sync.proxy": ["none", "http://me:***@proxy:3128"],
    }
    rows = {row["name"]: row for row in site.client.get("/v1/settings").json()}
    assert rows["log.level"]["value"] == "debug"
    assert (rows["sync.proxy"]["value"], rows["sync.proxy"]["pending"]) == (
        "none",
        "http://me:***@proxy:3128",
    )
    again = site.client.patch("/v1/settings", json=body).json()
    assert (again["written"], again["changed"]) == (False, [])
    assert site.client.patch("/v1/settings", json={}).json()["code"] == "bad_request"


def test_a_file_that_somebody_else_changed_is_not_overwritten(tmp_path: Path) -> None:
    changer = desk(tmp_path)
    draft = changer.draft(SettingsChange(set={"site.name": "mine"}))
    (tmp_path / "config.toml").write_text('[site]\nname = "theirs"\n')
    with pytest.raises(Exception, match="somebody else"):
        changer.write(draft)
    assert "theirs" in (tmp_path / "config.toml").read_text()


def test_a_file_that_is_not_understood_is_told_and_can_be_mended(tmp_path: Path) -> None:
    changer = desk(tmp_path)
    file = tmp_path / "config.toml"
    file.write_text('[timeouts]\ndrain_s = "soon"\n')
    with pytest.raises(SettingsError):
        changer.waiting()
    assert row_of(changer.rows(), "timeouts.drain_s").pending is None
    changer.write(changer.draft(SettingsChange(unset=("timeouts.drain_s",))))
    assert load(file, {}).timeouts.drain_s == 30.0


def test_what_a_change_does_not_say_of_itself_is_told(tmp_path: Path) -> None:
    changer = desk(tmp_path, CIC_TIMEOUTS_DRAIN_S="7")
    change = SettingsChange(
        set={"timeouts.drain_s": "9", "access.admins": "no-such-group", "sync.ca_file": "/nowhere"}
    )
    told = " ".join(changer.draft(change, frozenset({"users"})).answer.warnings)
    assert "CIC_TIMEOUTS_DRAIN_S" in told
    assert "no-such-group" in told
    assert "none of the groups" in told
    assert "/nowhere" in told


@given(st.sampled_from([fact for fact in facts() if fact.kind == "text"]), st.text(max_size=40))
def test_any_text_comes_back_as_it_was_written(fact: Any, text: str) -> None:
    if text == "none" and fact.optional:
        return
    content = edited(FILE.encode(), SettingsChange(set={fact.name: text}), Path("f"))
    assert fact.of(read_sourced(content, Path("f"), {}).settings) == text


def test_only_a_password_is_hidden() -> None:
    assert shown("http://me:se:cret@p:1/x") == "http://me:***@p:1/x"
    assert shown("someone@example") == "someone@example"
    assert isinstance(Settings(), Settings)
