"""Servers in good health and broken ones: what is said of them, by whom, and what is not said."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from installer.checks.addresses import listeners
from installer.checks.catalogue import CHECKS
from installer.checks.clock import EARLIEST
from installer.checks.findings import Group, Role, Severity, Wanted, check, ok
from installer.checks.gpu import QUERY
from installer.checks.host import COMMAND_TIMEOUT_S, Output
from installer.checks.main import built_at, preflight
from installer.checks.real_host import RealHost
from installer.checks.runner import run_checks
from installer.checks.table import table
from tests.architecture.tree import ROOT
from tests.fakes.broken_hosts import (
    BROKEN,
    BUILT_AT,
    DRIVER,
    HANGS,
    RELEASE,
    Broken,
    WrittenHost,
    gateway,
    node,
    unload,
)

WANTED = Wanted(built_at=BUILT_AT)
CANARY = "canary-7f3a9c"


def seen_as(host: WrittenHost, wanted: Wanted = WANTED) -> dict[str, tuple[str, str, str]]:
    found = run_checks(host, wanted, deadline_s=0.4)
    return {one.id: (one.severity.value, one.seen, one.fix) for one in found}


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("make", [gateway, node])
def test_of_a_server_in_good_health_nothing_is_said(make: object, role: Role) -> None:
    assert callable(make)
    found = run_checks(make(), Wanted(role, built_at=BUILT_AT))
    said = {one.id: one.seen for one in found if one.severity is not Severity.OK}
    no_gpu = make is gateway and role is not Role.GATEWAY
    assert said.keys() == ({"gpu.present"} if no_gpu else set()), said


def test_eight_gpus_are_counted() -> None:
    found = seen_as(node())
    assert found["gpu.answers"][:2] == ("ok", "8 GPU(s) answer")
    assert found["gpu.fabric_manager"][1].startswith("4 NVSwitch")


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.name)
def test_of_a_broken_server_the_cause_and_the_fix_are_named(case: Broken) -> None:
    host = node()
    case.breaks(host)
    found = seen_as(host)
    severity, seen, fix = found[case.check]
    assert severity == case.severity, seen
    assert case.seen in seen
    assert case.fix in fix
    assert "--token" not in str(found)
    blockers = {name for name, told in found.items() if told[0] == "blocker"}
    assert blockers == ({case.check} if case.severity == "blocker" else set()), found


def test_every_check_is_told_once_with_why_and_fix() -> None:
    assert len(CHECKS) >= 46
    assert max(Counter(one.id for one in CHECKS).values()) == 1
    assert {one.group for one in CHECKS} == set(Group)
    for one in CHECKS:
        assert re.fullmatch(r"[a-z]+\.[a-z0-9_]+", one.id)
        assert all(len(text) > 10 for text in (one.looks_at, one.why, one.fix)), one.id
        assert one.roles


def test_the_page_tells_every_check_as_the_program_does() -> None:
    page = (ROOT / "docs" / "PREFLIGHT.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if re.match(r"\| `\w+\.\w+` \|", line)]
    assert rows == [
        f"| `{one.id}` | {one.looks_at} | {one.why} | {one.fix.replace('|', chr(92) + '|')} |"
        for one in CHECKS
    ]


def test_a_check_that_raises_or_hangs_is_unknown_and_ends_nothing() -> None:
    @check("gpu.raises", looks_at="", why="why", fix="fix")
    def raises(host: object, _: Wanted) -> object:
        raise ZeroDivisionError(CANARY)

    @check("gpu.hangs", looks_at="", why="why", fix="fix")
    def hangs(host: WrittenHost, _: Wanted) -> object:
        return host.never.wait()

    @check("gpu.well", looks_at="", why="why", fix="fix")
    def well(host: object, _: Wanted) -> object:
        return ok("well")

    began = time.monotonic()
    found = run_checks(gateway(), WANTED, [raises, hangs, well], deadline_s=0.2)
    assert time.monotonic() - began < 2
    assert [one.severity.value for one in found] == ["unknown", "unknown", "ok"]
    assert CANARY not in str(found)
    assert all(one.fix for one in found[:2])


def test_a_driver_that_hangs_leaves_the_other_answers() -> None:
    host = node()
    host.commands[QUERY] = HANGS
    found = seen_as(host)
    waiting = {name for name, told in found.items() if told[0] == "unknown"}
    assert waiting
    assert all(name.startswith("gpu.") for name in waiting)
    assert found["gpu.driver"][0] == "ok"


def test_what_only_root_sees_is_unknown_to_others() -> None:
    host = node()
    host.hidden |= {"/etc/sudoers", "/sys/kernel/security/lockdown"}
    host.root = False
    found = seen_as(host)
    for name in ("policy.sudo", "policy.lockdown"):
        assert found[name][0] == "unknown"
        assert "run as root to see" in found[name][1]
    assert found["system.privileges"][0] == "note"


def test_the_exit_code_and_the_json_say_whether_something_blocks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    host = node()
    host.time = WANTED.built_at.replace(year=2099) if WANTED.built_at else host.time
    assert preflight(["--only", "gpu", "--json"], node()) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ready"]
    assert told["schema"] == 1
    assert told["role"] == "all"
    assert set(told["findings"][0]) == {"id", "group", "severity", "seen", "why", "fix"}
    assert preflight(["--only", "time", "--json"], host) == 3
    assert json.loads(capsys.readouterr().out)["counts"]["blocker"] == 1
    assert preflight(["--list", "--role", "gateway"]) == 0
    listed = capsys.readouterr().out
    assert "network.ports" in listed
    assert "gpu." not in listed
    with pytest.raises(SystemExit) as ended:
        preflight(["--only", "nothing"])
    assert ended.value.code == 2


def test_the_table_keeps_to_80_columns_and_obeys_no_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for case in BROKEN:
        host = node()
        case.breaks(host)
        host.listen(8080, "evil\x1b[2J", 9)
        if case.check != "gpu.answers":
            preflight([], host)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "evil?[2J" in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_this_machine_is_looked_at_in_five_seconds_and_no_variable_is_told(
    form: tuple[str, ...],
) -> None:
    secret = dict.fromkeys(
        ("HTTP_PROXY", "https_proxy", "no_proxy", "LANG", "API_TOKEN", "NO_COLOR"), CANARY
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-I", ROOT / "installer" / "checks", *form],
        env=os.environ | secret,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert time.monotonic() - began < 5
    assert done.returncode in {0, 3}, done.stderr
    assert CANARY not in done.stdout + done.stderr
    assert "HTTP_PROXY" in done.stdout
    assert not re.search(r"\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b", done.stdout)
    assert "the check failed" not in done.stdout


def test_a_command_that_does_not_end_is_given_up_and_run_once() -> None:
    host = RealHost()
    began = time.monotonic()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            host.run("sleep", "60")
    assert time.monotonic() - began < 2 * COMMAND_TIMEOUT_S
    with pytest.raises(FileNotFoundError):
        host.run("no-such-program-here")


def test_this_machine_answers_by_the_rules_of_a_host(tmp_path: Path) -> None:
    host = RealHost()
    absent = tmp_path / "absent"
    assert host.facts(str(absent)) is None
    assert host.names(str(absent)) == ()
    with pytest.raises(FileNotFoundError):
        host.read(str(absent))
    absent.symlink_to("nowhere")
    assert host.link(str(absent)) == "nowhere"
    assert host.facts(str(absent)) is None
    assert 0 < host.sync_latency_s(str(tmp_path / "a" / "b")) < 5
    assert [file.name for file in tmp_path.iterdir()] == ["absent"]
    assert host.space(str(tmp_path / "a" / "b")).bytes_total > 0
    assert str(os.getpid()) in host.own_processes()


def test_who_listens_is_named_by_the_program_that_does() -> None:
    host = RealHost()
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
        inode = listeners(host)[port]
        assert host.socket_owner(inode) == host.read("/proc/self/comm").strip()
    assert port not in listeners(host)


@pytest.mark.parametrize("no_proxy", ["10.20.0.5", "10.0.0.0/8", "*", "localhost, 10.20.0.5"])
def test_no_proxy_is_read_as_clients_read_it(
    monkeypatch: pytest.MonkeyPatch, no_proxy: str
) -> None:
    monkeypatch.setenv("no_proxy", no_proxy)
    assert RealHost().no_proxy_covers("10.20.0.5")
    for other in ("", "10.20.0.6", "10.21.0.0/16", "nonsense/8"):
        monkeypatch.setenv("no_proxy", other)
        assert not RealHost().no_proxy_covers("10.20.0.5")


def test_a_version_that_runs_takes_its_own_ports() -> None:
    host = node()
    host.links["/opt/crosslogic/current"] = "/opt/crosslogic/0.1.0"
    host.files["/opt/crosslogic/current"] = ""
    host.listen(8443, "systemd")
    found = seen_as(host)
    assert found["network.ports"][0] == "note"
    assert found["system.installed"][:2] == ("note", "version 0.1.0 is installed")
    assert not [name for name, told in found.items() if told[0] == "blocker"]


def test_colour_marks_severities_and_changes_no_word() -> None:
    found = run_checks(node(), WANTED)
    plain = table(found, coloured=False)
    coloured = table(found, coloured=True)
    assert "\x1b[32mok      \x1b[0m" in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured) == plain


def test_a_date_of_an_archive_that_keeps_none_is_not_taken_for_the_builds() -> None:
    found = seen_as(node(), Wanted(built_at=None))
    assert found["time.plausible"][0] == "unknown"
    host = node()
    host.time = host.time.replace(year=2019)
    assert seen_as(host, Wanted(built_at=None))["time.plausible"][0] == "blocker"
    assert (built_at() or EARLIEST) >= EARLIEST


def test_a_driver_of_a_distribution_is_found_where_it_lays_it() -> None:
    host = node()
    unload(host)
    del host.files[f"/lib/modules/{RELEASE}/extra/nvidia.ko.xz"]
    host.files[f"/lib/modules/{RELEASE}/kernel/nvidia-570srv/nvidia.ko"] = ""
    assert seen_as(host)["gpu.driver"][2].startswith("modprobe nvidia")
    host = node()
    del host.files[f"/usr/lib64/libnvidia-ml.so.{DRIVER}"]
    assert seen_as(host)["gpu.library"][0] == "ok"


UFW = Output(0, "Status: active\n8443/tcp ALLOW Anywhere\n8444/tcp ALLOW Anywhere\n")
DROPS = Output(
    0, "table inet filter { chain input { type filter hook input priority 0; policy drop;\n"
)


def test_each_firewall_is_asked_for_the_ports_of_the_role() -> None:
    host = node()
    host.files["/etc/ufw/ufw.conf"] = "ENABLED=yes\n"
    host.commands["ufw", "status"] = UFW
    assert seen_as(host)["network.firewall"][0] == "ok"
    as_node = seen_as(host, Wanted(Role.NODE, built_at=BUILT_AT))["network.firewall"]
    assert as_node == ("warning", "ufw is active; closed: 8445", "ufw allow 8445/tcp")
    host = node()
    host.commands["nft", "list", "ruleset"] = DROPS
    severity, seen, fix = seen_as(host)["network.firewall"]
    assert (severity, seen) == ("warning", "nftables is active; closed: 8443, 8444")
    assert "dport '{8443, 8444}' accept" in fix
    host.commands["nft", "list", "ruleset"] = Output(1, "", "Operation not permitted")
    assert seen_as(host)["network.firewall"][0] == "unknown"
