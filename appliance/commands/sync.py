"""`cic sync`: how the site stands with its control plane, and what is done about it."""

from pathlib import Path
from typing import Final

import click

from appliance.commands.client import AdminClient
from appliance.commands.context import absolute, cic_line
from appliance.commands.deployments import secret_from
from appliance.commands.files import write_new
from appliance.commands.output import print_json
from appliance.commands.standing import print_standing
from appliance.wire.command import ExitCode, Invocation
from appliance.wire.sync import Enrol, RequestMake, SignedRequest, SyncReport, SyncStatus

# An exchange may send a year of manifests, bundle by bundle.
_TIMEOUT_S: Final = 3_600.0


@click.group()
def sync() -> None:
    """Manifests to the vendor's control plane, and what it signs back."""


@sync.command("now")
@click.pass_context
def now(ctx: click.Context) -> None:
    """Exchange with the control plane now. Succeeds when everything that came fits this site."""
    invocation: Invocation = ctx.obj
    with AdminClient(invocation.home, timeout_s=_TIMEOUT_S) as client:
        report = client.send("POST", "/v1/sync/now", SyncReport)
    if invocation.json:
        print_json(report)
    else:
        for one in report.documents:
            told = f" {one.message} {one.next_step}".rstrip()
            click.echo(f"{one.outcome}: {one.kind} {one.document_id}{told}")
        click.echo(f"Sent {report.sent_manifests:,} manifests.")
        print_standing(report.status)
    if not report.ok:
        ctx.exit(ExitCode.FAILED)


@sync.command("status")
@click.pass_obj
def status(invocation: Invocation) -> None:
    """Show how the site stands with its control plane, and what lags behind."""
    with AdminClient(invocation.home) as client:
        found = client.get("/v1/sync", SyncStatus)
    if invocation.json:
        print_json(found)
    else:
        print_standing(found)


@sync.command("enrol")
@click.argument("url")
@click.argument("code")
@click.pass_obj
def enrol(invocation: Invocation, url: str, code: str) -> None:
    """Make the site known to the control plane at URL with the one-time CODE of the vendor.

    CODE `-` is read from standard input, which no list of processes shows. The secret in the code
    is sent only after the control plane showed the key that the code names.
    """
    with AdminClient(invocation.home, timeout_s=_TIMEOUT_S) as client:
        body = Enrol(url=url, code=secret_from(code) or "")
        found = client.send("POST", "/v1/sync/enrol", SyncStatus, body)
    if invocation.json:
        print_json(found)
        return
    click.echo(f"Enrolled as {found.appliance_id} with {found.control_plane_url}.")
    click.echo(f"The control plane's key is {found.control_plane_key_id}.")


@sync.command("request")
@click.option("--out", required=True, metavar="FILE", help="Where the signed request is written.")
@click.option(
    "--new-key",
    is_flag=True,
    help="For a new epoch, after a restore or a revocation: with a key made for it.",
)
@click.pass_obj
def request(invocation: Invocation, out: str, *, new_key: bool) -> None:
    """Write the site's signed introduction into FILE, to be carried to the vendor by hand."""
    with AdminClient(invocation.home) as client:
        made = client.send("POST", "/v1/sync/request", SignedRequest, RequestMake(new_key=new_key))
    path = Path(absolute(out))
    write_new(path, made.envelope.encode() + b"\n")
    if invocation.json:
        print_json({"file": str(path), "appliance_id": made.appliance_id, "key_id": made.key_id})
        return
    click.echo(f"Wrote {path}: {made.appliance_id}, key {made.key_id}.")
    click.echo(
        "Give it to the vendor. The answer comes back as a file:"
        f" `{cic_line(invocation.home, 'bundle import FILE')}`."
    )
