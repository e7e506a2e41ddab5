"""The commands that every noun has in the same form: list, show, suspend, resume, delete."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import click
import msgspec

from appliance.commands.client import AdminClient, object_path
from appliance.commands.context import Refused
from appliance.commands.output import Column, fields_of, print_fields, print_json, print_rows
from appliance.wire.command import CommandError, ExitCode, Invocation

T = TypeVar("T", bound=msgspec.Struct)
Command = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Noun(Generic[T]):
    """One kind of object of the admin API.

    `scope` names what narrows an ambiguous name: (), ("tenant",) or ("tenant", "environment").
    """

    word: str
    collection: str
    answer: type[T]
    columns: Sequence[Column[T]]
    scope: Sequence[str] = ()
    suspends: bool = True
    cascades: bool = False  # deletes what hangs on it when told to
    show: Callable[[T], None] | None = None  # for people; default: field by field

    def print(self, invocation: Invocation, item: T) -> None:
        if invocation.json:
            print_json(item)
        elif self.show is not None:
            self.show(item)
        else:
            print_fields(fields_of(item))


def scoped(scope: Sequence[str]) -> Callable[[Command], Command]:
    """Options that say in which tenant and environment a name is meant."""

    def add(command: Command) -> Command:
        if "environment" in scope:
            command = click.option(
                "--env", "environment", metavar="ENV", help="Only in this environment."
            )(command)
        if "tenant" in scope:
            command = click.option("--tenant", metavar="TENANT", help="Only of this tenant.")(
                command
            )
        return command

    return add


def add_common(group: click.Group, noun: Noun[Any]) -> None:
    """Give a group its list, show, suspend, resume and delete."""
    group.add_command(_list(noun))
    group.add_command(_show(noun))
    if noun.suspends:
        group.add_command(
            _change_state(noun, "suspend", f"Suspend the {noun.word} REF, an id or a name.")
        )
        group.add_command(_change_state(noun, "resume", f"Resume the suspended {noun.word} REF."))
    group.add_command(_delete(noun))


def confirm(invocation: Invocation, question: str, *, yes: bool) -> None:
    """Ask before something is lost. Raises CommandError unless the answer is yes."""
    if yes:
        return
    if invocation.json or not sys.stdin.isatty():
        raise Refused(
            "confirmation_needed",
            "This deletes something and nobody can be asked.",
            next_step="Add --yes if it is meant.",
            exit_code=ExitCode.USAGE,
        )
    if not click.confirm(question, err=True):
        raise CommandError("Nothing was deleted.")


def _list(noun: Noun[Any]) -> click.Command:
    @click.command("list", help=f"List {noun.collection}.")
    @scoped(noun.scope)
    @click.pass_obj
    def command(invocation: Invocation, /, **scope: str | None) -> None:
        with AdminClient(invocation.home) as client:
            rows = client.get(f"/v1/{noun.collection}", list[noun.answer], scope)  # type: ignore[name-defined]  # a type of run time
        if invocation.json:
            print_json(rows)
        else:
            print_rows(rows, noun.columns, f"No {noun.collection} yet.")

    return command


def _show(noun: Noun[Any]) -> click.Command:
    @click.command("show", help=f"Show the {noun.word} REF, an id or a name.")
    @click.argument("ref")
    @scoped(noun.scope)
    @click.pass_obj
    def command(invocation: Invocation, /, ref: str, **scope: str | None) -> None:
        with AdminClient(invocation.home) as client:
            item = client.get(object_path(noun.collection, ref), noun.answer, scope)
        noun.print(invocation, item)

    return command


def _change_state(noun: Noun[Any], verb: str, summary: str) -> click.Command:
    @click.command(verb, help=summary)
    @click.argument("ref")
    @scoped(noun.scope)
    @click.pass_obj
    def command(invocation: Invocation, /, ref: str, **scope: str | None) -> None:
        path = object_path(noun.collection, ref, verb)
        with AdminClient(invocation.home) as client:
            item = client.send("POST", path, noun.answer, query=scope)
        noun.print(invocation, item)

    return command


def _delete(noun: Noun[Any]) -> click.Command:
    @click.command("delete", help=f"Delete the {noun.word} REF, an id or a name.")
    @click.argument("ref")
    @scoped(noun.scope)
    @_cascade(noun)
    @click.option("--yes", is_flag=True, help="Do not ask.")
    @click.pass_obj
    def command(invocation: Invocation, /, ref: str, *, yes: bool, **scope: Any) -> None:
        cascade = scope.pop("cascade", False)
        path = object_path(noun.collection, ref)
        with AdminClient(invocation.home) as client:
            item = client.get(path, noun.answer, scope)
            with_it = " with all that hangs on it" if cascade else ""
            confirm(invocation, f"Delete the {noun.word} {item.name}{with_it}?", yes=yes)
            query = {**scope, "cascade": "true"} if cascade else scope
            client.send("DELETE", path, type(None), query=query)
        if invocation.json:
            print_json({"deleted": getattr(item, "id", item.name)})
        else:
            click.echo(f"Deleted the {noun.word} {item.name}.")

    return command


def _cascade(noun: Noun[Any]) -> Callable[[Command], Command]:
    if not noun.cascades:
        return lambda command: command
    return click.option("--cascade", is_flag=True, help="Also delete what hangs on it.")
