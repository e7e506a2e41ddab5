"""`cic certificate`: every certificate of the site."""

from typing import Final

import click

from appliance.commands.client import AdminClient
from appliance.commands.output import Column, print_json, print_rows
from appliance.wire.certificates import SiteCertificate
from appliance.wire.command import Invocation

_COLUMNS: Final[tuple[Column[SiteCertificate], ...]] = (
    Column("KIND", lambda row: row.kind),
    Column("NAME", lambda row: row.name),
    Column("STATE", lambda row: row.state),
    Column("EXPIRES", lambda row: row.expires_at),
    Column("DAYS", lambda row: row.days_left, right=True),
    Column("SERIAL", lambda row: row.serial),
    Column("SHA-256", lambda row: row.fingerprint),
    Column("USED FOR", lambda row: row.used_for),
)


@click.group()
def certificate() -> None:
    """The certificates of the site: its CA, its own, its nodes'."""


@certificate.command("list")
@click.option("--all", "everything", is_flag=True, help="Also those that newer ones replaced.")
@click.pass_obj
def list_(invocation: Invocation, *, everything: bool) -> None:
    """List every certificate, what it is for and when it ends.

    They renew themselves; a node's is denied with `cic node revoke`.
    """
    with AdminClient(invocation.home) as client:
        found = client.get("/v1/certificates", list[SiteCertificate])
    rows = [row for row in found if everything or row.state != "replaced"]
    if invocation.json:
        print_json(rows)
    else:
        print_rows(rows, _COLUMNS, "No certificates yet.")
