"""`cic control-plane customers|tenants|prices|credits|capacity|adjust`: who pays what."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import click

from appliance.commands.control_plane_context import ControlInvocation, actor
from appliance.commands.moments import Moment
from appliance.commands.output import Column, print_fields, print_json, print_rows
from appliance.controlplane import sites
from appliance.controlplane.billing import capacity as capacities
from appliance.controlplane.billing import price_book
from appliance.controlplane.billing import tenants as mappings
from appliance.controlplane.billing.adjustments import Correction
from appliance.controlplane.billing.billing_errors import BadPriceBook
from appliance.controlplane.billing.capacity import Capacity
from appliance.controlplane.billing.credits import Credit, list_credits
from appliance.controlplane.billing.customers import Customer, list_customers
from appliance.controlplane.billing.desk import Desk
from appliance.controlplane.billing.pricing import HOUR_S, Kind
from appliance.controlplane.billing.tenants import TenantRow
from appliance.domain.clock import SystemClock, iso
from appliance.manifests.documents import Price, RegionMultiplier

FILE_BYTES_MAX = 16 * 1024 * 1024


@contextmanager
def desk_of(invocation: ControlInvocation) -> Iterator[Desk]:
    """The desk of this control plane, with the account that typed the command as the actor."""
    with invocation.database() as database:
        yield Desk(
            database,
            SystemClock(),
            os.urandom,
            currency=invocation.settings().billing.currency,
            actor=actor(),
        )


def seconds_of(moment: str) -> int:
    """ISO 8601, as `Moment` gives it, to seconds since 1970."""
    return int(datetime.fromisoformat(moment).timestamp())


def hour_text(hour_s: int | None) -> str:
    return "" if hour_s is None else iso(hour_s * 1_000_000_000)


@click.group(invoke_without_command=True)
@click.pass_context
def customers(ctx: click.Context) -> None:
    """Customers: who pays."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_all_customers)


@customers.command("list")
@click.pass_obj
def list_all_customers(invocation: ControlInvocation) -> None:
    """List the customers by name."""
    with desk_of(invocation) as desk:
        found = desk.database.read(list_customers)
    if invocation.json:
        print_json([asdict(one) for one in found])
        return
    columns: list[Column[Customer]] = [
        Column("CUSTOMER", lambda one: one.customer_id),
        Column("NAME", lambda one: one.name),
        Column("EMAIL", lambda one: one.email),
        Column("SINCE", lambda one: iso(one.created_at_ns)),
    ]
    print_rows(found, columns, "No customers.")


@customers.command("add")
@click.argument("name")
@click.option("--email", default="", help="Where Stripe sends invoices.")
@click.pass_obj
def add_customer(invocation: ControlInvocation, name: str, email: str) -> None:
    """Add the customer NAME."""
    with desk_of(invocation) as desk:
        _show(invocation, asdict(desk.add_customer(name, email)))


@click.group(invoke_without_command=True)
@click.pass_context
def tenants(ctx: click.Context) -> None:
    """Which customer pays for which tenant of a site, and on which plan."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_tenants)


@tenants.command("list")
@click.option("--site", help="Only of this site, by name or id.")
@click.pass_obj
def list_tenants(invocation: ControlInvocation, site: str | None = None) -> None:
    """List every tenant that was reported or mapped."""
    with desk_of(invocation) as desk:
        found = desk.database.read(
            lambda connection: mappings.list_tenants(
                connection, None if site is None else sites.find(connection, site).appliance_id
            )
        )
    if invocation.json:
        print_json([{**asdict(one), "since": hour_text(one.since_s)} for one in found])
        return
    columns: list[Column[TenantRow]] = [
        Column("SITE", lambda one: one.appliance_id),
        Column("TENANT", lambda one: one.tenant_id),
        Column("NAME", lambda one: one.name),
        Column("CUSTOMER", lambda one: one.customer_id),
        Column("PLAN", lambda one: one.plan),
        Column("SINCE", lambda one: hour_text(one.since_s) if one.customer_id else ""),
    ]
    print_rows(found, columns, "No tenants.")


@tenants.command("map")
@click.argument("site")
@click.argument("tenant")
@click.argument("customer")
@click.option("--plan", required=True, help="A plan of the price book: free, business, …")
@click.option("--since", type=Moment(-1), help="From this hour on; always, when left out.")
@click.pass_obj
def map_tenant(
    invocation: ControlInvocation,
    site: str,
    tenant: str,
    customer: str,
    plan: str,
    since: str | None,
) -> None:
    """Let CUSTOMER pay for TENANT of SITE, and bill what was held for want of that.

    TENANT '*' stands for all tenants of the site that have no mapping of their own.
    """
    since_s = 0 if since is None else seconds_of(since) // HOUR_S * HOUR_S
    with desk_of(invocation) as desk:
        mapped = desk.map_tenant(site, tenant, customer, plan, since_s)
    _show(invocation, {**asdict(mapped), "since": hour_text(mapped.since_s)})


@click.group(invoke_without_command=True)
@click.pass_context
def prices(ctx: click.Context) -> None:
    """The price book with its history."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(show_prices)


@prices.command("show")
@click.pass_obj
def show_prices(invocation: ControlInvocation) -> None:
    """Show every price, multiplier and the monthly allowance."""
    with desk_of(invocation) as desk:
        book = desk.database.read(price_book.document)
        by = desk.database.read(price_book.installed_by)
    if book is None:
        raise BadPriceBook(
            "There is no price book.", next_step="Import one: `cic control-plane prices import`."
        )
    if invocation.json:
        print_json(book)
        return
    of_prices: list[Column[Price]] = [
        Column("MODEL", lambda one: one.model),
        Column("KIND", lambda one: one.kind),
        Column("PLAN", lambda one: one.plan),
        Column("MICROS/MILLION", lambda one: int(one.micros_per_million), right=True),
        Column("SINCE", lambda one: one.since),
    ]
    of_regions: list[Column[RegionMultiplier]] = [
        Column("REGION", lambda one: one.region),
        Column("MULTIPLIER BP", lambda one: one.multiplier_bp, right=True),
        Column("SINCE", lambda one: one.since),
    ]
    print_rows(book.prices, of_prices, "No prices.")
    click.echo()
    print_rows(book.regions, of_regions, "No regions.")
    click.echo()
    print_fields(
        [
            ("version", book.version),
            ("currency", book.currency),
            ("free tokens per month", int(book.free_tokens_per_month)),
            ("installed by", by),
        ]
    )


@prices.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_obj
def import_prices(invocation: ControlInvocation, file: Path) -> None:
    """Add the prices of FILE, TOML or JSON, and bill what was held for want of them.

    What is there already stays: a price changes by a new one with a later `since`.
    """
    try:
        with file.open("rb") as stream:
            raw = stream.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise BadPriceBook(
            f"Cannot read {file}: {error.strerror}.", next_step="Check the path."
        ) from error
    if len(raw) > FILE_BYTES_MAX:
        raise BadPriceBook(f"{file} is larger than a price book.", next_step="Check the path.")
    book = price_book.read_file(raw, toml=file.suffix.lower() != ".json")
    with desk_of(invocation) as desk:
        _show(invocation, asdict(desk.import_prices(book)))


@click.group(invoke_without_command=True)
@click.pass_context
def credits(ctx: click.Context) -> None:  # noqa: A001 (commands are found by their names)
    """Credits: money a customer need not pay."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_all_credits)


@credits.command("list")
@click.pass_obj
def list_all_credits(invocation: ControlInvocation) -> None:
    """List credits, and what is left of them."""
    with desk_of(invocation) as desk:
        found = desk.database.read(list_credits)
    if invocation.json:
        print_json([asdict(one) for one in found])
        return
    columns: list[Column[Credit]] = [
        Column("CREDIT", lambda one: one.credit_id),
        Column("CUSTOMER", lambda one: one.customer_id),
        Column("GRANTED MICROS", lambda one: one.granted_micros, right=True),
        Column("LEFT", lambda one: one.left_micros, right=True),
        Column("SINCE", lambda one: hour_text(one.since_s)),
        Column("UNTIL", lambda one: hour_text(one.until_s)),
        Column("REASON", lambda one: one.reason),
    ]
    print_rows(found, columns, "No credits.")


@credits.command("grant")
@click.argument("customer")
@click.argument("micros", type=click.IntRange(1))
@click.option("--reason", required=True, help="Why; it is kept, and Stripe shows it.")
@click.option("--since", type=Moment(-1), help="For usage from then on; from now when left out.")
@click.option("--until", type=Moment(1), help="For usage before then.")
@click.pass_obj
def grant_credit(
    invocation: ControlInvocation,
    customer: str,
    micros: int,
    reason: str,
    since: str | None,
    until: str | None,
) -> None:
    """Give CUSTOMER a credit of MICROS, millionths of the currency."""
    with desk_of(invocation) as desk:
        now_s = desk.now_ns // 1_000_000_000
        since_s = (now_s if since is None else seconds_of(since)) // HOUR_S * HOUR_S
        until_s = None if until is None else seconds_of(until)
        _show(invocation, asdict(desk.grant_credit(customer, micros, reason, since_s, until_s)))


@click.group(invoke_without_command=True)
@click.pass_context
def capacity(ctx: click.Context) -> None:
    """Capacity units: tokens per second at a flat monthly price."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_capacity)


@capacity.command("list")
@click.pass_obj
def list_capacity(invocation: ControlInvocation) -> None:
    """List subscriptions of capacity units."""
    with desk_of(invocation) as desk:
        found = desk.database.read(capacities.list_capacity)
    if invocation.json:
        print_json([asdict(one) for one in found])
        return
    columns: list[Column[Capacity]] = [
        Column("CAPACITY", lambda one: one.capacity_id),
        Column("CUSTOMER", lambda one: one.customer_id),
        Column("MODEL", lambda one: one.model),
        Column("UNITS", lambda one: one.units, right=True),
        Column("MICROS/UNIT/MONTH", lambda one: one.micros_per_unit_month, right=True),
        Column("OVERAGE", lambda one: one.overage),
        Column("SINCE", lambda one: hour_text(one.since_s)),
        Column("UNTIL", lambda one: hour_text(one.until_s)),
    ]
    print_rows(found, columns, "No capacity units.")


@capacity.command("add")
@click.argument("customer")
@click.argument("units", type=click.IntRange(1, capacities.UNITS_MAX))
@click.option("--model", default="*", show_default=True, help="Of this model; * is any.")
@click.option("--micros", type=click.IntRange(0), required=True, help="Per unit and month.")
@click.option("--overage", is_flag=True, help="Bill reserved usage beyond it as tokens.")
@click.option("--since", type=Moment(-1), help="From this hour on; the present one if left out.")
@click.pass_obj
def add_capacity(
    invocation: ControlInvocation,
    customer: str,
    units: int,
    model: str,
    micros: int,
    since: str | None,
    *,
    overage: bool,
) -> None:
    """Subscribe CUSTOMER to UNITS capacity units: tokens per second."""
    with desk_of(invocation) as desk:
        since_s = desk.now_ns // 1_000_000_000 if since is None else seconds_of(since)
        made = desk.add_capacity(customer, model, units, micros, since_s, overage=overage)
    _show(invocation, asdict(made))


@capacity.command("end")
@click.argument("capacity_id")
@click.option("--at", type=Moment(1), help="At the end of this hour; the present one if left out.")
@click.pass_obj
def end_capacity(invocation: ControlInvocation, capacity_id: str, at: str | None) -> None:
    """End the subscription CAPACITY_ID."""
    with desk_of(invocation) as desk:
        until_s = desk.now_ns // 1_000_000_000 if at is None else seconds_of(at)
        _show(invocation, asdict(desk.end_capacity(capacity_id, until_s)))


@click.command()
@click.argument("customer")
@click.argument("tokens", type=int)
@click.option("--kind", type=click.Choice([kind.value for kind in Kind]), required=True)
@click.option("--model", required=True)
@click.option("--region", required=True)
@click.option("--plan", required=True, help="Of the price book; its price counts.")
@click.option("--hour", type=Moment(-1), required=True, help="The UTC hour of the usage.")
@click.option("--reason", required=True, help="Why; it is kept.")
@click.pass_obj
def adjust(
    invocation: ControlInvocation,
    customer: str,
    tokens: int,
    kind: str,
    model: str,
    region: str,
    plan: str,
    hour: str,
    reason: str,
) -> None:
    """Correct what CUSTOMER is billed by TOKENS; fewer are given back as a credit (-- -5).

    A correction is a row of its own: nothing that is there is changed.
    """
    hour_s = seconds_of(hour) // HOUR_S * HOUR_S
    correction = Correction(customer, kind, model, region, plan, hour_s, tokens)
    with desk_of(invocation) as desk:
        _show(invocation, asdict(desk.adjust(correction, reason)))


def _show(invocation: ControlInvocation, made: dict[str, object]) -> None:
    if invocation.json:
        print_json(made)
        return
    flat: list[tuple[str, object]] = []
    for name, value in made.items():
        if isinstance(value, dict):
            flat += [(f"{name}.{inner}", of) for inner, of in value.items()]
        elif name.endswith("_s") and isinstance(value, int):
            flat.append((name.removesuffix("_s"), hour_text(value)))
        elif name.endswith("_ns") and isinstance(value, int):
            flat.append((name.removesuffix("_ns"), iso(value)))
        else:
            flat.append((name, value))
    print_fields(flat)
