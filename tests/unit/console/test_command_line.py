"""What a line behind `:` means, and what it may become."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.command_line import PLACES, Deed, Go, No, Run, meaning, suggestions
from console.command_tree import Command, Option, every_command

YES = Option(("--yes",))
TREE = Command(
    "cic",
    commands=(
        Command("serve"),
        Command("console"),
        Command("sync", commands=(Command("now"),)),
        Command(
            "agent", commands=(Command("join", options=(Option(("--server",), takes="URL"),)),)
        ),
        Command("status"),
        Command("usage", options=(Option(("--by",), takes="TEXT"),)),
        Command(
            "tenant",
            commands=(
                Command(
                    "create",
                    arguments=(Option(("NAME",), takes="NAME", required=True),),
                    options=(Option(("--plan",), takes="CHOICE", choices=("free", "business")),),
                ),
                Command("delete", arguments=(Option(("REF",), required=True),), options=(YES,)),
                Command("list"),
            ),
        ),
        Command(
            "key",
            commands=(
                Command("create", options=(Option(("--tenant",), takes="T", required=True),)),
            ),
        ),
    ),
)
NAMES = {"tenant": ["acme", "two words"]}


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("", None),
        ("   ", None),
        ("cic", None),
        ("nodes", Go("2", "nodes")),
        ("3", Go("3", "")),
        ("q", Deed("quit")),
        ("q!", Deed("quit")),
        ("theme light", Deed("theme", "light")),
        ("usage", Go("5", "")),
        ("cic usage", Run(("usage",), reads=True)),
        ("usage --by model", Run(("usage", "--by", "model"), reads=True)),
        ("tenant create 'two words'", Run(("tenant", "create", "two words"), reads=False)),
        ("tenant list", Run(("tenant", "list"), reads=True)),
        ("--json tenant list", Run(("--json", "tenant", "list"), reads=True)),
        ("agent join --server x", Run(("agent", "join", "--server", "x"), reads=False)),
        ("serve --help", Run(("serve", "--help"), reads=True)),
        (
            "tenant delete acme",
            Run(("tenant", "delete", "acme", "--yes"), reads=False, asks="acme"),
        ),
        ("tenant delete acme --yes", Run(("tenant", "delete", "acme", "--yes"), reads=False)),
    ],
)
def test_meaning(line: str, meant: object) -> None:
    assert meaning(line, TREE, read_only=False) == meant


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("serve", "appliance itself"),
        ("agent --name x", "until it is stopped"),
        ("console", "This is the console"),
        ("--home /elsewhere status", "one site"),
        ("frobnicate", "no command 'frobnicate'"),
        ("tenant create 'open", "quote"),
    ],
)
def test_what_is_refused_says_why(line: str, why: str) -> None:
    meant = meaning(line, TREE, read_only=False)
    assert isinstance(meant, No)
    assert why in meant.why


def test_a_read_only_console_runs_only_what_looks() -> None:
    for line in ("tenant list", "usage --by model", "status", "tenant create --help"):
        assert isinstance(meaning(line, TREE, read_only=True), Run), line
    for line in ("tenant create x", "tenant delete x", "key create --tenant list", "sync now"):
        assert isinstance(meaning(line, TREE, read_only=True), No), line
        assert isinstance(meaning(line, None, read_only=True), No), line


@given(st.text(max_size=60), st.booleans())
def test_any_line_means_something_and_never_fails(line: str, read_only: bool) -> None:  # noqa: FBT001 (drawn)
    for tree in (TREE, None):
        meaning(line, tree, read_only=read_only)
        for each in suggestions(line, tree, NAMES, ("dark", "light")):
            assert each.line.endswith(" ")


def shown(line: str) -> list[str]:
    return [each.shown for each in suggestions(line, TREE, NAMES, ("dark", "light"))]


def test_suggestions_follow_the_command() -> None:
    assert shown("ten") == ["tenant", "tenants"]
    assert shown("tenant ") == ["create", "delete", "list"]
    assert shown("tenant create x --plan f") == ["free"]
    assert shown("tenant delete a") == ["acme"]
    assert shown("tenant delete t") == ["'two words'"]
    assert shown("key create ") == ["--tenant"]
    assert shown("key create --tenant a") == ["acme"]
    assert shown("theme l") == ["light"]
    assert shown("tenant delete x --") == ["--yes"]
    assert shown("tenant delete x --yes --") == []


def test_a_suggestion_keeps_what_stands_before_it() -> None:
    assert [each.line for each in suggestions("cic tenant li", TREE, NAMES, ())] == [
        "cic tenant list "
    ]


def test_every_command_that_is_installed_can_be_described() -> None:
    tree = every_command()
    names = {each.name for each in tree.commands}
    assert {"status", "tenant", "deployment", "console", "control-plane"} <= names
    delete = tree.named("tenant")
    assert delete is not None
    delete = delete.named("delete")
    assert delete is not None
    assert delete.option("--yes") is not None
    assert delete.arguments[0].required
    # The console's own words hide no command: alone each goes where that is shown, and with
    # something behind it it is the command.
    for word in PLACES:
        hidden = tree.named(word)
        if hidden is not None and hidden.arguments:
            assert hidden.arguments[0].required, word


@pytest.mark.parametrize("command", ["list", "show", "status", "verify", "explain", "history"])
def test_words_that_mark_a_reading_command_mark_no_changing_one(command: str) -> None:
    """Which commands a read-only console runs is known by their last word."""
    tree = every_command()
    found = [
        (group.name, each.name)
        for group in tree.commands
        for each in group.commands
        if each.name == command
    ]
    for group, name in found:
        options = tree.named(group).named(name).options  # type: ignore[union-attr]  # it was found
        assert not any("--yes" in option.names for option in options)
