"""Alerts: what the rules find, how long findings last, and what is told of changes."""

from datetime import UTC, datetime

import msgspec
import pytest

from appliance.admin.alert_rules import findings
from appliance.admin.alerts import Alerts, Turned
from appliance.admin.happenings import happenings
from appliance.admin.observed import Disk, Observed
from appliance.wire.backups import Backup, BackupList
from appliance.wire.certificates import SiteCertificate
from appliance.wire.fleet import Node
from appliance.wire.gpu import NodeGpu
from appliance.wire.reservations import AttainedMinute, Capacity, Reservation
from appliance.wire.stream import DeploymentRow, LimitRow, ReplicaRow, SiteRow
from appliance.wire.sync import EntitlementStatus, SyncStatus
from tests.fakes.simulated_fleet import SimulatedFleet

NOW = datetime(2026, 11, 23, 19, 22, tzinfo=UTC)
AT = "2026-11-23T19:22:00Z"


def observed(condition: str = "busy", **fields: object) -> Observed:
    """The simulated fleet, observed."""
    tables = SimulatedFleet(condition=condition).tables()  # type: ignore[arg-type]  # a Condition
    seen = Observed(
        now=NOW,
        site=msgspec.convert(tables["site"]["site"], SiteRow),
        nodes={key: msgspec.convert(row, Node) for key, row in tables["nodes"].items()},
        gpus={key: msgspec.convert(row, NodeGpu) for key, row in tables["gpus"].items()},
        deployments={
            key: msgspec.convert(row, DeploymentRow) for key, row in tables["deployments"].items()
        },
        replicas={key: msgspec.convert(row, ReplicaRow) for key, row in tables["replicas"].items()},
        sync=msgspec.convert(tables["sync"]["sync"], SyncStatus),
    )
    kept = {name: getattr(seen, name) for name in seen.__dataclass_fields__}
    return Observed(**{**kept, **fields})  # type: ignore[arg-type]  # fields of Observed


def whats(seen: Observed) -> set[str]:
    """The last part of each finding's id with its subject."""
    return {f"{found.subject}.{found.id.rpartition(':')[2]}" for found in findings(seen).values()}


def test_a_site_that_is_well_has_no_findings() -> None:
    assert findings(observed()) == {}


def test_every_finding_says_what_to_do_and_has_an_id_of_its_own() -> None:
    found = findings(observed("failed"))
    assert {f"{each.subject}.{each.id.rpartition(':')[2]}" for each in found.values()} >= {
        "node.unreachable",
        "deployment.degraded",
        "sync.lag",
    }
    assert all(each.text and each.next_step for each in found.values())


def licence(**fields: object) -> EntitlementStatus:
    blank: dict[str, object] = {
        field.name: {"str": "", "int": 0}.get(getattr(field.type, "__name__", ""))
        for field in msgspec.structs.fields(EntitlementStatus)
    }
    return msgspec.convert(
        {**blank, "stage": "active", "models": [], "exceeded": [], **fields}, EntitlementStatus
    )


def saved(made_at: str, **fields: object) -> BackupList:
    backup = Backup(
        path="/b", made_at=made_at, product="1", size_bytes=1, protection="key", key_id="k"
    )
    known = BackupList(folder="/", backups=[backup], due_at=None, last_error="", key_kept=True)
    return msgspec.structs.replace(known, **fields)


def certificate(state: str, kind: str = "endpoint") -> SiteCertificate:
    return msgspec.convert(
        {
            "kind": kind,
            "name": "c",
            "state": state,
            "expires_at": AT,
            "used_for": "",
            "renewal": "Renew it.",
        },
        SiteCertificate,
    )


def limit(used: int, layer: str = "tenant") -> LimitRow:
    return msgspec.convert(
        {
            "layer": layer,
            "scope_id": "t",
            "name": "acme",
            "limit": "tokens_per_min",
            "value": 100,
            "used": used,
        },
        LimitRow,
    )


def queued() -> dict[str, DeploymentRow]:
    row = next(iter(observed().deployments.values()))
    return {row.id: msgspec.structs.replace(row, requests_queued=80, requests_running=60)}


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"deployments": queued()}, "deployment.queue"),
        ({"ledger_healthy": False}, "ledger.unwritable"),
        ({"seal_error": "The disk is full."}, "ledger.seal"),
        ({"entitlement": licence(stage="grace", message="…")}, "entitlement.grace"),
        ({"entitlement": licence(days_left=3)}, "entitlement.active"),
        ({"certificates": (certificate("ending"),)}, "certificate.ending"),
        ({"disks": (Disk("/data", 10**9, 10**12),)}, "disk.full"),
        ({"clock_jump_s": -3_600.0}, "clock.jump"),
        ({"limits": {"l": limit(95)}}, "limit.full"),
        (
            {"backup_every_s": 3_600.0, "backups": saved("2026-11-22T19:22:00+00:00")},
            "backup.late",
        ),
        (
            {"backup_every_s": 3_600.0, "backups": saved(AT, last_error="No room.")},
            "backup.failed",
        ),
        ({"backup_every_s": 3_600.0, "backups": saved(AT, key_kept=False)}, "backup.key"),
    ],
)
def test_each_cause_is_found(fields: dict[str, object], what: str) -> None:
    assert whats(observed(**fields)) == {what}


@pytest.mark.parametrize(
    "fields",
    [
        {"entitlement": licence(days_left=100)},
        {"entitlement": licence(stage="none")},
        {"certificates": (certificate("ending", "node"), certificate("good"))},
        {"disks": (Disk("/data", 10**12, 2 * 10**12),)},
        {"limits": {"l": limit(89)}},
        {"limits": {"l": limit(99, "key")}},
        {"clock_jump_s": 0.3},
        {"backup_every_s": 86_400.0, "backups": saved(AT)},
        {"backup_every_s": 0.0, "backups": saved("2020-01-01T00:00:00Z")},
    ],
)
def test_what_is_well_is_not_found(fields: dict[str, object]) -> None:
    assert whats(observed(**fields)) == set()


def test_a_cause_that_comes_and_goes_is_one_alert() -> None:
    alerts, found = Alerts(), findings(observed(ledger_healthy=False))
    assert [alert.id for alert in alerts.look(found, 0.0, AT).begun] == list(found)
    assert alerts.look({}, 10.0, AT) == Turned()
    assert alerts.look(found, 12.0, AT) == Turned()
    assert alerts.look({}, 26.0, AT) == Turned()
    assert [alert.id for alert in alerts.look({}, 27.0, AT).ended] == list(found)
    assert alerts.all() == {}


def test_an_acknowledged_alert_stays_so_until_it_ends_and_begins_anew_after() -> None:
    alerts, found = Alerts(), findings(observed(ledger_healthy=False))
    (alert,) = alerts.look(found, 0.0, AT).begun
    assert alerts.acknowledge("other", "0:root", AT) is None
    assert alerts.acknowledge(alert.id, "0:root", AT) is not None
    assert alerts.acknowledge(alert.id, "1:eve", AT).acknowledged_by == "0:root"  # type: ignore[union-attr]  # it is there
    alerts.look(found, 1.0, AT)
    assert alerts.all()[alert.id].acknowledged_by == "0:root"
    alerts.look({}, 60.0, AT)
    alerts.look(found, 61.0, AT)
    assert alerts.all()[alert.id].acknowledged_by is None


def test_alerts_from_before_a_restart_end_when_their_cause_is_gone() -> None:
    before, found = Alerts(), findings(observed(ledger_healthy=False))
    before.look(found, 0.0, AT)
    after = Alerts(before.all().values())
    assert list(after.all()) == list(found)
    assert len(after.look({}, 20.0, AT).ended) == 1


def test_changes_of_state_are_told_once_and_with_their_reason() -> None:
    before, now = observed(), observed("failed")
    told = list(happenings(before, now, Turned()))
    texts = [each.text for each in told]
    assert any("node gpu-00: ready → unreachable. Nothing heard" in text for text in texts)
    assert any(each.kind == "sync.state" for each in told)
    assert list(happenings(now, now, Turned())) == []
    assert list(happenings(None, now, Turned())) == []


def test_engines_that_were_started_again_and_nodes_that_came_and_went_are_told() -> None:
    before = observed()
    replica = next(iter(before.replicas.values()))
    again = msgspec.structs.replace(replica, restarts=replica.restarts + 1)
    gone = dict(before.nodes)
    gone.pop(next(iter(gone)))
    now = observed(replicas={**before.replicas, replica.id: again}, nodes=gone)
    kinds = [each.kind for each in happenings(before, now, Turned())]
    assert kinds == ["node.gone", "replica.restarted"]
    assert [each.kind for each in happenings(now, before, Turned())] == ["node.new"]


def reservation(*, slipping: bool) -> Reservation:
    return Reservation(
        id="rsv_1", tenant="acme", environment="prod", model="llama", tokens_per_s=40, priority=0,
        state="active", starts_at="", ends_at=None, created_at="", ended_at=None,
        slipping=slipping, waiting=4,
        attained=AttainedMinute(
            at="", promised=2_400, offered=2_400, delivered=1_200, attained_percent=50.0
        ),
    )  # fmt: skip


def test_a_promise_that_slips_is_an_alert_and_so_is_one_beyond_what_engines_make() -> None:
    kept = observed("busy", reservations=(reservation(slipping=False),))
    slipping = observed("busy", reservations=(reservation(slipping=True),))
    assert whats(slipping) - whats(kept) == {"reservation.slipping"}
    found = findings(slipping)["reservation:rsv_1:slipping"]
    assert found.text == (
        "acme/prod was promised 40 tokens/s of llama and got 50% of what it was owed in the last"
        " minute."
    )
    room = Capacity(
        model="llama", measured_tokens_per_s=None, headroom_percent=20,
        promisable_tokens_per_s=0, promised_tokens_per_s=40, free_tokens_per_s=0,
    )  # fmt: skip
    short = observed("busy", reservations=kept.reservations, capacity=(room,))
    assert "reservation:llama:short" in findings(short)
    enough = msgspec.structs.replace(room, measured_tokens_per_s=50)
    assert "reservation:llama:short" not in findings(observed("busy", capacity=(enough,)))
