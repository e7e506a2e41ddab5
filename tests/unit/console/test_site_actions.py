"""What is done to nodes, tenants and usage: every command line is one that `cic` takes."""

from importlib.metadata import entry_points
from typing import Any

import click
import pytest

from console.actions import Action
from console.screens import fleet_actions, tenant_actions, usage_actions

NODE: dict[str, Any] = {"name": "gpu-00", "region": "hall-b", "state": "ready", "wish": "serving"}
TENANT: dict[str, Any] = {
    "name": "acme",
    "plan": "free",
    "state": "active",
    "environments": 2,
    "keys": 9,
}
ENVIRONMENT: dict[str, Any] = {
    "name": "prod",
    "tenant": "acme",
    "region": "hall-b",
    "models": ["llama"],
    "state": "active",
}
KEY: dict[str, Any] = {
    "name": "web",
    "tenant": "acme",
    "environment": "prod",
    "role": "developer",
    "state": "active",
    "prefix": "clsk_live_Ab…",
    "expires_at": None,
}
ANSWERS: dict[str, str] = {
    "rpm": "60",
    "overlap": "0s",
    "models": "all",
    "plan": "developer",
    "multiplier": "0.7",
    "url": "https://control.example",
    "code": "c0de-secret",
    "file": "/media/a.receipt",
    "to": "/media",
    "all": "yes",
    "out": "/p.json",
    "gpu": "H100",
    "budget": "100.00",
    "notice": "2m",
    "reason": "fans",
    "name": "other",
    "region": "hall-c",
    "role": "admin",
    "node": "gpu-07",
    "ttl": "1h",
    "address": "10.0.0.1:9443",
    "expires": "30d",
    "test": "yes",
}


def every_action() -> list[Action]:
    rows: list[dict[str, Any]] = [{}, {"state": "suspended"}]
    return [
        *fleet_actions.of_node(NODE, [], []),
        *fleet_actions.of_node({**NODE, "wish": "maintenance"}, [], []),
        fleet_actions.new_token(),
        *fleet_actions.of_token({"id": "ntk_1", "state": "unused"}),
        fleet_actions.new_region(),
        *fleet_actions.of_region({"name": "hall-b", "multiplier_bp": 10_000}),
        fleet_actions.plan_burst(),
        fleet_actions.new_burst(),
        *fleet_actions.of_burst({"name": "month-end", "state": "running"}),
        tenant_actions.new_tenant(),
        *[each for row in rows for each in tenant_actions.of_tenant({**TENANT, **row})],
        tenant_actions.new_environment("acme"),
        *[
            each
            for row in rows
            for each in tenant_actions.of_environment({**ENVIRONMENT, **row}, 3)
        ],
        tenant_actions.new_key("acme", ["prod"], "prod"),
        *[each for row in rows for each in tenant_actions.of_key({**KEY, **row})],
        tenant_actions.limits("the whole site", ["--global"]),
        *usage_actions.of_the_site(),
        usage_actions.prove("rec_00000001"),
    ]


def taken(argv: Any) -> dict[str, Any]:
    """What `cic` understands; it refuses a line that is none."""
    first, *rest = argv
    (point,) = entry_points(group="crosslogic.commands", name=first)
    command = point.load()
    while isinstance(command, click.Group):
        first, *rest = rest
        command = command.commands[first]
    return dict(command.make_context(first, list(rest)).params)


def filled(action: Action, **values: str) -> dict[str, str]:
    return {field.name: field.default for field in action.fields} | values


def by_key(actions: list[Action], key: str) -> Action:
    (found,) = [action for action in actions if action.key == key]
    return found


@pytest.mark.parametrize("action", every_action(), ids=lambda each: f"{each.key} {each.title}")
def test_every_command_line_is_taken(action: Action) -> None:
    answers = {field.name: ANSWERS.get(field.name, field.default) for field in action.fields}
    argv = list(action.argv(answers))
    assert taken(argv) is not None
    assert all(isinstance(part, str) for part in argv)
    assert action.key.isupper()


@pytest.mark.parametrize("action", every_action(), ids=lambda each: f"{each.key} {each.title}")
def test_what_loses_something_says_so_and_wants_its_name(action: Action) -> None:
    if action.danger == "typed":
        assert action.type_this
    if action.danger != "none":
        assert action.impact


def test_a_code_of_the_vendor_is_in_no_list_of_processes() -> None:
    enrol = by_key(usage_actions.of_the_site(), "E")
    assert "c0de-secret" not in enrol.argv(filled(enrol, **ANSWERS))
    assert enrol.stdin == "code"


def test_a_leaked_key_can_end_at_once() -> None:
    rotate = by_key(tenant_actions.of_key(KEY), "R")
    assert taken(rotate.argv(filled(rotate)))["overlap"] == 86_400
    assert taken(rotate.argv(filled(rotate, overlap="0s")))["overlap"] == 0
    assert rotate.shown_once == "key"


def test_an_edit_without_a_change_is_no_command() -> None:
    for action in (
        by_key(tenant_actions.of_tenant(TENANT), "E"),
        by_key(tenant_actions.of_environment(ENVIRONMENT, 3), "E"),
        by_key(tenant_actions.of_key(KEY), "E"),
        by_key(fleet_actions.of_node(NODE, [], []), "E"),
    ):
        with pytest.raises(ValueError, match="Nothing is different"):
            action.argv(filled(action))
    limits = tenant_actions.limits("all", ["--global"])
    with pytest.raises(ValueError, match="at least one"):
        limits.argv(filled(limits))


def test_a_node_that_serves_is_drained_with_what_it_costs() -> None:
    replica = {"state": "ready", "node": "gpu-00", "deployment": "llama", "requests_running": 7}
    drain = by_key(fleet_actions.of_node(NODE, [replica], [{"name": "llama"}]), "D")
    assert "1 ready replica run here with 7 requests." in drain.impact or "1 ready" in drain.impact
    assert "llama: no other replica is ready." in drain.impact
    elsewhere = {**replica, "node": "gpu-01"}
    drain = by_key(fleet_actions.of_node(NODE, [replica, elsewhere], [{"name": "llama"}]), "D")
    assert "no other replica" not in drain.impact


def test_what_is_drained_is_resumed_and_not_drained_again() -> None:
    keys = [action.key for action in fleet_actions.of_node({**NODE, "wish": "drained"}, [], [])]
    assert "R" in keys
    assert "D" not in keys
    assert fleet_actions.of_token({"id": "x", "state": "used"}) == []
    assert fleet_actions.of_burst({"name": "x", "state": "ended"}) == []


@pytest.mark.parametrize(
    "actions",
    [
        fleet_actions.of_node(NODE, [], []),
        [*tenant_actions.of_tenant(TENANT), tenant_actions.new_tenant()],
        [*tenant_actions.of_key(KEY), tenant_actions.new_key("acme", ["prod"], "prod")],
        usage_actions.of_the_site(),
    ],
)
def test_a_key_means_one_thing(actions: list[Action]) -> None:
    keys = [action.key for action in actions]
    assert len(keys) == len(set(keys))
