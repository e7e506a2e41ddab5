"""The `cic` command: finds its subcommands by entry points and loads only the one that was typed.

Every program of the distribution offers its commands in the group `crosslogic.commands`, so no
program imports another, and `cic status` does not pay for the gateway. The list of `cic --help`
is read from the sources of the commands, without running them.
"""

import ast
import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Final

import click
from click.shell_completion import CompletionItem

from appliance.domain.errors import CrossLogicError
from appliance.wire.command import CommandError, ExitCode, Invocation
from appliance.wire.home import find_home

GROUP: Final = "crosslogic.commands"
DISTRIBUTION: Final = "crosslogic-appliance"

# Exit codes of errors that are raised below the commands, by their stable code.
_EXIT_CODES: Final = {
    "invalid_value": ExitCode.USAGE,
    "setting_refused": ExitCode.USAGE,
    "settings_not_written": ExitCode.CONFIGURATION,
    "already_running": ExitCode.CONFLICT,
    "socket_in_use": ExitCode.CONFLICT,
    "bad_settings": ExitCode.CONFIGURATION,
    "address_unusable": ExitCode.CONFIGURATION,
    "listen_failed": ExitCode.CONFIGURATION,
    "no_address": ExitCode.CONFIGURATION,
    "node_api_closed": ExitCode.CONFIGURATION,
    "secret_missing": ExitCode.CONFIGURATION,
    "secret_exposed": ExitCode.CONFIGURATION,
    "secret_damaged": ExitCode.CONFIGURATION,
    "other_secrets": ExitCode.CONFIGURATION,
    "database_unavailable": ExitCode.CONFIGURATION,
    "schema_too_new": ExitCode.CONFIGURATION,
    "database_damaged": ExitCode.DAMAGED,
    "no_such_manifest": ExitCode.NOT_FOUND,
    "no_such_alert": ExitCode.NOT_FOUND,
    "no_such_record": ExitCode.NOT_FOUND,
    "not_sealed_yet": ExitCode.CONFLICT,
    "other_manifest_key": ExitCode.CONFIGURATION,
    "bad_bundle": ExitCode.DAMAGED,
    "bundle_too_large": ExitCode.DAMAGED,
    "bad_document": ExitCode.DAMAGED,
    "bad_manifest": ExitCode.DAMAGED,
    "bad_checkpoint": ExitCode.DAMAGED,
    "key_chain_broken": ExitCode.DAMAGED,
    "signature_invalid": ExitCode.DAMAGED,
    "unknown_signing_key": ExitCode.DAMAGED,
    "bundle_exists": ExitCode.CONFLICT,
    "carrier_unusable": ExitCode.CONFIGURATION,
    "bundle_unreadable": ExitCode.CONFIGURATION,
    "not_a_backup": ExitCode.CONFIGURATION,
    "backup_key_missing": ExitCode.CONFIGURATION,
    "backup_not_written": ExitCode.CONFIGURATION,
    "backup_damaged": ExitCode.DAMAGED,
    "home_in_use": ExitCode.CONFLICT,
    "bad_public_key": ExitCode.CONFIGURATION,
    "control_plane_unready": ExitCode.CONFIGURATION,
    "bad_database_url": ExitCode.CONFIGURATION,
    "other_signing_key": ExitCode.CONFIGURATION,
    "unknown_site": ExitCode.NOT_FOUND,
    "site_exists": ExitCode.CONFLICT,
    "not_possible": ExitCode.CONFLICT,
}


class Programs(click.Group):
    """A group whose commands are the entry points of all installed programs."""

    @cached_property
    def entries(self) -> dict[str, importlib.metadata.EntryPoint]:
        return {entry.name: entry for entry in importlib.metadata.entry_points(group=GROUP)}

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        return sorted(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 (click's signature)
        entry = self.entries.get(cmd_name)
        if entry is None:
            return None
        try:
            command = entry.load()
        except (ImportError, AttributeError) as error:
            raise CommandError(
                f"The command '{cmd_name}' cannot be loaded: {error}.",
                next_step="Install the distribution again; its parts do not fit together.",
                exit_code=ExitCode.CONFIGURATION,
            ) from error
        _accept_json(command)
        return command  # type: ignore[no-any-return]  # the group's contract: click commands only

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, _summary(self.entries[name])) for name in self.list_commands(ctx)]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        return [
            *(CompletionItem(name, help=_summary(self.entries[name])) for name in names),
            # Past the group's own: it would load every command to complete its name.
            *super(click.Group, self).shell_complete(ctx, incomplete),
        ]


def _summary(entry: importlib.metadata.EntryPoint) -> str:
    """The first sentence of the command's docstring, from its source; "" when there is none."""
    try:
        spec = importlib.util.find_spec(entry.module)
        if spec is None or spec.origin is None:
            return ""
        tree = ast.parse(Path(spec.origin).read_bytes())
    except (ImportError, OSError, SyntaxError):
        return ""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == entry.attr:
            paragraph = (ast.get_docstring(node) or "").partition("\n\n")[0]
            return " ".join(paragraph.split()).partition(". ")[0].removesuffix(".")
    return ""


def _accept_json(command: click.Command) -> None:
    """Let `--json` also be written behind the subcommand, whichever program brought it."""
    if isinstance(command, click.Group):
        for nested in command.commands.values():
            _accept_json(nested)
    if not any("--json" in parameter.opts for parameter in command.params):
        command.params.append(
            click.Option(
                ["--json"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_json_behind,
                help="Print JSON.",
            )
        )


def _json_behind(ctx: click.Context, _option: click.Parameter, value: bool) -> None:  # noqa: FBT001 (click's signature)
    invocation = ctx.find_object(Invocation)
    if value and invocation is not None:
        ctx.obj = replace(invocation, json=True)


def _print_version(ctx: click.Context, _option: click.Parameter, value: bool) -> None:  # noqa: FBT001 (click's signature)
    if value and not ctx.resilient_parsing:
        click.echo(f"cic {importlib.metadata.version(DISTRIBUTION)}")
        ctx.exit()


@click.group(cls=Programs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--home",
    metavar="DIR",
    help="Folder of the site: configuration, state, sockets. Also CIC_HOME."
    " Default: the system install, else the platform's own folders.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON; also behind the subcommand.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version and exit.",
)
@click.pass_context
def cic(ctx: click.Context, home: str | None, *, as_json: bool) -> None:
    """CrossLogic: an OpenAI-compatible endpoint on your own servers, metered to the token."""
    ctx.obj = Invocation(home=find_home(home), json=as_json)


def main(args: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is one of ExitCode. Expected failures show no traceback."""
    arguments = list(sys.argv[1:] if args is None else args)
    # Asked for early, because a command line that cannot be parsed is answered in JSON too.
    as_json = "--json" in arguments
    try:
        result = cic.main(arguments, prog_name="cic", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return ExitCode.USAGE
    except click.ClickException as error:
        if as_json:
            _print_error("usage", error.format_message(), "Add --help to see how it is written.")
        else:
            error.show()
        return ExitCode.USAGE
    except click.Abort:
        _report("interrupted", "Interrupted.", "", as_json=as_json)
        return ExitCode.INTERRUPTED
    except CommandError as error:
        code = getattr(error, "wire_code", error.code)
        _report(code, error.message, error.next_step, as_json=as_json)
        return error.exit_code
    except CrossLogicError as error:
        _report(error.code, error.message, error.next_step, as_json=as_json)
        return _EXIT_CODES.get(error.code, ExitCode.FAILED)
    # Commands return nothing; a number is what click makes of `ctx.exit(number)`.
    return result if isinstance(result, int) else ExitCode.OK


def _report(code: str, message: str, next_step: str, *, as_json: bool) -> None:
    if as_json:
        _print_error(code, message, next_step)
    else:
        click.echo(f"cic: {message} {next_step}".rstrip(), err=True)


def _print_error(code: str, message: str, next_step: str) -> None:
    click.echo(json.dumps({"error": {"code": code, "message": message, "next_step": next_step}}))


if __name__ == "__main__":
    sys.exit(main())
