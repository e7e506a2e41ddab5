"""`cic alert` and `cic events`."""

from typing import Final

import click
import msgspec

from appliance.commands.client import AdminClient, object_path
from appliance.commands.output import Column, print_fields, print_json, print_rows
from appliance.wire.admin import SEQ_MAX
from appliance.wire.command import Invocation
from appliance.wire.stream import Alert, Event

_COLUMNS: Final[list[Column[Alert]]] = [
    Column("SEVERITY", lambda row: row.severity),
    Column("SINCE", lambda row: row.since),
    Column("ALERT", lambda row: row.text),
    Column("NEXT", lambda row: row.next_step),
    Column("SEEN TO BY", lambda row: row.acknowledged_by),
    Column("ID", lambda row: row.id),
]
_SILENCE_S: Final = 365 * 86_400.0  # nothing may happen for long


@click.group()
def alert() -> None:
    """What wants an administrator now. An alert ends by itself when its cause does."""


@alert.command("list")
@click.pass_obj
def list_alerts(invocation: Invocation) -> None:
    """List alerts, the worst first."""
    with AdminClient(invocation.home) as client:
        rows = client.get("/v1/alerts", list[Alert])
    if invocation.json:
        print_json(rows)
    else:
        print_rows(rows, _COLUMNS, "Nothing wants attention.")


@alert.command("acknowledge")
@click.argument("ref")
@click.pass_obj
def acknowledge(invocation: Invocation, ref: str) -> None:
    """Say that somebody looks after the alert REF, an id. It stays until its cause is gone."""
    with AdminClient(invocation.home) as client:
        row = client.send("POST", object_path("alerts", ref, "acknowledge"), Alert)
    if invocation.json:
        print_json(row)
        return
    print_fields(
        (("alert", row.text), ("seen to by", row.acknowledged_by), ("next", row.next_step))
    )


@click.command()
@click.option("--follow", is_flag=True, help="Go on with those to come, until Ctrl-C.")
@click.option(
    "--since", type=click.IntRange(0, SEQ_MAX), default=0, help="Only with a higher number."
)
@click.pass_obj
def events(invocation: Invocation, since: int, *, follow: bool) -> None:
    """What happened on the site: states that changed, faults, alerts, seals, changes by people."""
    query = {"since": since, "follow": "true" if follow else None}
    timeout_s = _SILENCE_S if follow else 30.0
    with AdminClient(invocation.home, timeout_s=timeout_s) as client:
        for line in client.lines("/v1/events", query):
            if not line:
                continue
            event = msgspec.json.decode(line, type=Event)
            if invocation.json:
                click.echo(line)
            else:
                click.echo(f"{event.at}  {event.severity:<7}  {event.kind:<20}  {event.text}")
