"""`cic status`."""

from typing import Final

import click

from appliance.commands.client import AdminClient
from appliance.commands.deployments import DEPLOYMENT
from appliance.commands.nodes import NODE
from appliance.commands.output import fields_of, print_fields, print_json, print_rows
from appliance.commands.standing import print_licence, print_standing
from appliance.wire.admin import SiteStatus
from appliance.wire.command import Invocation

_BELOW: Final = ("sealing", "sync", "entitlement", "deployments", "nodes")


@click.command()
@click.pass_obj
def status(invocation: Invocation) -> None:
    """Show the site: its endpoint, manifests, control plane, entitlement, deployments, nodes."""
    with AdminClient(invocation.home) as client:
        site = client.get("/v1/status", SiteStatus)
    if invocation.json:
        print_json(site)
        return
    unnamed = [name for name in ("product", "support") if not getattr(site, name)]
    print_fields(fields_of(site, omit=(*_BELOW, *unnamed)))
    click.echo("\nMANIFESTS")
    print_fields(fields_of(site.sealing))
    click.echo("\nCONTROL PLANE")
    print_standing(site.sync)
    click.echo("\nENTITLEMENT")
    print_licence(site.entitlement)
    click.echo()
    print_rows(site.deployments, DEPLOYMENT.columns, "No deployments yet.")
    click.echo()
    print_rows(site.nodes, NODE.columns, "No nodes yet.")
