"""`cic burst`: GPU nodes lent from clouds for a while."""

from collections.abc import Callable
from typing import Any, Final, get_args

import click

from appliance.commands.client import AdminClient, object_path
from appliance.commands.moments import Span
from appliance.commands.output import Column, print_fields, print_json, print_rows
from appliance.wire.burst import (
    Burst,
    BurstMember,
    BurstOffer,
    BurstPlan,
    BurstPlanned,
    BurstUp,
    Spot,
)
from appliance.wire.command import Invocation

# SkyPilot is started for it, and may fetch its catalogue first.
_CLOUD_S: Final = 300.0

_OFFERS: Final = (
    Column[BurstOffer]("CLOUD", lambda row: row.cloud),
    Column[BurstOffer]("REGION", lambda row: row.region),
    Column[BurstOffer]("MACHINE", lambda row: row.instance_type),
    Column[BurstOffer]("GPUS", lambda row: f"{row.gpus} × {row.gpu}"),
    Column[BurstOffer]("KIND", lambda row: "spot" if row.spot else "on demand"),
    Column[BurstOffer]("USD/H", lambda row: row.price, right=True),
    Column[BurstOffer]("NOT TAKEN", lambda row: row.reason),
)
_BURSTS: Final = (
    Column[Burst]("NAME", lambda row: row.name),
    Column[Burst]("STATE", lambda row: row.state),
    Column[Burst]("NODES", lambda row: row.nodes, right=True),
    Column[Burst]("GPUS", lambda row: f"{row.gpus} × {row.gpu}"),
    Column[Burst]("SPENT USD", lambda row: row.spent, right=True),
    Column[Burst]("BUDGET USD", lambda row: row.budget, right=True),
    Column[Burst]("REASON", lambda row: row.reason),
    Column[Burst]("ID", lambda row: row.id),
)
_MEMBERS: Final = (
    Column[BurstMember]("NODE", lambda row: row.node),
    Column[BurstMember]("STATE", lambda row: row.state),
    Column[BurstMember]("CLOUD", lambda row: row.offer.cloud if row.offer else None),
    Column[BurstMember]("REGION", lambda row: row.offer.region if row.offer else None),
    Column[BurstMember]("USD/H", lambda row: row.price, right=True),
    Column[BurstMember]("SINCE", lambda row: row.since),
    Column[BurstMember]("REASON", lambda row: row.reason),
)


@click.group()
def burst() -> None:
    """GPU nodes lent from clouds, through SkyPilot. Needs a cloud account, and burst.provider."""


def _asked(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say what is wanted."""
    options = (
        click.option("--gpu", required=True, help="As SkyPilot names it: H100, A100-80GB, L4."),
        click.option("--gpus", type=click.IntRange(1, 64), default=1, show_default=True,
                     help="Of one node."),
        click.option("--nodes", type=click.IntRange(1, 64), default=1, show_default=True),
        click.option("--budget", required=True, metavar="USD",
                     help="The burst ends before it has cost more."),
        click.option("--spot", type=click.Choice(get_args(Spot)), default="prefer",
                     show_default=True, help="prefer: on demand where there is no spot machine."),
        click.option("--cloud", "clouds", multiple=True,
                     help="Only there. Default: wherever SkyPilot has an account."),
        click.option("--region", "regions", multiple=True, help="Only there."),
        click.option("--price-max", metavar="USD", help="Of one node in an hour, at most."),
        click.option("--idle", "idle_s", type=Span(), metavar="SPAN",
                     help="Give it back after so long without a request."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@burst.command("plan")
@_asked
@click.pass_obj
def plan(invocation: Invocation, /, **asked: Any) -> None:
    """Show what a burst would take and cost. Nothing is launched."""
    with AdminClient(invocation.home, timeout_s=_CLOUD_S) as client:
        planned = client.send("POST", "/v1/bursts/plan", BurstPlanned, BurstPlan(**asked))
    if invocation.json:
        print_json(planned)
        return
    print_rows(planned.offers, _OFFERS, "No cloud has such a machine.")
    chosen = planned.chosen
    print_fields(
        (
            ("chosen", None if chosen is None else f"{chosen.cloud} {chosen.region}"),
            ("problem", planned.problem),
            ("budget_lasts_s", planned.lasts_s),
        )
    )


@burst.command("up")
@click.argument("name")
@_asked
@click.pass_obj
def up(invocation: Invocation, /, name: str, **asked: Any) -> None:
    """Lend machines from a cloud as NAME. They join by themselves, and end with the budget."""
    body = BurstUp(name=name, plan=BurstPlan(**asked))
    with AdminClient(invocation.home, timeout_s=_CLOUD_S) as client:
        row = client.send("POST", "/v1/bursts", Burst, body)
    _show(invocation, row)


@burst.command("down")
@click.argument("ref")
@click.pass_obj
def down(invocation: Invocation, ref: str) -> None:
    """Give the machines of the burst REF back: they are emptied, then taken down."""
    with AdminClient(invocation.home) as client:
        row = client.send("POST", object_path("bursts", ref, "down"), Burst, None)
    _show(invocation, row)


@burst.command("status")
@click.argument("ref", required=False)
@click.pass_obj
def status(invocation: Invocation, ref: str | None) -> None:
    """Show the bursts, or the burst REF, with what they cost."""
    with AdminClient(invocation.home) as client:
        if ref is not None:
            _show(invocation, client.get(object_path("bursts", ref), Burst))
            return
        rows = client.get("/v1/bursts", list[Burst])
    if invocation.json:
        print_json(rows)
    else:
        print_rows(rows, _BURSTS, "No bursts.")


def _show(invocation: Invocation, row: Burst) -> None:
    if invocation.json:
        print_json(row)
        return
    print_fields(
        (
            ("id", row.id),
            ("name", row.name),
            ("state", row.state),
            ("reason", row.reason),
            ("spent_usd", row.spent),
            ("budget_usd", row.budget),
            ("created_at", row.created_at),
            ("ended_at", row.ended_at),
        )
    )
    print_rows(row.members, _MEMBERS, "No machine was asked for yet.")
