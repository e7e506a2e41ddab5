"""`cic reservation`: tokens a second that are kept for a tenant."""

from typing import Final

import click

from appliance.commands.client import AdminClient, object_path
from appliance.commands.moments import Moment
from appliance.commands.output import Column, print_fields, print_json, print_rows
from appliance.wire.command import Invocation
from appliance.wire.reservations import (
    AttainedMinute,
    Capacity,
    Reservation,
    ReservationCreate,
    ReservationUpdate,
)


def _whose(row: Reservation) -> str:
    return row.tenant if row.environment is None else f"{row.tenant}/{row.environment}"


def _percent(minute: AttainedMinute | None) -> str | None:
    if minute is None or minute.attained_percent is None:
        return None
    return f"{minute.attained_percent:.1f} %"


_RESERVATIONS: Final = (
    Column[Reservation]("TENANT", _whose),
    Column[Reservation]("MODEL", lambda row: row.model),
    Column[Reservation]("TOKENS/S", lambda row: row.tokens_per_s, right=True),
    Column[Reservation]("STATE", lambda row: "slipping" if row.slipping else row.state),
    Column[Reservation]("ATTAINED", lambda row: _percent(row.attained), right=True),
    Column[Reservation]("WAITING", lambda row: row.waiting, right=True),
    Column[Reservation]("PRIORITY", lambda row: row.priority, right=True),
    Column[Reservation]("FROM", lambda row: row.starts_at),
    Column[Reservation]("UNTIL", lambda row: row.ends_at),
    Column[Reservation]("ID", lambda row: row.id),
)
_CAPACITY: Final = (
    Column[Capacity]("MODEL", lambda row: row.model),
    Column[Capacity]("MEASURED", lambda row: row.measured_tokens_per_s, right=True),
    Column[Capacity]("HEADROOM", lambda row: f"{row.headroom_percent} %", right=True),
    Column[Capacity]("PROMISABLE", lambda row: row.promisable_tokens_per_s, right=True),
    Column[Capacity]("PROMISED", lambda row: row.promised_tokens_per_s, right=True),
    Column[Capacity]("FREE", lambda row: row.free_tokens_per_s, right=True),
)
_MINUTES: Final = (
    Column[AttainedMinute]("MINUTE", lambda row: row.at),
    Column[AttainedMinute]("PROMISED", lambda row: row.promised, right=True),
    Column[AttainedMinute]("OFFERED", lambda row: row.offered, right=True),
    Column[AttainedMinute]("DELIVERED", lambda row: row.delivered, right=True),
    Column[AttainedMinute]("ATTAINED", _percent, right=True),
)
_RATE: Final = click.IntRange(1, 10**9)
_PRIORITY: Final = click.IntRange(0, 100)
_NO_END: Final = "never"


@click.group()
def reservation() -> None:
    """Capacity that is kept for a tenant: so many tokens a second of a model, whatever others ask.

    What is not used is everybody's. No more is promised than was measured, less a headroom.
    """


@reservation.command("create")
@click.argument("tenant")
@click.argument("model")
@click.argument("tokens_per_s", type=_RATE)
@click.option("--environment", "--env", metavar="NAME", help="Only of this one. Default: all.")
@click.option("--from", "starts_at", type=Moment(1), help="Default: now.")
@click.option("--until", "ends_at", type=Moment(1), help="Default: no end.")
@click.option(
    "--priority", type=_PRIORITY, default=0, show_default=True, help="The higher goes first."
)
@click.pass_obj
def create(
    invocation: Invocation,
    tenant: str,
    model: str,
    tokens_per_s: int,
    environment: str | None,
    starts_at: str | None,
    ends_at: str | None,
    priority: int,
) -> None:
    """Keep TOKENS_PER_S of the deployment MODEL for TENANT."""
    body = ReservationCreate(
        tenant=tenant,
        model=model,
        tokens_per_s=tokens_per_s,
        environment=environment,
        starts_at=starts_at,
        ends_at=ends_at,
        priority=priority,
    )
    with AdminClient(invocation.home) as client:
        row = client.send("POST", "/v1/reservations", Reservation, body)
    _show(invocation, row)


@reservation.command("list")
@click.option("--ended", is_flag=True, help="Those that are over.")
@click.pass_obj
def list_(invocation: Invocation, *, ended: bool) -> None:
    """List what is reserved, with how it was kept in the last minute."""
    with AdminClient(invocation.home) as client:
        query = {"ended": "true"} if ended else None
        rows = client.get("/v1/reservations", list[Reservation], query)
    if invocation.json:
        print_json(rows)
    else:
        print_rows(rows, _RESERVATIONS, "Nothing is reserved.")


@reservation.command("show")
@click.argument("ref")
@click.pass_obj
def show(invocation: Invocation, ref: str) -> None:
    """Show the reservation REF (an id), and its last hour minute by minute."""
    with AdminClient(invocation.home) as client:
        row = client.get(object_path("reservations", ref), Reservation)
    _show(invocation, row)
    if not invocation.json:
        print_rows(row.minutes, _MINUTES, "No whole minute has passed since the start.")


@reservation.command("update")
@click.argument("ref")
@click.option("--tokens-per-s", type=_RATE)
@click.option("--priority", type=_PRIORITY)
@click.option("--until", "ends_at", metavar="TIME", help="Or `never`, to take the end away.")
@click.pass_obj
def update(
    invocation: Invocation,
    ref: str,
    tokens_per_s: int | None,
    priority: int | None,
    ends_at: str | None,
) -> None:
    """Change the reservation REF. More than before is admitted as a new one is."""
    if ends_at is not None and ends_at != _NO_END:
        ends_at = Moment(1).convert(ends_at, None, click.get_current_context())
    body = ReservationUpdate(
        tokens_per_s=tokens_per_s,
        priority=priority,
        ends_at="" if ends_at == _NO_END else ends_at,
    )
    with AdminClient(invocation.home) as client:
        row = client.send("PATCH", object_path("reservations", ref), Reservation, body)
    _show(invocation, row)


@reservation.command("end")
@click.argument("ref")
@click.pass_obj
def end(invocation: Invocation, ref: str) -> None:
    """End the reservation REF now. Its requests go on, and wait as everybody's."""
    with AdminClient(invocation.home) as client:
        row = client.send("POST", object_path("reservations", ref, "end"), Reservation, None)
    _show(invocation, row)


@reservation.command("capacity")
@click.pass_obj
def capacity(invocation: Invocation) -> None:
    """Show what can be reserved: tokens a second as measured, less the headroom, less promises."""
    with AdminClient(invocation.home) as client:
        rows = client.get("/v1/capacity", list[Capacity])
    if invocation.json:
        print_json(rows)
    else:
        print_rows(rows, _CAPACITY, "Nothing is deployed.")


def _show(invocation: Invocation, row: Reservation) -> None:
    if invocation.json:
        print_json(row)
        return
    print_fields(
        (
            ("id", row.id),
            ("tenant", row.tenant),
            ("environment", row.environment or "all"),
            ("model", row.model),
            ("tokens_per_s", row.tokens_per_s),
            ("priority", row.priority),
            ("state", "slipping" if row.slipping else row.state),
            ("from", row.starts_at),
            ("until", row.ends_at or "no end"),
            ("attained", _percent(row.attained)),
            ("waiting", row.waiting),
        )
    )
