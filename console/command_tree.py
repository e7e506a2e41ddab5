"""Every `cic` command with its options, as the installed programs declare them.

`python -m console.command_tree` prints the tree as JSON. It is a program of its own because it
loads every command there is, which takes a second: the console asks for it in the background.
"""

import importlib.metadata
import sys
from typing import Any, Final

import click
import msgspec

_GROUP: Final = "crosslogic.commands"


class Option(msgspec.Struct, frozen=True):
    """One option, or one argument where `names` holds a single word in capitals."""

    names: tuple[str, ...]
    what: str = ""
    takes: str = ""  # what its value is called; "" for a flag
    choices: tuple[str, ...] = ()
    required: bool = False


class Command(msgspec.Struct, frozen=True):
    name: str
    what: str = ""  # the first sentence of its help
    arguments: tuple[Option, ...] = ()
    options: tuple[Option, ...] = ()
    commands: tuple["Command", ...] = ()

    def named(self, name: str) -> "Command | None":
        return next((each for each in self.commands if each.name == name), None)

    def option(self, name: str) -> Option | None:
        return next((each for each in self.options if name in each.names), None)


def described(name: str, command: click.Command) -> Command:
    """What a click command says of itself."""
    nested = command.commands if isinstance(command, click.Group) else {}
    return Command(
        name,
        (command.get_short_help_str(limit=200)).removesuffix("."),
        tuple(_option(each) for each in command.params if isinstance(each, click.Argument)),
        tuple(
            _option(each)
            for each in command.params
            if isinstance(each, click.Option) and not each.hidden
        ),
        tuple(described(each, nested[each]) for each in sorted(nested) if not nested[each].hidden),
    )


def _option(parameter: click.Parameter) -> Option:
    choices: Any = parameter.type.choices if isinstance(parameter.type, click.Choice) else ()
    words = tuple(str(each) for each in choices)
    if isinstance(parameter, click.Option):
        flag = parameter.is_flag or parameter.count
        takes = "" if flag else parameter.metavar or parameter.type.name.upper()
        return Option(
            (*parameter.opts, *parameter.secondary_opts),
            parameter.help or "",
            takes,
            words,
            parameter.required,
        )
    name = parameter.metavar or (parameter.name or "").upper()
    return Option((name,), takes=name, choices=words, required=parameter.required)


def every_command() -> Command:
    """The tree under `cic`. A command that cannot be loaded is left out: running it tells why."""
    commands = []
    for entry in sorted(importlib.metadata.entry_points(group=_GROUP), key=lambda one: one.name):
        try:
            commands.append(described(entry.name, entry.load()))
        except (ImportError, AttributeError):
            continue
    return Command("cic", commands=tuple(commands))


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(every_command()))
