"""`cic node token`, `cic node certificates` and `cic node revoke`."""

from typing import Final

import click

from appliance.commands.client import AdminClient, object_path
from appliance.commands.moments import Span
from appliance.commands.noun import confirm
from appliance.commands.output import Column, fields_of, print_fields, print_json, print_rows
from appliance.wire.command import Invocation
from appliance.wire.node_tokens import (
    NodeCertificate,
    NodeRevoked,
    NodeToken,
    NodeTokenCreate,
    NodeTokenCreated,
)

_TOKENS: Final = (
    Column[NodeToken]("ID", lambda row: row.id),
    Column[NodeToken]("NODE", lambda row: row.node),
    Column[NodeToken]("STATE", lambda row: row.state),
    Column[NodeToken]("EXPIRES", lambda row: row.expires_at),
    Column[NodeToken]("USED", lambda row: row.used_at),
    Column[NodeToken]("USED BY", lambda row: row.used_by),
)
_CERTIFICATES: Final = (
    Column[NodeCertificate]("NODE", lambda row: row.node),
    Column[NodeCertificate]("STATE", lambda row: row.state),
    Column[NodeCertificate]("ISSUED", lambda row: row.issued_at),
    Column[NodeCertificate]("EXPIRES", lambda row: row.expires_at),
    Column[NodeCertificate]("SERIAL", lambda row: row.serial),
)


@click.group()
def token() -> None:
    """Tokens with which machines become nodes. Each is good once."""


@token.command("create")
@click.option("--ttl", type=Span(), default="1h", show_default=True, help="How long it is good.")
@click.option("--node", metavar="NAME", help="Only for the node of this name.")
@click.option(
    "--address",
    metavar="HOST[:PORT]",
    help="Under which nodes reach this host. Default: nodes.advertise, or this host's own.",
)
@click.pass_obj
def create(invocation: Invocation, ttl: int, node: str | None, address: str | None) -> None:
    """Make a token, and print the command to type on the new node.

    The first token opens the node API. The token holds the SHA-256 of the site's CA: the node sends
    nothing secret to anybody else.
    """
    body = NodeTokenCreate(ttl_s=ttl, node=node, address=address)
    with AdminClient(invocation.home) as client:
        made = client.send("POST", "/v1/node-tokens", NodeTokenCreated, body)
    if invocation.json:
        print_json(made)
        return
    click.echo("On the new node, type (the token is good once, and is not shown again):\n")
    click.echo(f"  {made.command}\n")
    click.echo("Then start its agent there: cic agent\n")
    print_fields(
        (
            ("token id", made.id),
            ("node", made.node or "any new one"),
            ("expires", made.expires_at),
            ("server", made.server),
            ("CA SHA-256", made.ca_sha256),
        )
    )
    if made.listener.opened:
        click.echo(
            f"\nThis opened the node API of this host at {made.listener.address}, and it stays"
            " open: set nodes.listen for another address or port.",
            err=True,
        )


@token.command("list")
@click.pass_obj
def list_(invocation: Invocation) -> None:
    """List tokens, used and expired ones too. Their secrets are not kept."""
    with AdminClient(invocation.home) as client:
        rows = client.get("/v1/node-tokens", list[NodeToken])
    if invocation.json:
        print_json(rows)
    else:
        print_rows(rows, _TOKENS, "No tokens yet.")


@token.command("revoke")
@click.argument("ref", metavar="ID")
@click.pass_obj
def revoke(invocation: Invocation, ref: str) -> None:
    """Let nobody join with the token ID any more."""
    with AdminClient(invocation.home) as client:
        row = client.send("POST", object_path("node-tokens", ref, "revoke"), NodeToken)
    if invocation.json:
        print_json(row)
    else:
        print_fields(fields_of(row))


@click.command("certificates")
@click.argument("ref", metavar="[NODE]", required=False)
@click.pass_obj
def certificates(invocation: Invocation, ref: str | None) -> None:
    """List the certificates of NODE, or of all nodes."""
    with AdminClient(invocation.home) as client:
        rows = client.get("/v1/node-certificates", list[NodeCertificate], {"node": ref})
    if invocation.json:
        print_json(rows)
    else:
        print_rows(rows, _CERTIFICATES, "No certificates yet.")


@click.command("revoke")
@click.argument("ref", metavar="NODE")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def revoke_node(invocation: Invocation, ref: str, *, yes: bool) -> None:
    """Deny every certificate of NODE, at once. It comes back with a new token alone."""
    confirm(invocation, f"Deny every certificate of the node {ref}?", yes=yes)
    with AdminClient(invocation.home) as client:
        done = client.send("POST", object_path("nodes", ref, "revoke"), NodeRevoked)
    if invocation.json:
        print_json(done)
    else:
        click.echo(f"Denied {done.certificates} certificates of the node {done.node}.")
