"""What is done to models and deployments: every command line is one that `cic` takes."""

from typing import Any

import click
import pytest

from appliance.commands.deployments import deployment
from appliance.commands.models import model
from console.actions import Action
from console.screens.model_actions import (
    import_pack,
    new_deployment,
    of_deployment,
    of_model,
    register_model,
    sweep,
)

GROUPS: dict[str, click.Group] = {"deployment": deployment, "model": model}
ROW: dict[str, Any] = {
    "name": "llama",
    "state": "ready",
    "replicas_wanted": 2,
    "replicas_ready": 1,
    "requests_running": 16,
    "requests_queued": 7,
    "strategy": "auto",
    "pins": ["n1", "n2"],
    "idle_s": 600,
}
MODEL: dict[str, Any] = {
    "name": "llama",
    "state": "active",
    "family": "llama",
    "licence": "llama3",
    "size_bytes": 7 * 1024**3,
}


def taken(argv: Any) -> dict[str, Any]:
    """What `cic` understands; it refuses a line that is none."""
    group, verb, *rest = argv
    command = GROUPS[group].commands[verb]
    return command.make_context(verb, list(rest)).params


def by_key(actions: list[Action], key: str) -> Action:
    (found,) = [action for action in actions if action.key == key]
    return found


def filled(action: Action, **values: str) -> dict[str, str]:
    return {field.name: field.default for field in action.fields} | values


def test_deploying_says_all_that_was_answered() -> None:
    action = new_deployment(["llama"], "llama")
    argv = action.argv(filled(action, replicas="3", gpus="2", context="8192", pins="n1", idle="60"))
    told = taken(argv)
    assert (told["name"], told["engine"], told["source"]) == ("llama", "vllm", "llama")
    assert (told["replicas"], told["gpus"], told["context"]) == (3, 2, 8192)
    assert (told["pin"], told["idle_unload"], told["strategy"]) == ("n1", 60, "auto")


def test_a_key_of_an_external_engine_is_read_from_the_input_and_not_told() -> None:
    action = new_deployment([])
    values = filled(action, name="x", engine="external", url="http://h/v1", api_key="sk-1")
    argv = action.argv(values)
    assert "sk-1" not in argv
    assert taken(argv)["api_key"] == "-"
    assert action.stdin == "api_key"
    assert "--api-key" not in action.argv({**values, "api_key": ""})


@pytest.mark.parametrize(
    "values", [{"engine": "external", "name": "x"}, {"engine": "vllm", "name": "x"}]
)
def test_a_deployment_without_a_source_makes_no_command(values: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"needs its URL|Name a model"):
        new_deployment([]).argv(values)


def test_an_edit_names_only_what_is_different() -> None:
    action = by_key(of_deployment(ROW, 0), "E")
    with pytest.raises(ValueError, match="Nothing is different"):
        action.argv(filled(action))
    assert action.argv(filled(action, replicas="4")) == [
        *("deployment", "update", "llama", "--replicas", "4")
    ]
    told = taken(action.argv(filled(action, pins="", idle="", strategy="recreate", gpus="4")))
    assert (told["pin"], told["idle_unload"], told["strategy"]) == ("", 0, "recreate")
    assert (told["gpus"], told["replicas"]) == (4, None)


def test_what_ends_something_says_what_and_wants_its_name() -> None:
    delete = by_key(of_deployment(ROW, 2), "X")
    assert delete.danger == "typed"
    assert delete.type_this == "llama"
    assert "16 requests running and 7 waiting" in delete.impact
    assert "2 environments name it" in delete.impact
    assert taken(delete.argv({}))["yes"]
    suspend = by_key(of_deployment(ROW, 0), "S")
    assert suspend.danger == "confirm"
    assert taken(suspend.argv({}))["ref"] == "llama"


def test_what_is_suspended_can_be_resumed_and_not_suspended() -> None:
    keys = {action.key for action in of_deployment({**ROW, "state": "suspended"}, 0)}
    assert "R" in keys
    assert "S" not in keys
    resume = by_key(of_model({**MODEL, "state": "suspended"}, []), "R")
    assert resume.argv({}) == ("model", "resume", "llama")


def test_models_are_changed_by_their_own_options() -> None:
    edit = by_key(of_model(MODEL, ["a", "b"]), "E")
    assert edit.argv(filled(edit, licence="MIT")) == [
        "model",
        "update",
        "llama",
        "--licence",
        "MIT",
    ]
    assert taken(edit.argv(filled(edit, name="l2", family="")))["name"] == "l2"
    delete = by_key(of_model(MODEL, ["a", "b"]), "X")
    assert "deployed as a, b" in delete.impact
    assert taken(delete.argv({}))["yes"]
    add = register_model()
    assert taken(add.argv({"path": "/m.gguf", "name": "m", "family": "", "licence": ""})) == {
        "name": "m",
        "path": "/m.gguf",
        "family": "",
        "licence": "",
    }
    assert taken(sweep().argv({})) == {"dry_run": False}


def test_a_pack_is_trusted_and_its_licence_accepted_only_when_that_was_said() -> None:
    key = "ab" * 32
    looked = import_pack("/media/x.modelpack", key, "llama3")
    assert key in looked.impact
    plain = taken(looked.argv(filled(looked)))
    assert (plain["publisher"], plain["accept_licence"]) == (None, False)
    told = taken(looked.argv(filled(looked, trust="yes", accept="yes")))
    assert (told["publisher"], told["accept_licence"]) == (key, True)
    typed = import_pack()
    told = taken(typed.argv(filled(typed, path="/p.modelpack", key=key)))
    assert (told["file"], told["publisher"]) == ("/p.modelpack", key)
    assert typed.slow
