"""`cic settings`: what the site is told, where each value comes from, and changing it."""

import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from appliance.commands.client import AdminClient
from appliance.commands.context import Refused, cic_line, require_site
from appliance.commands.output import Column, print_fields, print_json, print_rows
from appliance.wire.command import CommandError, ExitCode, Invocation
from appliance.wire.home import Home
from appliance.wire.settings import Setting, SettingsChange, SettingsChanged, takes

_COLUMNS: Final[tuple[Column[Setting], ...]] = (
    Column("SETTING", lambda row: row.name),
    Column("VALUE", lambda row: row.value),
    Column("SOURCE", lambda row: row.source),
    Column("AFTER A START", lambda row: row.pending),
    Column("DEFAULT", lambda row: row.default),
)


@click.group()
def settings() -> None:
    """What the site is told: values, where they come from, what they mean. Changed here as well."""


@settings.command("list")
@click.option("--changed", is_flag=True, help="Only those that are not their defaults.")
@click.pass_obj
def list_(invocation: Invocation, *, changed: bool) -> None:
    """List every setting. Of a site that does not run, as its file says."""
    rows = [
        row
        for row in _rows(invocation.home)
        if not changed or row.source != "default" or row.pending is not None
    ]
    if invocation.json:
        print_json(rows)
    else:
        print_rows(rows, _COLUMNS, "Every setting has its default.")


@settings.command("show")
@click.argument("name")
@click.pass_obj
def show(invocation: Invocation, name: str) -> None:
    """Show the setting NAME, as timeouts.drain_s: what it means, and what it takes."""
    row = next((row for row in _rows(invocation.home) if row.name == name), None)
    if row is None:
        raise Refused(
            "not_found",
            f"{name} is not a setting.",
            next_step=f"`{cic_line(invocation.home, 'settings list')}` lists them.",
            exit_code=ExitCode.NOT_FOUND,
        )
    if invocation.json:
        print_json(row)
        return
    print_fields(
        (
            ("name", row.name),
            ("value", row.value),
            ("source", row.source),
            ("after a start", row.pending),
            ("default", row.default),
            ("takes", takes(row)),
            ("variable", row.variable),
            ("in force", "after the next start" if row.restart else "at once"),
            ("meaning", row.meaning),
        )
    )


@settings.command("set")
@click.argument("name")
@click.argument("value", required=False)
@click.option("--check", is_flag=True, help="Say what it would do, and change nothing.")
@click.pass_obj
def set_(invocation: Invocation, name: str, value: str | None, *, check: bool) -> None:
    """Set NAME to VALUE in the site's file. Without VALUE, or with `-`, it is read from stdin.

    The file as a whole is checked first. `none` takes a value away where there may be none;
    a list is words with commas between them.
    """
    if value in {None, "-"}:
        value = sys.stdin.readline().rstrip("\n")
    assert value is not None  # read, if it was not given
    _change(invocation, SettingsChange(set={name: value}, check=check))


@settings.command("unset")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--check", is_flag=True, help="Say what it would do, and change nothing.")
@click.pass_obj
def unset(invocation: Invocation, names: tuple[str, ...], *, check: bool) -> None:
    """Take NAMEs out of the site's file: they have their defaults again."""
    _change(invocation, SettingsChange(unset=names, check=check))


@settings.command("check")
@click.pass_obj
def check(invocation: Invocation) -> None:
    """Read the file as a start would, and say what is wrong with it, or what waits for a start."""
    from appliance.admin.settings_facts import defect  # noqa: PLC0415 (loaded where it is needed)
    from appliance.settings import load  # noqa: PLC0415 (the same)

    home = invocation.home
    require_site(home)
    fault = defect(load(home.config_file, os.environ))
    if fault:
        raise Refused(
            "bad_settings",
            fault,
            next_step=f"Correct it: `{cic_line(home, 'settings set NAME VALUE')}`.",
            exit_code=ExitCode.CONFIGURATION,
        )
    waiting = [row.name for row in _rows(home) if row.pending is not None]
    if invocation.json:
        print_json({"file": str(home.config_file), "ok": True, "restart": waiting})
        return
    click.echo(f"{home.config_file} is understood.")
    if waiting:
        click.echo(f"Wait for a start of the appliance: {', '.join(waiting)}.")


def _rows(home: Home) -> Sequence[Setting]:
    try:
        with AdminClient(home) as client:
            return client.get("/v1/settings", list[Setting])
    except CommandError as error:
        if not _stopped(error):
            raise
    from appliance.admin.settings_desk import SettingsDesk  # noqa: PLC0415 (not while it runs)

    return SettingsDesk(home.config_file, os.environ, None).rows()


def _change(invocation: Invocation, change: SettingsChange) -> None:
    try:
        with AdminClient(invocation.home) as client:
            done = client.send("PATCH", "/v1/settings", SettingsChanged, change)
    except CommandError as error:
        if not _stopped(error):
            raise
        from appliance.commands.stopped_settings import change_stopped  # noqa: PLC0415 (the same)

        done = change_stopped(invocation.home, change)
    if invocation.json:
        print_json(done)
        return
    for warning in done.warnings:
        click.echo(f"Beware: {warning}", err=True)
    if not done.changed:
        click.echo("Nothing is different.")
        return
    verb = "Changed" if done.written else "Would change"
    click.echo(f"{verb} {', '.join(done.changed)} in {done.file}.")
    if done.restart:
        click.echo(f"In force after the next start of the appliance: {', '.join(done.restart)}.")


def _stopped(error: CommandError) -> bool:
    return getattr(error, "wire_code", "") == "not_running"
