"""The commands of every noun against a real admin server."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.admin.ports import DeploymentLive
from appliance.registry.deployment_rows import IDLE_S_MAX, IDLE_S_MIN
from appliance.wire.command import ExitCode
from tests.fakes.admin_site import AdminSite, served
from tests.fakes.command_line import Done, cic
from tests.fakes.tiny_gguf import write_tiny_gguf


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdminSite]:
    with served(tmp_path_factory.mktemp("site")) as site:
        yield site


class Line:
    """`cic --home H` of one site."""

    def __init__(self, site: AdminSite) -> None:
        self.site = site

    def __call__(self, *arguments: object, **options: Any) -> Done:
        return cic("--home", self.site.home.config, *arguments, **options)

    def json(self, *arguments: object, **options: Any) -> Any:
        done = self("--json", *arguments, **options)
        assert done.code == ExitCode.OK, done
        assert done.err == ""
        return done.json

    def fails(self, exit_code: ExitCode, *arguments: object) -> str:
        """The error's code; the same failure in plain form is one line on standard error."""
        plain = self(*arguments)
        assert (plain.code, plain.out) == (exit_code, "")
        assert plain.err.startswith("cic: ")
        assert plain.err.count("\n") == 1
        done = self("--json", *arguments)
        assert done.code == exit_code
        return done.error["code"]


@pytest.fixture(scope="module")
def run(site: AdminSite) -> Line:
    line = Line(site)
    line.json("tenant", "create", "acme", "--plan", "business")
    line.json("env", "create", "prod", "--tenant", "acme")
    return line


def test_a_tenant_from_its_creation_to_its_end(run: Line) -> None:
    made = run.json("tenant", "create", "t1", "--plan", "free")
    assert (made["name"], made["plan"], made["state"]) == ("t1", "free", "active")
    assert made in run.json("tenant", "list")
    assert run.json("tenant", "show", made["id"]) == made
    assert run.json("tenant", "update", "t1", "--plan", "developer")["plan"] == "developer"
    assert run.json("tenant", "suspend", "t1")["state"] == "suspended"
    assert run.json("tenant", "resume", "t1")["state"] == "active"
    assert run.json("tenant", "delete", "t1", "--yes") == {"deleted": made["id"]}
    assert run.fails(ExitCode.NOT_FOUND, "tenant", "show", "t1") == "not_found"


def test_people_read_the_same_in_aligned_tables(run: Line) -> None:
    lines = run("tenant", "list").out.splitlines()
    assert lines[0].split() == ["NAME", "PLAN", "STATE", "CREATED", "ID"]
    (row,) = [line for line in lines if line.startswith("acme ")]
    assert row.split()[1:3] == ["business", "active"]
    assert all(line.index("PLAN") == row.index("business") for line in lines[:1])
    assert "\x1b" not in "".join(lines)
    shown = run("tenant", "show", "acme").out
    assert "state                    active\n" in shown
    assert "limits.concurrency       as planned\n" in shown
    assert "models                   all\n" in run("env", "show", "prod", "--tenant", "acme").out


def test_an_environment_with_region_and_models(run: Line) -> None:
    made = run.json(
        *("env", "create", "dev", "--tenant", "acme", "--region", "eu", "--models", "b, a")
    )
    assert (made["region"], made["models"]) == ("eu", ["a", "b"])
    assert [row["name"] for row in run.json("env", "list", "--tenant", "acme")] == ["dev", "prod"]
    assert run.json("env", "update", "dev", "--models", "c")["models"] == ["c"]
    assert run.json("env", "update", "dev", "--models", "all")["models"] is None
    run.json("env", "suspend", "dev")
    run.json("env", "resume", "dev")
    run.json("env", "delete", "dev", "--yes")


def test_names_that_clash_or_are_not_clear_are_told(run: Line) -> None:
    assert run.fails(ExitCode.CONFLICT, "tenant", "create", "acme") == "already_exists"
    assert run.fails(ExitCode.USAGE, "tenant", "create", "no/slash") == "invalid_value"
    missing = ("env", "create", "x", "--tenant", "nobody")
    assert run.fails(ExitCode.NOT_FOUND, *missing) == "not_found"
    run.json("tenant", "create", "twin")
    run.json("env", "create", "prod", "--tenant", "twin")
    assert run.fails(ExitCode.USAGE, "env", "show", "prod") == "ambiguous_name"
    assert run.json("env", "show", "prod", "--tenant", "twin")["tenant"] == "twin"
    assert run.fails(ExitCode.CONFLICT, "tenant", "delete", "twin", "--yes") == "in_use"
    run.json("tenant", "delete", "twin", "--yes", "--cascade")


def test_a_key_is_shown_once_and_rotated(run: Line) -> None:
    made = run.json(
        *("key", "create", "--tenant", "acme", "--env", "prod", "--name", "web"),
        *("--rpm", "10", "--tpm", "5k", "--tpd", "2M", "--concurrency", "3", "--expires", "30d"),
    )
    assert made["key"].startswith("clsk_live_")
    assert made["limits"] == {
        "requests_per_min": 10,
        "tokens_per_min": 5_000,
        "tokens_per_day": 2_000_000,
        "concurrency": 3,
    }
    scope = ("--tenant", "acme", "--env", "prod")
    assert "key" not in run.json("key", "show", "web", *scope)
    assert run.json("key", "update", "web", "--expires", "never")["expires_at"] is None
    assert run.json("key", "update", "web", "--role", "read-only")["role"] == "read-only"
    assert run.json("key", "update", "web", "--expires", "none")["expires_at"] is None
    assert run.json("key", "show", "web", *scope)["old_secret_until"] is None
    rotated = run.json("key", "rotate", "web", "--overlap", "1h", *scope)
    assert rotated["old_secret_until"] > rotated["created_at"]
    assert run.json("key", "rotate", "web", "--overlap", "0s", *scope)["state"] == "active"
    assert rotated["key"] != made["key"]
    assert rotated["id"] == made["id"]
    plain = run("key", "rotate", "web", "--overlap", "0")
    assert "clsk_live_" in plain.out
    assert "shown once" in plain.err
    assert run.json("key", "suspend", "web")["state"] == "suspended"
    run.json("key", "resume", "web")
    run.json("key", "delete", "web", "--yes", *scope)


def test_limits_are_shown_with_what_is_used(run: Line) -> None:
    key = run.json("key", "create", "--tenant", "acme", "--env", "prod", "--name", "lim")
    scope = ("--tenant", "acme", "--env", "prod", "--key", "lim")
    rows = run.json("limit", "set", *scope, "--rpm", "7", "--tpm", "9k")
    assert rows[-1]["limits"]["requests_per_min"] == 7
    rows = run.json("limit", "set", *scope, "--rpm", "none")
    assert (rows[-1]["limits"]["requests_per_min"], rows[-1]["limits"]["tokens_per_min"]) == (
        None,
        9_000,
    )
    assert run.json("limit", "show", "--key", key["id"])[-1] == rows[-1]
    plain = run("limit", "show", *scope).out.splitlines()
    assert [line.split()[0] for line in plain] == [
        *("LAYER", "global", "tenant", "environment", "key")
    ]
    assert "5/9,000" in plain[-1]
    assert run.json("limit", "set", "--global", "--concurrency", "100")[0]["source"] == "set"
    assert run.fails(ExitCode.USAGE, "limit", "set", "--rpm", "1") == "command_failed"
    both = ("limit", "set", "--global", "--tenant", "acme", "--rpm", "1")
    assert run.fails(ExitCode.USAGE, *both) == "command_failed"
    assert run.fails(ExitCode.USAGE, "limit", "set", "--global") == "command_failed"


def test_a_model_and_its_deployment(run: Line, tmp_path: Path) -> None:
    file = write_tiny_gguf(tmp_path / "tiny.gguf")
    made = run.json("model", "create", "--path", file, "--licence", "MIT")
    assert (made["name"], made["path"]) == ("tiny", str(file))
    assert run.json("model", "update", "tiny", "--family", "llama")["family"] == "llama"
    deployed = run.json(
        *("deployment", "create", "--name", "org/chat", "--engine", "llamacpp", "--model", "tiny"),
        *("--parallel", "2", "--context", "256", "--replicas", "2"),
    )
    assert (deployed["model"], deployed["replicas_wanted"], deployed["context_tokens"]) == (
        "tiny",
        2,
        256,
    )
    assert run.json("deployment", "update", "org/chat", "--parallel", "3")["parallel"] == 3
    (row,) = run.json("deployment", "list")
    assert (row["name"], row["state"]) == ("org/chat", "pending")
    run.json("deployment", "suspend", "org/chat")
    assert run.json("deployment", "show", "org/chat")["state"] == "suspended"
    assert "org/chat" in run("status").out
    run.json("deployment", "resume", "org/chat")
    run.json("model", "suspend", "tiny")
    (row,) = run.json("deployment", "list")
    assert (row["state"], "cic model resume tiny" in row["reason"]) == ("suspended", True)
    run.json("model", "resume", "tiny")
    assert run.json("deployment", "show", "org/chat")["state"] == "pending"
    assert run.fails(ExitCode.CONFLICT, "model", "delete", "tiny", "--yes") == "in_use"
    run.json("deployment", "delete", "org/chat", "--yes")
    run.json("model", "delete", "tiny", "--yes")


def test_a_path_is_seen_from_where_the_command_is_typed(
    run: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_gguf(tmp_path / "here.gguf")
    monkeypatch.chdir(tmp_path)
    create = ("deployment", "create", "--name", "rel", "--engine", "llamacpp")
    assert run.json(*create, "--model", "here.gguf")["model"] == "here"
    run.json("deployment", "delete", "rel", "--yes")
    (tmp_path / "cut.gguf").write_bytes((tmp_path / "here.gguf").read_bytes()[:100])
    unreadable = run.fails(ExitCode.CONFIGURATION, *create, "--model", "cut.gguf")
    assert unreadable == "model_unreadable"
    absent = run.fails(ExitCode.CONFIGURATION, *create, "--model", "/no/such.gguf")
    assert absent == "model_unreadable"
    assert run.fails(ExitCode.NOT_FOUND, *create, "--model", "unheard-of") == "not_found"
    assert run.fails(ExitCode.USAGE, *create) == "usage"


def test_the_secret_of_an_engine_need_not_be_an_argument(run: Line, site: AdminSite) -> None:
    create = ("deployment", "create", "--engine", "external", "--url", "http://127.0.0.1:9")

    def secret_of(name: str) -> str | None:
        return site.call(site.services.registry.deployments.api_key(name))

    run.json(*create, "--name", "e1", "--api-key", "sk-argument")
    run.json(*create, "--name", "e2", "--api-key", "-", stdin="sk-stdin\n")
    run.json(*create, "--name", "e3", environ={"CIC_ENGINE_API_KEY": "sk-environ"})
    run.json(*create, "--name", "e4", "--upstream-model", "big", "--operations", "chat,embeddings")
    assert [secret_of(name) for name in ("e1", "e2", "e3", "e4")] == [
        *("sk-argument", "sk-stdin", "sk-environ", None)
    ]
    assert run.json("deployment", "update", "e1", "--api-key", "")["has_api_key"] is False
    run.json("deployment", "update", "e3", "--parallel", "9", environ={"CIC_ENGINE_API_KEY": "x"})
    assert secret_of("e3") == "sk-environ", "only what is named is changed"
    shown = run("deployment", "show", "e2")
    assert "sk-stdin" not in shown.out + shown.err
    for name in ("e1", "e2", "e3", "e4"):
        run.json("deployment", "delete", name, "--yes")


def test_waiting_ends_when_the_deployment_is_ready_or_failed(run: Line, site: AdminSite) -> None:
    create = ("deployment", "create", "--engine", "external", "--url", "http://127.0.0.1:9")
    site.live.every_deployment = DeploymentLive("ready", "", ())
    assert run.json(*create, "--name", "w1", "--wait")["state"] == "ready"
    site.live.every_deployment = DeploymentLive("failed", "Nobody answers there.", ())
    done = run("--json", *create, "--name", "w2", "--wait")
    assert done.code == ExitCode.FAILED
    assert done.error["message"] == "The deployment w2 is failed: Nobody answers there."
    site.live.every_deployment = DeploymentLive("starting", "", ())
    done = run("--json", *create, "--name", "w3", "--wait", "--wait-timeout", "1")
    assert (done.code, "starting" in done.error["message"]) == (ExitCode.FAILED, True)
    site.live.every_deployment = None
    for name in ("w1", "w2", "w3"):
        run.json("deployment", "delete", name, "--yes")


def test_nodes_and_regions(run: Line) -> None:
    made = run.json("node", "create", "gpu1", "--region", "eu")
    assert (made["state"], made["region"]) == ("joining", "eu")
    assert run.json("node", "update", "gpu1", "--name", "gpu2")["name"] == "gpu2"
    assert run.json("node", "drain", "gpu2", "--reason", "new fans")["wish_reason"] == "new fans"
    assert run.json("node", "maintenance", "gpu2")["wish"] == "maintenance"
    assert run.json("node", "suspend", "gpu2")["wish"] == "maintenance"
    assert run.json("node", "resume", "gpu2")["wish"] == "serving"
    assert [row["name"] for row in run.json("node", "list")] == ["gpu2"]
    assert "gpu2" in run("node", "show", "gpu2").out
    run.json("node", "delete", "gpu2", "--yes")
    assert run.json("region", "create", "us", "--multiplier", "0.7")["multiplier_bp"] == 7_000
    assert run.json("region", "update", "us", "--multiplier", "1.25")["multiplier_bp"] == 12_500
    assert "1.25" in run("region", "list").out
    assert run("region", "show", "us").out.split()[2:4] == ["multiplier", "1.25"]
    assert "no factor" in run("region", "update", "us", "--multiplier", "-1").err
    assert run.json("region", "delete", "us", "--yes") == {"deleted": "us"}


def test_nothing_is_deleted_unasked(run: Line) -> None:
    run.json("tenant", "create", "kept")
    assert run.fails(ExitCode.USAGE, "tenant", "delete", "kept") == "confirmation_needed"
    assert run.json("tenant", "show", "kept")["name"] == "kept"
    absent = run.fails(ExitCode.NOT_FOUND, "tenant", "delete", "absent", "--yes")
    assert absent == "not_found"


def test_a_name_cannot_leave_its_place_in_the_path(run: Line) -> None:
    for name in ("../status", "acme/suspend", "a?b=c", "%2e%2e"):
        assert run.fails(ExitCode.NOT_FOUND, "tenant", "show", name) == "not_found"


def test_the_audit_is_listed_and_verified(run: Line, site: AdminSite) -> None:
    entries = run.json("audit", "list")
    assert [entry["seq"] for entry in entries] == list(range(1, len(entries) + 1))
    assert {"key", "tenant", "deployment"} <= {entry["object_kind"] for entry in entries}
    assert run.json("audit", "list", "--since", len(entries) - 1) == entries[-1:]
    assert "clsk_live_" not in json.dumps(entries).replace("…", "").split("prefix")[0]
    assert run.json("audit", "verify") == {
        "ok": True,
        "entries": len(entries),
        "head_sha256": entries[-1]["sha256"],
        "problems": [],
    }
    assert run("audit", "list").out.splitlines()[0].split()[:3] == ["SEQ", "AT", "WHO"]


def test_the_status_in_both_forms(run: Line) -> None:
    status = run.json("status")
    assert status["ready"] is True
    assert status["endpoint"] == "http://127.0.0.1:8080/v1"
    assert "endpoint          http://127.0.0.1:8080/v1" in run("status").out


def test_an_update_that_names_nothing_lists_what_it_could_name(run: Line) -> None:
    run.json(
        *("deployment", "create", "--name", "idle", "--engine", "external"),
        *("--url", "http://127.0.0.1:9/v1"),
    )
    done = run("--json", "deployment", "update", "idle")
    assert (done.code, done.error["code"]) == (ExitCode.USAGE, "usage")
    assert "--replicas" in done.error["next_step"]
    assert "--wait" not in done.error["next_step"]


def test_the_help_gives_the_bounds_that_are_checked(run: Line) -> None:
    text = " ".join(run("deployment", "update", "--help").out.split())
    assert f"{IDLE_S_MIN} to {IDLE_S_MAX} s" in text


def test_a_token_that_opens_the_node_api_says_so(run: Line) -> None:
    made = run.json("node", "token", "create")
    assert made["listener"] == {"address": "0.0.0.0:8444", "opened": True}
    assert "opened the node API of this host at 0.0.0.0:8444" in run("node", "token", "create").err
