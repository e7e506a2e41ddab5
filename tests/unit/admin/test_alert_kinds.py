"""Kinds of alerts: each has its words, its damping and its row on the page."""

import re
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from appliance.admin.alert_kinds import ALERT_KINDS, after_s, kind_of
from appliance.admin.alert_rules import findings
from appliance.admin.alerts import Alerts, Turned
from appliance.admin.findings import Finding
from appliance.admin.observed import HostNow
from appliance.settings import Alerts as Thresholds
from appliance.wire.stream import AlertSeverity
from tests.unit.admin.test_alert_rules import AT, certificate, observed, saved, whats

PAGE = Path(__file__).parents[3] / "docs" / "ALERTS.md"
ROW = re.compile(r"^\| `([\w.]+)` \| ([^|]*) \| ([^|]*) \| ([^|]*) \| (.*) \|$", re.MULTILINE)
SOURCES = Path(__file__).parents[3] / "appliance" / "admin"


@dataclass(frozen=True)
class Written:
    severity: str
    after: str
    setting: str
    words: str


def written() -> dict[str, Written]:
    found = ROW.findall(PAGE.read_text(encoding="utf-8"))
    return {name: Written(*rest) for name, *rest in found}


def test_the_page_has_every_rule_with_its_words_and_its_damping() -> None:
    expected = {
        name: (f"{kind.after_s:g}", f"{kind.symptom} | {kind.cause} | {kind.fix}")
        for name, kind in ALERT_KINDS.items()
    }
    assert {name: (row.after, row.words) for name, row in written().items()} == expected


def test_the_page_names_settings_that_exist() -> None:
    named = {row.setting.strip("` ") for row in written().values()} - {""}
    known = {f"alerts.{field.name}" for field in msgspec.structs.fields(Thresholds)}
    assert named <= known
    text = PAGE.read_text(encoding="utf-8")
    assert {name for name in known if f"`{name}`" not in text} == set()


def test_every_rule_of_the_code_has_a_kind() -> None:
    """Read from the calls themselves: a new rule without words fails here."""
    text = "".join(
        (SOURCES / name).read_text() for name in ("alert_rules.py", "alert_rules_fleet.py")
    )
    calls = re.findall(
        r"found\(\s*(?:\*\()?[\w\"]+(?:\.severity)?, \"(\w+)\", [^,()]+, (\"?\w+(?:\.\w+)?\"?)",
        text,
    )
    assert len(calls) == text.count("found(")
    literal = {f"{subject}.{what.strip(chr(34))}" for subject, what in calls if what[0] == '"'}
    assert literal <= ALERT_KINDS.keys()
    variable = {subject for subject, what in calls if what[0] != '"'}
    assert variable == {"node", "gpu", "entitlement", "certificate"}
    assert {name for name in ALERT_KINDS if name.partition(".")[0] not in variable} <= literal


@pytest.mark.parametrize(
    ("alert_id", "kind"),
    [
        ("node:nod_1:unreachable", "node.unreachable"),
        ("node:nod_1:DISK_FULL", "node.fault"),
        ("gpu:GPU-1:XID_79", "gpu.fault"),
        ("disk:/a:b:full", "disk.full"),
        ("limit:tenant:ten_1:tokens_per_min:full", "limit.full"),
        ("weather:x:rain", "weather.rain"),
    ],
)
def test_an_id_tells_its_kind(alert_id: str, kind: str) -> None:
    assert kind_of(alert_id) == kind


def test_severities_on_the_page_are_those_of_the_code() -> None:
    """Of every finding that the scenes of these tests make."""
    page = written()
    for found in (
        *findings(observed("failed")).values(),
        *findings(observed(ledger_healthy=False, seal_error="x", site_age_s=1e9)).values(),
        *findings(observed(backup_every_s=1.0, backups=saved(AT, last_error="x"))).values(),
    ):
        assert found.severity in page[kind_of(found.id)].severity


def finding(severity: AlertSeverity = "error") -> dict[str, Finding]:
    alert_id = "node:nod_1:unreachable"
    return {alert_id: Finding(alert_id, severity, "node", "nod_1", "Gone.", "Look.")}


def test_a_moment_is_no_alert_and_what_lasts_counts_from_its_beginning() -> None:
    alerts = Alerts()
    assert after_s("node:nod_1:unreachable") == 15.0
    assert alerts.look(finding(), 100.0, "first") == Turned()
    assert alerts.look({}, 103.0, "-") == Turned()
    assert alerts.look(finding(), 106.0, "-") == Turned()
    (begun,) = alerts.look(finding(), 115.0, "-").begun
    assert begun.since == "first"


def test_what_was_quiet_for_long_begins_to_last_anew() -> None:
    alerts = Alerts()
    alerts.look(finding(), 0.0, "first")
    alerts.look({}, 15.0, "-")
    assert alerts.look(finding(), 16.0, "second") == Turned()
    assert alerts.look(finding(), 30.0, "-") == Turned()
    assert alerts.look(finding(), 31.0, "-").begun[0].since == "second"


def test_after_a_restart_what_was_known_waits_until_it_can_have_been_seen() -> None:
    before = Alerts(after=lambda _: 0.0)
    before.look(finding(), 0.0, AT)
    after = Alerts(before.all().values(), seen_s=1_060.0)
    assert after.look({}, 1_000.0, AT) == Turned()
    assert after.look(finding(), 1_003.0, AT) == Turned()
    assert after.look({}, 1_070.0, AT) == Turned()
    assert len(after.look({}, 1_075.0, AT).ended) == 1


GIB = 1024**3


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"host": HostNow(GIB, 64 * GIB)}, {"memory.low"}),
        ({"host": HostNow(8 * GIB, 64 * GIB)}, set()),
        ({"host": HostNow(clock_kept=False, clock_off_s=0.0)}, {"clock.offset"}),
        ({"host": HostNow(clock_kept=True, clock_off_s=3.0)}, {"clock.offset"}),
        ({"host": HostNow(clock_kept=True, clock_off_s=0.01)}, set()),
        ({"host": HostNow()}, set()),
        (
            {"backup_every_s": 86_400.0, "backups": saved(AT, backups=[]), "site_age_s": 90_000.0},
            set(),
        ),
        (
            {"backup_every_s": 86_400.0, "backups": saved(AT, backups=[]), "site_age_s": 180_000.0},
            {"backup.never"},
        ),
        (
            {"backup_every_s": 0.0, "backups": saved(AT, backups=[]), "site_age_s": 8 * 86_400.0},
            {"backup.never"},
        ),
        (
            {
                "backup_every_s": 0.0,
                "backups": saved("2026-11-22T19:22:00+00:00"),
                "thresholds": Thresholds(backup_age_s=3_600.0),
            },
            {"backup.late"},
        ),
        (
            {
                "certificates": (
                    msgspec.structs.replace(certificate("good"), days_left=29),
                    msgspec.structs.replace(certificate("good"), days_left=31),
                )
            },
            {"certificate.ending"},
        ),
        ({"certificates": (certificate("expired"),)}, {"certificate.expired"}),
    ],
)
def test_what_else_is_found_and_from_where_on(fields: dict[str, object], what: set[str]) -> None:
    assert whats(observed(**fields)) == what


def test_thresholds_are_settings() -> None:
    hot = observed(host=HostNow(20 * GIB, 64 * GIB), thresholds=Thresholds(memory_free_percent=40))
    (found,) = findings(hot).values()
    assert (found.id, found.severity) == ("memory:host:low", "warning")
    worse = observed(host=HostNow(4 * GIB, 64 * GIB), thresholds=Thresholds(memory_free_percent=40))
    assert findings(worse)["memory:host:low"].severity == "error"
