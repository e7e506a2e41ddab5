"""8 Ops: what it shows of a site's parts, in all states and sizes, and which commands it runs."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance.admin.settings_facts import describe
from appliance.domain.clock import iso
from appliance.settings import Settings, read_sourced
from appliance.wire.admin import SiteStatus
from appliance.wire.backups import Backup, BackupList
from appliance.wire.certificates import SiteCertificate
from appliance.wire.checks import CheckOutcome, CheckResult
from appliance.wire.fleet import Node
from appliance.wire.home import find_home
from appliance.wire.manifests import SealingStatus
from appliance.wire.settings import Setting, takes
from console.actions import answered
from console.children import twin
from console.client import AdminError
from console.screens.ops_backups import create, put_back, restore, verify
from console.screens.ops_certificates import of_node
from console.screens.ops_running import DiagnosticsView
from console.screens.ops_settings import of_setting
from console.screens.ops_words import diagnosis_lines, field, parse_figures
from tests.fakes.console_pilot import NOW, Driven, driven
from tests.fakes.sync_port import ENTITLEMENT, STATUS

SIZES = [(80, 24), (160, 48)]
STATES = ["empty", "busy", "failed"]
Opened = Callable[..., AbstractAsyncContextManager[Driven]]
FILE = b'[site]\nname = "gpubox-01"\n[timeouts]\ndrain_s = 45\n[log]\nlevel = "debug"\n'
METRICS = b"""# TYPE crosslogic_requests_total counter
# TYPE crosslogic_refusals_total counter
crosslogic_refusals_total{code="rate_limited"} 7.0
crosslogic_process_cpu_seconds_total 12.5
crosslogic_process_resident_bytes 9.5e+07
crosslogic_process_threads 7.0
crosslogic_process_open_files 42.0
crosslogic_process_open_files_max 20000.0
crosslogic_event_loop_delay_seconds 0.0071
crosslogic_ledger_records 71000.0
crosslogic_ledger_open 3.0
crosslogic_ledger_commit_seconds_count 900.0
crosslogic_ledger_commit_seconds_sum 0.9
crosslogic_ledger_failures_total 0.0
crosslogic_requests_running 3.0
crosslogic_streams_open 2.0
crosslogic_connections_open 5.0
crosslogic_connections_refused_total 0.0
crosslogic_retries_total 1.0
"""
# Of the settings there are: the pictures stay when others come.
NAMES = {
    *("site.name", "access.viewers", "gateway.listen", "gateway.upstream_connections_idle_max"),
    *("timeouts.head_s", "timeouts.drain_s", "limits.concurrency", "sync.proxy", "log.level"),
}
MADE = iso(int((NOW - timedelta(hours=26)).timestamp()) * 10**9)


def setting_rows() -> list[Setting]:
    started = read_sourced(b'[site]\nname = "gpubox-01"\n', Path("config.toml"), {})
    now = read_sourced(FILE, Path("config.toml"), {})
    rows = describe(started.settings, started, now, serving=True)
    return [row for row in rows if row.name in NAMES]


def certificate_rows(state: str) -> list[SiteCertificate]:
    node: dict[str, Any] = {"kind": "node", "used_for": "Shows which node it is."}
    node |= {"renewal": "By itself, after half of its life.", "serial": "4F2A" * 10}
    authority = SiteCertificate(
        kind="site CA",
        name="site CA",
        state="good",
        subject="CN=CrossLogic site 0123456789ab",
        serial="44C1E998AB3D858F0DE6A4524F4E8BD141ABC761",
        fingerprint="ab" * 32,
        expires_at="2046-11-18T15:36:22.000Z",
        days_left=7_299,
        used_for="Vouches for nodes and for this appliance.",
        renewal="Never by itself: a new one is a new site for its nodes.",
    )
    if state == "empty":
        return [authority]
    late = "ending" if state == "failed" else "good"
    return [
        authority,
        SiteCertificate(name="gpu-00", state="good", expires_at=MADE, days_left=1, **node),
        SiteCertificate(name="gpu-01", state=late, expires_at=MADE, days_left=0, **node),  # type: ignore[arg-type]  # one of the states
        SiteCertificate(name="gpu-01", state="replaced", expires_at=MADE, days_left=0, **node),
    ]


def status_of(state: str) -> SiteStatus:
    def node(name: str, version: str) -> Node:
        return Node(
            id=f"nod_{name}", name=name, region="local", state="ready", agent_version=version,
            cores=64, memory_bytes=2**38, gpus=["A100"], engines=["vllm"],
            last_seen_at=MADE, created_at=MADE, engine_versions={"vllm": "0.21.1"},
        )  # fmt: skip

    nodes = [] if state == "empty" else [node("gpu-00", "1.4.0"), node("gpu-01", "1.4.0")]
    if state == "failed":
        nodes.append(node("gpu-02", "1.3.0"))
    return SiteStatus(
        name="gpubox-01", version="1.4.0", region="local", endpoint="http://10.0.0.1:8080/v1",
        ready=True, started_at=MADE, uptime_s=93_600, tenants=1, keys=1, requests_running=0,
        requests_queued=0, records=1, sync=STATUS, entitlement=ENTITLEMENT, deployments=[],
        nodes=nodes, sealing=SealingStatus(
            newest="", sealed_at=None, unsealed_records=0, last_error=""
        ),
    )  # fmt: skip


def backup_list(state: str) -> BackupList:
    kept = Backup(
        path="/srv/backups/gpubox-01-20261122T172200Z.cicbackup",
        made_at=MADE,
        product="1.4.0",
        size_bytes=71_303_168,
        protection="key",
        key_id="0123456789abcdef",
        records=71_000,
        newest="1-240",
    )
    failed = state == "failed"
    return BackupList(
        folder="/srv/backups",
        backups=[] if state == "empty" else [kept],
        due_at=None if state == "empty" else iso(int(NOW.timestamp() + 7_200) * 10**9),
        last_error="The folder /srv/backups cannot be written: No space left." if failed else "",
        key_kept=not failed,
        next_step="Keep the key elsewhere: `cic backup key --to FILE`." if failed else "",
    )


def result(number: int, name: str, outcome: CheckOutcome, seen: str, fix: str = "") -> CheckResult:
    return CheckResult(
        name=name, subject="", outcome=outcome, seen=seen, why="Records wait for the disk.",
        fix=fix, took_ms=number, number=number, total=4,
    )  # fmt: skip


def lines(rows: Sequence[CheckResult]) -> bytes:
    return b"".join(msgspec.json.encode(row) + b"\n" for row in rows)


def checks(state: str) -> bytes:
    rows = [
        result(1, "disk.space", "ok", "1.2 TiB of 1.8 TiB free (66%)."),
        result(
            2, "host.clock", "ok", "It is 2026-11-23 19:22:00 UTC; kept, off by 2.0 ms at most."
        ),
        result(3, "sync", "skipped", "This site was never enrolled."),
    ]
    if state == "failed":
        fix = "Free space on the disk of /srv: `cic model gc --dry-run`, old backups, other files."
        rows[0] = result(1, "disk.space", "failed", "0.4 GiB of 1.8 TiB free (0%).", fix)
        rows[1] = result(2, "host.clock", "warning", "Nothing keeps this clock right.", "chrony")
    return lines(rows)


def prepare(seen: Driven, state: str) -> None:
    answers: dict[str, Any] = seen.site.answers
    answers["/v1/settings"] = msgspec.to_builtins(setting_rows())
    answers["/v1/certificates"] = msgspec.to_builtins(certificate_rows(state))
    answers["/v1/status"] = msgspec.to_builtins(status_of(state))
    answers["/v1/backups"] = msgspec.to_builtins(backup_list(state))
    answers["/v1/checks"] = checks(state)
    answers["/metrics"] = METRICS


@pytest.fixture
def console(tmp_path: Path) -> Opened:
    def opened(**how: Any) -> AbstractAsyncContextManager[Driven]:
        return driven(tmp_path / "home", **how)

    return opened


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("state", STATES)
async def test_how_each_part_stands(console: Opened, state: str, size: tuple[int, int]) -> None:
    async with console(size=size, condition=state) as seen:
        prepare(seen, state)
        await seen.press("8")
        await seen.until(lambda: "…  " not in seen.picture() and "event loop" in seen.picture())
        seen.check(f"ops-{state}")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("state", ["busy", "failed"])
async def test_each_part_has_its_screen(console: Opened, state: str, size: tuple[int, int]) -> None:
    async with console(size=size, condition=state) as seen:
        prepare(seen, state)
        await seen.press("8")
        for part, text in (
            ("checks", "Records wait"),
            ("settings", "What the site is called"),
            ("certificates", "CN=CrossLogic site"),
            ("backups", "gpubox-01-20261122T172200Z"),
            ("version", "Nothing is fetched"),
            ("diagnostics", "71.0k, 3 open"),
            ("tasks", "Nothing slow was done"),
        ):
            assert seen.app.top is not None
            seen.app.top.reveal(part)
            await seen.pilot.pause()
            await seen.reads(text)
            seen.check(f"ops-{part}-{state}")
            await seen.press("escape")


async def test_what_cannot_be_read_is_said_in_its_line_and_nothing_breaks(console: Opened) -> None:
    async with console() as seen:
        await seen.press("8")
        await seen.until(lambda: seen.picture().count("✖ unread") == 5)
        for part in ("checks", "settings", "certificates", "backups", "version", "diagnostics"):
            assert seen.app.top is not None
            seen.app.top.reveal(part)
            await seen.pilot.pause()
            await seen.reads("is not simulated")
            await seen.press("escape")


async def test_checks_can_be_run_again_and_the_worst_is_under_the_cursor(console: Opened) -> None:
    async with console() as seen:
        prepare(seen, "busy")
        await seen.press("8", "enter")
        await seen.reads("2 ok, 1 skipped")
        seen.site.answers["/v1/checks"] = checks("failed")
        await seen.press("r")
        await seen.reads("1 failed, 1 warning, 1 skipped")
        await seen.reads("> ✖ failed")
        await seen.reads("cic model gc --dry-run")
        assert isinstance(seen.app.top.subject() if seen.app.top else None, list)


async def test_figures_are_not_asked_for_while_the_appliance_is_away(console: Opened) -> None:
    async with console() as seen:
        prepare(seen, "busy")
        await seen.press("8")
        assert seen.app.top is not None
        seen.app.top.reveal("diagnostics")
        await seen.reads("71.0k, 3 open")
        view = seen.app.top
        assert isinstance(view, DiagnosticsView)
        asked = seen.site.asked.count("/metrics")
        seen.app.trouble = AdminError("not_running", "It does not run.")
        view._again()
        await seen.pilot.pause()
        assert seen.site.asked.count("/metrics") == asked
        seen.app.trouble = None
        view._again()
        await seen.until(lambda: seen.site.asked.count("/metrics") == asked + 1)


async def test_a_viewer_is_offered_no_changes(console: Opened) -> None:
    async with console(role="viewer") as seen:
        prepare(seen, "busy")
        await seen.press("8")
        assert seen.app.top is not None
        for part in ("settings", "backups", "certificates"):
            seen.app.top.reveal(part)
            await seen.pilot.pause()
            await seen.until(lambda: seen.app.me is not None)
            footer = seen.picture().splitlines()[-1]
            assert not {"Edit", "New backup", "Revoke"} & set(footer.split("  "))
            await seen.press("E", "X", "B")
            assert len(seen.app.screen_stack) == 1
            await seen.press("escape")


async def test_ascii_stays_ascii(console: Opened) -> None:
    async with console(ascii_only=True) as seen:
        prepare(seen, "failed")
        await seen.press("8")
        for part in ("checks", "settings", "certificates", "backups", "version", "diagnostics"):
            assert seen.app.top is not None
            seen.app.top.reveal(part)
            await seen.pilot.pause()
            await seen.until(lambda: seen.picture().count("--") > 3)
            assert seen.picture().isascii()
            assert " ? " not in seen.picture().replace("? help", "")  # a sign without a form
            await seen.press("escape")


def test_an_edit_is_the_command_that_does_it() -> None:
    rows = {row.name: row for row in setting_rows()}
    edit, unset = of_setting(rows["timeouts.drain_s"])
    assert edit.argv({"value": "9"}) == ["settings", "set", "timeouts.drain_s", "9"]
    assert edit.fields[0].default == "45"  # what waits is what is edited
    assert unset.argv({}) == ("settings", "unset", "timeouts.drain_s")
    assert unset.danger == "confirm"
    assert len(of_setting(rows["timeouts.head_s"])) == 1
    level = of_setting(rows["log.level"])[0].fields[0]
    assert answered([level], {"value": "loud"})
    proxy = of_setting(rows["sync.proxy"])[0]
    assert proxy.argv({"value": "http://u:p@h"}) == ["settings", "set", "sync.proxy"]
    assert proxy.stdin == "value"
    assert proxy.fields[0].kind == "secret"
    assert takes(rows["limits.concurrency"]) == "whole number, at least 1, or none"


def test_a_passphrase_is_never_in_a_command() -> None:
    found = backup_list("busy")
    made = create(found.folder)
    assert made.argv({"to": found.folder, "passphrase": ""}) == ["backup", "create"]
    asked = made.argv({"to": "/mnt/stick", "passphrase": "five words or more"})
    assert asked == ["backup", "create", "--to", "/mnt/stick", "--passphrase-file", "-"]
    by_phrase = msgspec.structs.replace(found.backups[0], key_id="", protection="passphrase")
    assert verify(by_phrase).argv({"passphrase": "x y z"})[-2:] == ["--passphrase-file", "-"]
    assert verify(found.backups[0]).fields == ()
    assert Path(found.backups[0].path).name in put_back(found.backups[0])


def test_a_backup_is_restored_into_another_home() -> None:
    kept = backup_list("busy").backups[0]
    action = restore(kept, "/h/backup-key")
    argv = action.argv({"to": "/srv/again"})
    assert argv == [
        *("--home", "/srv/again", "backup", "restore", kept.path, "--key-file", "/h/backup-key")
    ]
    line = twin(find_home("/h", {}), argv)
    assert line.startswith("cic --home /srv/again backup restore")
    by_phrase = restore(msgspec.structs.replace(kept, key_id=""), "/h/backup-key")
    sealed = by_phrase.argv({"to": "/srv/again", "passphrase": "five words or more"})
    assert sealed[-2:] == ["--passphrase-file", "-"]
    assert "five" not in " ".join(sealed)


def test_revoking_wants_the_nodes_name() -> None:
    revoke, token = of_node("gpu-07")
    assert (revoke.danger, revoke.type_this) == ("typed", "gpu-07")
    assert token.argv({"ttl": "2h"})[-1] == "2h"
    assert token.shown_once == "command"


def test_rates_need_two_readings_and_what_was_never_counted_is_zero() -> None:
    now = parse_figures(METRICS.decode())
    assert now["crosslogic_requests_total"] == 0
    assert now["crosslogic_refusals_total"] == 7
    once = "\n".join("".join(cell.text for cell in line) for line in diagnosis_lines(now, {}, 0))
    assert "processor    –" in once
    before = {**now, "crosslogic_process_cpu_seconds_total": 12.3}
    before["crosslogic_ledger_commit_seconds_count"] = 898.0
    before["crosslogic_ledger_commit_seconds_sum"] = 0.898
    twice = diagnosis_lines(now, before, 2.0)
    text = "\n".join("".join(cell.text for cell in line) for line in twice)
    assert "10.0% of a core" in text
    assert "1/s, 1.0ms each now" in text
    assert "–" in "".join(c.text for line in diagnosis_lines({}, {}, 0) for c in line)


def test_a_field_wraps_and_loses_nothing() -> None:
    text = "word " * 60
    wrapped = field("label", text, 80)
    assert all(sum(len(cell.text) for cell in line) <= 80 for line in wrapped)
    assert " ".join(line[1].text for line in wrapped).split() == text.split()
    assert isinstance(Settings(), Settings)
