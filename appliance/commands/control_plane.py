"""`cic control-plane`: the vendor's side. Its commands are loaded when one of them is typed."""

from dataclasses import replace
from importlib import import_module
from typing import Final

import click

from appliance.commands.control_plane_context import ControlInvocation
from appliance.controlplane.settings import find_control_home
from appliance.wire.command import Invocation

# Module -> the names of its commands; the attribute is the name with `_` for `-`.
_COMMANDS: Final = {
    "appliance.commands.control_plane_bundles": ("import", "export", "quarantine", "audit"),
    "appliance.commands.control_plane_service": ("init", "serve", "key", "operator-token"),
    "appliance.commands.control_plane_sites": (
        "enroll",
        "sites",
        "entitlement",
        "grant-epoch",
        "revoke-key",
        "freeze",
        "unfreeze",
    ),
    "appliance.commands.control_plane_billing": (
        "customers",
        "tenants",
        "prices",
        "credits",
        "capacity",
        "adjust",
    ),
    "appliance.commands.control_plane_reconcile": ("holds", "reconcile"),
    "appliance.commands.control_plane_stripe": ("stripe",),
}
# Names that are Python's, or a module's.
_ATTRIBUTES: Final = {"import": "import_bundle", "sites": "sites_group"}


class _Parts(click.Group):
    """A group whose commands lie in several modules, so that one does not load the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        return sorted(name for names in _COMMANDS.values() for name in names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 (click's signature)
        for module, names in _COMMANDS.items():
            if cmd_name in names:
                command = getattr(
                    import_module(module), _ATTRIBUTES.get(cmd_name, cmd_name.replace("-", "_"))
                )
                assert isinstance(command, click.Command)  # by the table above
                _accept_json(command)
                return command
        return None


@click.group("control-plane", cls=_Parts)
@click.option("--home", metavar="DIR", help="Folder of the control plane. Also CICP_HOME.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; also behind the subcommand.")
@click.pass_context
def control_plane(ctx: click.Context, home: str | None, *, as_json: bool) -> None:
    """The vendor's control plane: verifies manifests, answers with receipts, bills."""
    above = ctx.find_object(Invocation)
    ctx.obj = ControlInvocation(
        home=find_control_home(home), json=as_json or (above is not None and above.json)
    )


def _accept_json(command: click.Command) -> None:
    """Let `--json` also be written behind the subcommand, in whichever module it lies."""
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
    invocation = ctx.find_object(ControlInvocation)
    if value and invocation is not None:
        ctx.obj = replace(invocation, json=True)
