"""Every noun through the socket: made, listed, shown, changed, suspended, resumed, deleted."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance.admin.keys import key_state
from appliance.admin.ports import DeploymentLive, NodeLive
from appliance.domain.ids import DeploymentId, EnvironmentId, KeyId, NodeId, TenantId
from appliance.domain.limits import UNLIMITED, Limits
from appliance.registry.api_keys import KeyRow
from appliance.registry.snapshot import Role
from appliance.wire import admin, fleet
from tests.fakes.admin_site import AdminSite, ledger_row, served
from tests.fakes.tiny_gguf import write_tiny_gguf


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdminSite]:
    folder = tmp_path_factory.mktemp("site")
    with served(folder, global_limits=Limits(requests_per_min=1_000)) as site:
        yield site


def ask(site: AdminSite, method: str, path: str, *, status: int = 200, **options: Any) -> Any:
    response = site.client.request(method, path, **options)
    assert response.status_code == status, response.text
    return response.json() if response.content else None


def refused(site: AdminSite, status: int, method: str, path: str, **options: Any) -> str:
    """The code of an error, whose body has its three fields and says something."""
    body = msgspec.convert(ask(site, method, path, status=status, **options), type=admin.ErrorBody)
    assert body.message
    return body.code


@pytest.fixture(scope="module")
def acme(site: AdminSite) -> str:
    """A tenant with an environment `prod`."""
    ask(site, "POST", "/v1/tenants", status=201, json={"name": "acme", "plan": "free"})
    created = {"name": "prod", "tenant": "acme"}
    ask(site, "POST", "/v1/environments", status=201, json=created)
    return "acme"


def test_a_tenant_lives_through_every_verb(site: AdminSite) -> None:
    tenant = ask(site, "POST", "/v1/tenants", status=201, json={"name": "t1"})
    assert tenant["plan"] == "enterprise"
    assert tenant in ask(site, "GET", "/v1/tenants")
    assert ask(site, "GET", f"/v1/tenants/{tenant['id']}") == tenant
    changed = ask(site, "PATCH", "/v1/tenants/t1", json={"name": "t2", "plan": "free"})
    assert (changed["id"], changed["name"], changed["plan"]) == (tenant["id"], "t2", "free")
    assert ask(site, "POST", "/v1/tenants/t2/suspend")["state"] == "suspended"
    assert ask(site, "POST", "/v1/tenants/t2/resume")["state"] == "active"
    assert ask(site, "DELETE", "/v1/tenants/t2", status=204) is None
    assert refused(site, 404, "GET", "/v1/tenants/t2") == "not_found"


def test_a_taken_name_is_a_conflict_and_a_bad_one_is_refused(site: AdminSite, acme: str) -> None:
    assert refused(site, 409, "POST", "/v1/tenants", json={"name": acme}) == "already_exists"
    assert refused(site, 400, "POST", "/v1/tenants", json={"name": "no spaces"}) == "invalid_value"


def test_an_environment_lives_through_every_verb(site: AdminSite, acme: str) -> None:
    create = {"name": "dev", "tenant": acme, "region": "eu", "models": ["b", "a"]}
    made = ask(site, "POST", "/v1/environments", status=201, json=create)
    assert (made["tenant"], made["region"], made["models"]) == (acme, "eu", ["a", "b"])
    assert made in ask(site, "GET", "/v1/environments", params={"tenant": acme})
    path, within = "/v1/environments/dev", {"tenant": acme}
    assert ask(site, "GET", path, params=within) == made
    changed = ask(site, "PATCH", path, params=within, json={"all_models": True, "name": "dev2"})
    assert (changed["name"], changed["models"]) == ("dev2", None)
    assert ask(site, "POST", "/v1/environments/dev2/suspend")["state"] == "suspended"
    assert ask(site, "POST", "/v1/environments/dev2/resume")["state"] == "active"
    ask(site, "DELETE", "/v1/environments/dev2", status=204)
    assert refused(site, 404, "GET", "/v1/environments/dev2") == "not_found"


def test_an_ambiguous_name_wants_its_tenant(site: AdminSite) -> None:
    for tenant in ("twin-a", "twin-b"):
        ask(site, "POST", "/v1/tenants", status=201, json={"name": tenant})
        create = {"name": "same", "tenant": tenant}
        ask(site, "POST", "/v1/environments", status=201, json=create)
    assert refused(site, 400, "GET", "/v1/environments/same") == "ambiguous_name"
    shown = ask(site, "GET", "/v1/environments/same", params={"tenant": "twin-b"})
    assert shown["tenant"] == "twin-b"


def test_a_tenant_in_use_goes_only_with_what_hangs_on_it(site: AdminSite) -> None:
    ask(site, "POST", "/v1/tenants", status=201, json={"name": "full"})
    ask(site, "POST", "/v1/environments", status=201, json={"name": "e", "tenant": "full"})
    assert refused(site, 409, "DELETE", "/v1/tenants/full") == "in_use"
    ask(site, "DELETE", "/v1/tenants/full", status=204, params={"cascade": "true"})
    assert refused(site, 404, "GET", "/v1/tenants/full") == "not_found"


def test_a_key_shows_its_secret_once_and_lives_through_every_verb(
    site: AdminSite, acme: str
) -> None:
    create = {
        "tenant": acme,
        "environment": "prod",
        "name": "web",
        "role": "read-only",
        "expires_at": "2199-01-01T00:00:00+01:00",
        "test": True,
        "limits": {"requests_per_min": 5},
    }
    made = ask(site, "POST", "/v1/keys", status=201, json=create)
    secret = made.pop("key")
    assert secret.startswith("clsk_test_")
    assert made["expires_at"] == "2198-12-31T23:00:00.000Z"
    assert made["limits"]["requests_per_min"] == 5
    scope = {"tenant": acme, "environment": "prod"}
    assert ask(site, "GET", "/v1/keys", params=scope) == [made]
    assert ask(site, "GET", "/v1/keys/web", params=scope) == made
    changed = ask(site, "PATCH", "/v1/keys/web", json={"never_expires": True, "role": "admin"})
    assert (changed["expires_at"], changed["role"]) == (None, "admin")
    rotated = ask(site, "POST", "/v1/keys/web/rotate", json={"overlap_s": 3_600})
    assert rotated["key"] != secret
    assert (rotated["id"], rotated["state"]) == (made["id"], "retiring")
    assert "key" in ask(site, "POST", "/v1/keys/web/rotate")  # a body is not needed
    assert ask(site, "POST", "/v1/keys/web/suspend")["state"] == "suspended"
    assert ask(site, "POST", "/v1/keys/web/resume")["state"] == "retiring"
    ask(site, "DELETE", "/v1/keys/web", status=204)
    assert ask(site, "GET", "/v1/keys", params=scope) == []


@pytest.mark.parametrize(
    ("suspended", "expires_at_ns", "retiring_until_ns", "state"),
    [
        (False, None, None, "active"),
        (False, 101, 99, "active"),
        (False, 101, 101, "retiring"),
        (False, 100, 101, "expired"),
        (True, 100, 101, "suspended"),
    ],
)
def test_the_state_of_a_key_is_the_gravest_that_holds(
    *, suspended: bool, expires_at_ns: int | None, retiring_until_ns: int | None, state: str
) -> None:
    row = KeyRow(
        id=KeyId("key_1"),
        name="k",
        prefix="clsk_live_abcd…",
        tenant_id=TenantId("ten_1"),
        tenant_name="t",
        environment_id=EnvironmentId("env_1"),
        environment_name="e",
        role=Role.DEVELOPER,
        suspended=suspended,
        expires_at_ns=expires_at_ns,
        retiring_until_ns=retiring_until_ns,
        created_at_ns=1,
        limits=UNLIMITED,
    )
    assert key_state(row, now_ns=100) == state


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"expires_at": "tomorrow"}, "bad_request"),
        ({"expires_at": "2999-01-01T00:00:00Z"}, "bad_request"),
        ({"expires_at": "1969-12-31T23:59:59Z"}, "bad_request"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "invalid_value"),
        ({"role": "root"}, "bad_request"),
        ({"limits": {"concurrency": 0}}, "invalid_value"),
        ({"limits": {"concurrency": 1.5}}, "bad_request"),
        ({"limits": {"rpm": 1}}, "bad_request"),
    ],
)
def test_bad_values_of_a_key_are_refused(
    site: AdminSite, acme: str, change: dict[str, object], code: str
) -> None:
    create = {"tenant": acme, "environment": "prod", **change}
    assert refused(site, 400, "POST", "/v1/keys", json=create) == code


def test_expiring_and_never_expiring_at_once_is_refused(site: AdminSite, acme: str) -> None:
    create = {"tenant": acme, "environment": "prod", "name": "both"}
    ask(site, "POST", "/v1/keys", status=201, json=create)
    change = {"never_expires": True, "expires_at": "2199-01-01T00:00:00Z"}
    assert refused(site, 400, "PATCH", "/v1/keys/both", json=change) == "bad_request"


def test_a_model_lives_through_every_verb(site: AdminSite, tmp_path: Path) -> None:
    file = write_tiny_gguf(tmp_path / "tiny.gguf")
    create = {"path": str(file), "name": "org/tiny:f32", "family": "llama"}
    made = ask(site, "POST", "/v1/models", status=201, json=create)
    assert made["digest"].startswith("sha256:")
    assert made["size_bytes"] == file.stat().st_size
    assert made in ask(site, "GET", "/v1/models")
    path = "/v1/models/org%2Ftiny%3Af32"
    assert ask(site, "GET", path) == made
    assert ask(site, "PATCH", path, json={"licence": "MIT"})["licence"] == "MIT"
    assert ask(site, "POST", f"{path}/suspend")["state"] == "suspended"
    assert ask(site, "POST", f"{path}/resume")["state"] == "active"
    ask(site, "DELETE", path, status=204)
    assert refused(site, 404, "GET", path) == "not_found"


def test_a_model_file_must_be_readable_and_named_from_the_root(
    site: AdminSite, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUFnonsense")
    for path in (broken, tmp_path / "absent.gguf"):
        assert (
            refused(site, 422, "POST", "/v1/models", json={"path": str(path)}) == "model_unreadable"
        )
    assert refused(site, 400, "POST", "/v1/models", json={"path": "x.gguf"}) == "bad_request"


def test_a_deployment_of_a_path_registers_the_model(site: AdminSite, tmp_path: Path) -> None:
    file = write_tiny_gguf(tmp_path / "by-path.gguf")
    create = {"name": "chat", "engine": "llamacpp", "model": str(file), "context_tokens": 512}
    made = ask(site, "POST", "/v1/deployments", status=201, json=create)
    assert (made["model"], made["state"], made["context_tokens"]) == ("by-path", "pending", 512)
    assert "by-path" in [row["name"] for row in ask(site, "GET", "/v1/models")]
    assert refused(site, 409, "DELETE", "/v1/models/by-path") == "in_use"


def test_a_deployment_shows_what_the_fleet_knows_unless_it_is_suspended(site: AdminSite) -> None:
    create = {
        "name": "far",
        "engine": "external",
        "url": "http://127.0.0.1:9/",
        "api_key": "sk-far-secret",
        "operations": ["chat"],
    }
    made = ask(site, "POST", "/v1/deployments", status=201, json=create)
    assert made["has_api_key"] is True
    assert made["operations"] == ["chat"]
    replica = fleet.Replica(
        id="rep_1",
        node="",
        state="ready",
        reason="",
        address="127.0.0.1:9",
        pid=None,
        restarts=0,
        slots=None,
        context_tokens=None,
        tokens_per_s=12.5,
        requests_running=1,
        since="2026-11-22T19:22:03.250Z",
    )
    site.live.deployments[DeploymentId(made["id"])] = DeploymentLive("ready", "", (replica,))
    shown = ask(site, "GET", "/v1/deployments/far")
    assert shown["state"] == "ready"
    assert shown["replicas"] == [msgspec.to_builtins(replica)]
    changed = ask(site, "PATCH", "/v1/deployments/far", json={"api_key": "", "parallel": 9})
    assert (changed["has_api_key"], changed["parallel"]) == (False, 9)
    assert ask(site, "POST", "/v1/deployments/far/suspend")["state"] == "suspended"
    assert ask(site, "POST", "/v1/deployments/far/resume")["state"] == "ready"
    # The fleet hears of a change a little later than the one who made it.
    late = DeploymentLive("suspended", "", (replica,))
    site.live.deployments[DeploymentId(made["id"])] = late
    assert ask(site, "POST", "/v1/deployments/far/resume")["state"] == "pending"
    none = DeploymentLive("pending", "No replicas are wanted.", ())
    site.live.deployments[DeploymentId(made["id"])] = none
    one = ask(site, "PATCH", "/v1/deployments/far", json={"replicas": 1})
    assert (one["state"], one["reason"]) == ("pending", "not started yet")
    zero = ask(site, "PATCH", "/v1/deployments/far", json={"replicas": 0})
    assert zero["reason"] == "No replicas are wanted."
    ask(site, "DELETE", "/v1/deployments/far", status=204)
    assert "far" not in [row["name"] for row in ask(site, "GET", "/v1/deployments")]


@pytest.mark.parametrize(
    "change",
    [
        {"engine": "vllm"},
        {"engine": "external"},
        {"engine": "external", "url": "ftp://x"},
        {"engine": "external", "url": "http://x", "operations": ["fly"]},
        {"engine": "external", "url": "http://x", "replicas": -1},
    ],
)
def test_a_deployment_that_cannot_be_is_refused(site: AdminSite, change: dict[str, object]) -> None:
    assert refused(site, 400, "POST", "/v1/deployments", json={"name": "x", **change}) in {
        "bad_request",
        "invalid_value",
    }


def test_a_node_is_joining_until_its_agent_says_hello(site: AdminSite) -> None:
    made = ask(site, "POST", "/v1/nodes", status=201, json={"name": "gpu1"})
    assert (made["state"], made["cores"]) == ("joining", None)
    assert "`cic node token create --node gpu1`" in made["reason"]
    assert [row["reason"] for row in ask(site, "GET", "/v1/nodes")] == [made["reason"]]
    site.live.nodes[NodeId(made["id"])] = NodeLive("ready", "0.1.0", 8, 2**33, ("A100",))
    shown = ask(site, "GET", "/v1/nodes/gpu1")
    assert (shown["state"], shown["cores"], shown["gpus"]) == ("ready", 8, ["A100"])
    assert ask(site, "PATCH", "/v1/nodes/gpu1", json={"region": "eu"})["region"] == "eu"
    before = site.live.caught_up_after
    drained = ask(site, "POST", "/v1/nodes/gpu1/drain", json={"reason": "new fans"})
    assert site.live.caught_up_after == before + 1  # what is answered is what came of it
    assert (drained["state"], drained["wish"]) == ("draining", "draining"), "not heard of yet"
    assert (drained["wish_reason"], drained["wished_at"] is None) == ("new fans", False)
    assert ask(site, "POST", "/v1/nodes/gpu1/suspend")["wish"] == "maintenance"
    maintained = ask(site, "POST", "/v1/nodes/gpu1/maintenance", json={})
    assert maintained["wish"] == "maintenance"
    assert ask(site, "POST", "/v1/nodes/gpu1/resume")["state"] == "ready"
    site.live.nodes[NodeId(made["id"])] = NodeLive("maintenance")  # has not heard of that
    assert ask(site, "GET", "/v1/nodes/gpu1")["state"] == "ready"
    assert [row["name"] for row in ask(site, "GET", "/v1/nodes")] == ["gpu1"]
    ask(site, "DELETE", "/v1/nodes/gpu1", status=204)


def test_a_region_lives_through_every_verb(site: AdminSite) -> None:
    create = {"name": "us", "multiplier_bp": 7_000}
    made = ask(site, "POST", "/v1/regions", status=201, json=create)
    assert ask(site, "GET", "/v1/regions/us") == made
    assert ask(site, "PATCH", "/v1/regions/us", json={"multiplier_bp": 1})["multiplier_bp"] == 1
    assert "us" in [row["name"] for row in ask(site, "GET", "/v1/regions")]
    ask(site, "DELETE", "/v1/regions/us", status=204)
    assert refused(site, 409, "DELETE", "/v1/regions/local") == "in_use"


def test_limits_are_set_kept_and_taken_away(site: AdminSite, acme: str) -> None:
    layers = ask(site, "GET", "/v1/limits", params={"tenant": acme})
    assert [(row["layer"], row["source"]) for row in layers] == [
        ("global", "settings"),
        ("tenant", "plan free"),
    ]
    assert layers[0]["used"] == {
        "requests_per_min": 5,
        "tokens_per_min": None,
        "tokens_per_day": None,
        "concurrency": None,
    }
    change = {"layer": "environment", "tenant": acme, "environment": "prod", "concurrency": 3}
    assert ask(site, "PUT", "/v1/limits", json=change)[-1]["limits"]["concurrency"] == 3
    again = {**change, "tokens_per_min": 50}
    del again["concurrency"]
    limits = ask(site, "PUT", "/v1/limits", json=again)[-1]["limits"]
    assert (limits["concurrency"], limits["tokens_per_min"]) == (3, 50)
    gone = ask(site, "PUT", "/v1/limits", json={**again, "tokens_per_min": None})[-1]
    assert (gone["limits"]["tokens_per_min"], gone["source"]) == (None, "set")


@pytest.mark.parametrize(
    "change",
    [
        {"layer": "tenant", "tenant": "acme"},
        {"layer": "tenant", "tenant": "acme", "concurrency": 0},
        {"layer": "tenant", "tenant": "acme", "concurrency": -1},
        {"layer": "tenant", "tenant": "acme", "concurrency": True},
        {"layer": "planet", "concurrency": 1},
    ],
)
@pytest.mark.usefixtures("acme")
def test_limits_that_say_nothing_or_nonsense_are_refused(
    site: AdminSite, change: dict[str, object]
) -> None:
    assert refused(site, 400, "PUT", "/v1/limits", json=change) in {"bad_request", "invalid_value"}


def test_usage_is_asked_for_by_moment_and_column(site: AdminSite) -> None:
    site.records.held = [ledger_row(1), ledger_row(2)]
    query = {"since": "1970-01-01T00:00:01Z", "until": "1970-01-01T01:00:02+01:00", "by": "env,key"}
    rows = ask(site, "GET", "/v1/usage", params=query)
    assert site.records.asked == (1_000_000_000, 2_000_000_000, ("environment", "key"))
    assert rows == [
        {
            "requests": 2,
            "input_tokens": 20,
            "output_tokens": 14,
            "cached_tokens": 4,
            "environment": "prod",
            "key": "web",
        }
    ]
    assert refused(site, 400, "GET", "/v1/usage", params={"by": "colour"}) == "bad_request"
    assert refused(site, 400, "GET", "/v1/usage", params={"since": "24h"}) == "bad_request"


def test_the_ledger_comes_line_by_line_in_order(site: AdminSite) -> None:
    site.records.held = [ledger_row(seq) for seq in range(1, 1_203)]
    lines = site.client.get("/v1/ledger", params={"since": 2}).text.splitlines()
    rows = [msgspec.json.decode(line, type=admin.LedgerRow) for line in lines]
    assert [row.seq for row in rows] == list(range(3, 1_203))
    assert site.client.get("/v1/ledger", params={"since": 1_202}).text == ""


def test_verifications_answer_what_was_found(site: AdminSite) -> None:
    assert ask(site, "GET", "/v1/ledger/verify")["ok"] is True
    site.records.sound = False
    found = ask(site, "GET", "/v1/ledger/verify")
    site.records.sound = True
    assert (found["ok"], len(found["problems"])) == (False, 1)
    audit = ask(site, "GET", "/v1/audit/verify")
    assert audit["ok"] is True
    assert audit["entries"] > 10


def test_the_status_has_all_of_the_site(site: AdminSite) -> None:
    status = msgspec.convert(ask(site, "GET", "/v1/status"), admin.SiteStatus)
    assert (status.name, status.version, status.ready) == ("test", "0.1.0", True)
    assert (status.requests_running, status.requests_queued) == (3, 2)
    assert status.records == len(site.records.held)


def test_readiness_and_liveness_are_separate(site: AdminSite) -> None:
    ask(site, "GET", "/readyz")
    site.live.is_ready = False
    ask(site, "GET", "/readyz", status=503)
    ask(site, "GET", "/healthz")
    site.live.is_ready = True
