"""`cic entitlement`: the licence of the site and its countdown."""

from pathlib import Path

import click

from appliance.commands.client import AdminClient
from appliance.commands.context import absolute
from appliance.commands.output import print_json
from appliance.commands.standing import print_licence
from appliance.security.signing import PublicKey
from appliance.sync.bundles import read_brought, read_key
from appliance.sync.errors import DocumentRefused
from appliance.wire.command import Invocation
from appliance.wire.sync import EntitlementInstall, EntitlementStatus


@click.group()
def entitlement() -> None:
    """The signed licence of this site: what it allows, and until when."""


@entitlement.command("install")
@click.argument("file")
@click.option(
    "--control-plane-key",
    "key_file",
    metavar="PEM",
    help="The control plane's public key, where this site does not know it yet; it is kept.",
)
@click.pass_obj
def install(invocation: Invocation, file: str, key_file: str | None) -> None:
    """Install the entitlement in FILE. One that is refused leaves what is installed in force."""
    brought = read_brought(Path(absolute(file)))
    if len(brought.envelopes) != 1:
        raise DocumentRefused(
            f"{file} holds {len(brought.envelopes)} documents.",
            next_step="Bundles are taken with `cic bundle import FILE`.",
        )
    key: PublicKey | None = None if key_file is None else read_key(Path(absolute(key_file)))
    body = EntitlementInstall(
        envelope=brought.envelopes[0].decode(errors="replace"),
        control_plane_key=None if key is None else key.pem,
    )
    with AdminClient(invocation.home) as client:
        found = client.send("POST", "/v1/entitlement", EntitlementStatus, body)
    if invocation.json:
        print_json(found)
        return
    if key is not None:
        click.echo(f"The control plane's key is {key.key_id}: compare it with the vendor's.")
    click.echo(f"Installed {found.entitlement_id} of {found.customer}.")
    print_licence(found)


@entitlement.command("show")
@click.pass_obj
def show(invocation: Invocation) -> None:
    """Show the entitlement, its countdown, and where the site goes beyond it."""
    with AdminClient(invocation.home) as client:
        found = client.get("/v1/entitlement", EntitlementStatus)
    if invocation.json:
        print_json(found)
    else:
        print_licence(found)
