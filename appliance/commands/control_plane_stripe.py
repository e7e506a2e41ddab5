"""`cic control-plane stripe …`: how billing through Stripe stands, and what a person decides."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TypeVar

import click

from appliance.commands.control_plane_context import ControlInvocation
from appliance.commands.output import Column, print_fields, print_json, print_rows
from appliance.controlplane.billing.customers import find
from appliance.controlplane.database import Database
from appliance.controlplane.payments import quarantine as decisions
from appliance.controlplane.payments.provisioning import customer_card, link_customer
from appliance.controlplane.payments.quarantine import Held
from appliance.controlplane.payments.stripe_billing import StripeBilling, stripe_billing
from appliance.controlplane.payments.stripe_errors import StripeNotConfigured
from appliance.controlplane.payments.stripe_status import StripeStatus, WaitingLane, stripe_status
from appliance.controlplane.payments.webhooks import WANTED
from appliance.domain.clock import SystemClock, iso
from appliance.wire.command import ExitCode

T = TypeVar("T")


@click.group("stripe")
def stripe() -> None:
    """Billing through Stripe: what is delivered, what waits, what a person has to decide."""


@stripe.command()
@click.pass_obj
def status(invocation: ControlInvocation) -> None:
    """Show how far the outbox is, and what waits for what."""
    configured = bool(invocation.settings().stripe.api_key)
    with invocation.database() as database:
        found = database.read(lambda connection: stripe_status(connection, configured=configured))
    if invocation.json:
        print_json({**asdict(found), "webhook_events": list(WANTED)})
        return
    _print_status(found)


@stripe.command()
@click.pass_obj
def provision(invocation: ControlInvocation) -> None:
    """Make the meters, prices, customers and subscriptions that waiting usage needs."""

    async def run(billing: StripeBilling) -> int:
        return await billing.provision()

    count = _with_billing(invocation, run)
    if invocation.json:
        print_json({"routes": count})
    else:
        click.echo(f"{count} customers and meters are ready.")


@stripe.command()
@click.option("--turns", type=click.IntRange(1), default=100, show_default=True, help="At most.")
@click.pass_obj
def deliver(invocation: ControlInvocation, turns: int) -> None:
    """Deliver what waits now, instead of leaving it to `serve`; 1 if something could not be."""

    async def run(billing: StripeBilling) -> dict[str, int]:
        return await billing.deliver(turns)

    done = _with_billing(invocation, run)
    if invocation.json:
        print_json(done)
    else:
        print_fields(done.items())
    if done["failures"]:
        click.get_current_context().exit(ExitCode.FAILED)


@stripe.command()
@click.argument("customer")
@click.argument("stripe_customer", metavar="CUS_ID")
@click.pass_obj
def link(invocation: ControlInvocation, customer: str, stripe_customer: str) -> None:
    """Bill a customer as one that Stripe has already, before anything was billed."""
    now_ns = SystemClock().wall_ns()
    with invocation.database() as database:
        known = database.read(lambda connection: find(connection, customer))
        database.transact(
            lambda connection: link_customer(connection, known.customer_id, stripe_customer, now_ns)
        )
    if invocation.json:
        print_json({"customer_id": known.customer_id, "stripe_customer": stripe_customer})
    else:
        click.echo(f"{known.name} is billed as {stripe_customer}.")


@stripe.group("quarantine")
def quarantine() -> None:
    """Rows that Stripe refused, or of which it cannot be told whether it has them."""


@quarantine.command("list")
@click.pass_obj
def list_(invocation: ControlInvocation) -> None:
    """Show what waits for a decision, with the idempotency keys it was sent with."""
    with invocation.database() as database:
        rows = database.read(decisions.held)
    if invocation.json:
        print_json([asdict(row) for row in rows])
        return
    columns: list[Column[Held]] = [
        Column("ROW", lambda row: row.row_id),
        Column("STATE", lambda row: row.state),
        Column("CUSTOMER", lambda row: row.customer_id),
        Column("METER", lambda row: row.meter),
        Column("HOUR", lambda row: iso(row.hour_s * 1_000_000_000)),
        Column("TOKENS", lambda row: row.quantity, right=True),
        Column("WHY", lambda row: row.note),
    ]
    print_rows(rows, columns, "Nothing waits for a decision.")


@quarantine.command()
@click.argument("rows", nargs=-1, required=True)
@click.pass_obj
def send(invocation: ControlInvocation, rows: tuple[str, ...]) -> None:
    """Send them again: Stripe does not have them."""
    _decide(invocation, decisions.send, rows, _who())


@quarantine.command()
@click.argument("rows", nargs=-1, required=True)
@click.pass_obj
def accept(invocation: ControlInvocation, rows: tuple[str, ...]) -> None:
    """Take them as delivered: Stripe has them."""
    _decide(invocation, decisions.accept, rows, _who(), SystemClock().wall_ns())


@quarantine.command()
@click.argument("rows", nargs=-1, required=True)
@click.pass_obj
def cancel(invocation: ControlInvocation, rows: tuple[str, ...]) -> None:
    """Do not bill them."""
    _decide(invocation, decisions.cancel, rows, _who(), SystemClock().wall_ns())


def _decide(invocation: ControlInvocation, decision: Callable[..., int], *given: object) -> None:
    """Carry a decision out in one transaction; it takes a connection and what is given."""
    with invocation.database() as database:
        count = database.transact(lambda connection: decision(connection, *given))
    if invocation.json:
        print_json({"rows": count})
    else:
        click.echo(f"{count} rows decided.")


def _who() -> str:
    """The account on this host, for the row's note."""
    return f"uid {os.getuid()}"


def _with_billing(invocation: ControlInvocation, run: Callable[[StripeBilling], Awaitable[T]]) -> T:
    with invocation.database() as database:
        return asyncio.run(_run(invocation, database, run))


async def _run(
    invocation: ControlInvocation,
    database: Database,
    run: Callable[[StripeBilling], Awaitable[T]],
) -> T:
    billing = stripe_billing(
        database, invocation.settings(), SystemClock(), os.urandom, customer_card
    )
    if billing is None:
        raise StripeNotConfigured(
            "There is no Stripe key; billing waits.",
            next_step="Set [stripe] api_key in the control plane's settings.",
        )
    try:
        return await run(billing)
    finally:
        await billing.close()


def _print_status(found: StripeStatus) -> None:
    print_fields(
        [
            ("configured", found.configured),
            *((f"rows {one.state}", one.rows) for one in found.states),
            ("oldest waiting", iso(found.oldest_waiting_ns) if found.oldest_waiting_ns else None),
            *((f"{kind}s in Stripe", count) for kind, count in found.objects.items()),
            ("late items to make", found.late_items_open),
            ("late items refused", found.late_items_refused),
            ("events to handle", found.events_open),
        ]
    )
    columns: list[Column[WaitingLane]] = [
        Column("CUSTOMER", lambda lane: lane.customer_id),
        Column("METER", lambda lane: lane.meter),
        Column("FAILURES", lambda lane: lane.failures, right=True),
        Column("NEXT TRY", lambda lane: iso(lane.next_try_ns)),
        Column("WHY", lambda lane: lane.note),
    ]
    print_rows(found.lanes, columns, "No meter waits.")
