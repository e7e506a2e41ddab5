"""`cic control-plane reconcile` and `holds`: is everything signed billed, and what waits."""

import asyncio
import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click

from appliance.commands.control_plane_billing import desk_of, hour_text, seconds_of
from appliance.commands.control_plane_context import ControlInvocation
from appliance.commands.moments import Moment
from appliance.commands.output import Column, print_json, print_rows
from appliance.controlplane import sites
from appliance.controlplane.billing import customers, focus, reconcile_table, tenants
from appliance.controlplane.billing.billing_errors import BadAmount
from appliance.controlplane.billing.capacity import accrue
from appliance.controlplane.billing.holds import HeldSum, Released, Selection
from appliance.controlplane.billing.pricing import HOUR_S, next_month_s
from appliance.controlplane.billing.reconcile import Question, Report, report
from appliance.controlplane.billing.reconciliation import ReportRow
from appliance.controlplane.database import Database
from appliance.controlplane.payments.provisioning import customer_card
from appliance.controlplane.payments.stripe_billing import stripe_billing
from appliance.domain.clock import SystemClock
from appliance.wire.command import ExitCode

LAST_S = 9_223_372_036  # as far as nanoseconds go


@click.command("reconcile")
@click.option("--customer", help="Only of this customer, by name or id.")
@click.option("--site", help="Only of this site, by name or id; without Stripe's figures.")
@click.option("--month", metavar="YYYY-MM", help="The hours of a UTC month.")
@click.option("--from", "since", type=Moment(-1), help="Hours from then on.")
@click.option("--to", "until", type=Moment(-1), help="Hours before then.")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), help="Also as CSV.")
@click.option("--focus", "focus_file", type=click.Path(path_type=Path), help="Also as FOCUS CSV.")
@click.option("--offline", is_flag=True, help="Do not ask Stripe: use what was last read.")
@click.pass_context
def reconcile(
    ctx: click.Context,
    customer: str | None,
    site: str | None,
    month: str | None,
    since: str | None,
    until: str | None,
    csv_file: Path | None,
    focus_file: Path | None,
    *,
    offline: bool,
) -> None:
    """Compare signed, ledger, outbox, Stripe and invoiced by customer, meter and hour.

    Exit code 6 when something is not explained.
    """
    invocation: ControlInvocation = ctx.obj
    from_s, until_s = _hours(month, since, until)
    with invocation.database() as database:
        question = database.read(
            lambda connection: Question(
                from_s,
                until_s,
                None if customer is None else customers.find(connection, customer).customer_id,
                None if site is None else sites.find(connection, site).appliance_id,
            )
        )
        if not offline and site is None:
            asyncio.run(_read_stripe(invocation, database, from_s, until_s))
        currency = invocation.settings().billing.currency
        now_ns = SystemClock().wall_ns()
        database.transact(lambda connection: accrue(connection, now_ns))
        found = database.read(
            lambda connection: report(connection, question, currency=currency, now_ns=now_ns)
        )
        if focus_file is not None:
            lines = database.read(
                lambda connection: focus.export(connection, question, currency, now_ns)
            )
            _write(focus_file, lines)
    if csv_file is not None:
        _write(csv_file, reconcile_table.csv_text(found))
    _print(invocation, found)
    if not found.sound:
        ctx.exit(ExitCode.DAMAGED)


@click.group(invoke_without_command=True)
@click.pass_context
def holds(ctx: click.Context) -> None:
    """Usage that is accepted and not billed, and the decisions about it."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_holds)


_SITE = click.option("--site", help="Only of this site, by name or id.")
_TENANT = click.option("--tenant", help="Only of this tenant, by id, or by name with --site.")
_CODE = click.option("--code", help="Only what is held for this, as CLOCK_FUTURE.")
_REASON = click.option("--reason", required=True, help="Why; it is kept.")


@holds.command("list")
@_SITE
@_TENANT
@_CODE
@click.pass_obj
def list_holds(
    invocation: ControlInvocation,
    site: str | None = None,
    tenant: str | None = None,
    code: str | None = None,
) -> None:
    """List what is held, by tenant and reason."""
    with desk_of(invocation) as desk:
        found = desk.list_holds(_selection(desk.database, site, tenant, code))
    if invocation.json:
        print_json([asdict(one) for one in found])
        return
    columns: list[Column[HeldSum]] = [
        Column("SITE", lambda one: one.appliance_id),
        Column("TENANT", lambda one: one.tenant_id),
        Column("NAME", lambda one: one.tenant),
        Column("CODE", lambda one: one.code),
        Column("MANIFESTS", lambda one: one.manifests, right=True),
        Column("FROM", lambda one: hour_text(one.from_hour_s)),
        Column("TO", lambda one: hour_text(one.until_hour_s)),
        Column("REQUESTS", lambda one: one.requests, right=True),
        Column("INPUT", lambda one: one.input_tokens, right=True),
        Column("CACHED", lambda one: one.cached_tokens, right=True),
        Column("OUTPUT", lambda one: one.output_tokens, right=True),
    ]
    print_rows(found, columns, "Nothing is held.")


@holds.command("release")
@_SITE
@_TENANT
@_CODE
@_REASON
@click.pass_obj
def release(
    invocation: ControlInvocation,
    site: str | None,
    tenant: str | None,
    code: str | None,
    reason: str,
) -> None:
    """Let what is held be billed. What has no customer, price or capacity stays held."""
    with desk_of(invocation) as desk:
        done = desk.release(_selection(desk.database, site, tenant, code), reason)
    _decided(invocation, done)


@holds.command("write-off")
@_SITE
@_TENANT
@_CODE
@_REASON
@click.pass_obj
def write_off(
    invocation: ControlInvocation,
    site: str | None,
    tenant: str | None,
    code: str | None,
    reason: str,
) -> None:
    """Decide that what is held is never billed."""
    with desk_of(invocation) as desk:
        done = desk.write_off(_selection(desk.database, site, tenant, code), reason)
    _decided(invocation, done)


def _selection(
    database: Database, site: str | None, tenant: str | None, code: str | None
) -> Selection:
    if site is None:
        return Selection(tenant_id=tenant, code=code)
    appliance_id = database.read(lambda connection: sites.find(connection, site).appliance_id)
    if tenant is not None:
        tenant = database.read(
            lambda connection: tenants.find(connection, appliance_id, tenant or "")
        )
    return Selection(appliance_id=appliance_id, tenant_id=tenant, code=code)


def _decided(invocation: ControlInvocation, done: Released) -> None:
    if invocation.json:
        print_json(asdict(done))
        return
    click.echo(
        f"{done.billed} rows billed, {done.written_off} written off, {done.still_held} still held."
    )


def _hours(month: str | None, since: str | None, until: str | None) -> tuple[int, int]:
    if month is None:
        from_s = 0 if since is None else seconds_of(since)
        until_s = LAST_S if until is None else seconds_of(until)
        return from_s // HOUR_S * HOUR_S, -(-until_s // HOUR_S) * HOUR_S
    if since is not None or until is not None:
        raise BadAmount("--month stands alone.", next_step="Leave out --from and --to.")
    try:
        begin = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)
    except ValueError as error:
        raise BadAmount(f"{month!r} is no month.", next_step="Write it as 2026-11.") from error
    from_s = int(begin.timestamp())
    return from_s, next_month_s(from_s)


async def _read_stripe(
    invocation: ControlInvocation, database: Database, from_s: int, until_s: int
) -> None:
    """Read Stripe's sums anew; without a key what was last read is used."""
    billing = stripe_billing(
        database, invocation.settings(), SystemClock(), os.urandom, customer_card
    )
    if billing is None:
        return
    try:
        await billing.facts.read(from_s, until_s)
    finally:
        await billing.close()


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise BadAmount(
            f"Cannot write {file}: {error.strerror}.", next_step="Choose another place."
        ) from error


def _print(invocation: ControlInvocation, found: Report) -> None:
    if invocation.json:
        print_json(reconcile_table.as_object(found))
        return
    columns: list[Column[ReportRow]] = [
        Column("CUSTOMER", lambda row: row.customer or "(not mapped)" if row.hour else ""),
        Column("METER", lambda row: row.meter),
        Column("HOUR", lambda row: row.hour),
        Column("SIGNED", lambda row: row.signed, right=True),
        Column("LEDGER", lambda row: row.ledger, right=True),
        Column("EXPLAINED", reconcile_table.explained, right=True),
        Column("OUTBOX", lambda row: row.outbox, right=True),
        Column("STRIPE", lambda row: row.stripe, right=True),
        Column("INVOICED", lambda row: row.invoiced, right=True),
        Column("MICROS", lambda row: row.amount_micros, right=True),
        Column("DRIFT", lambda row: row.drift, right=True),
        Column("CAUSE", lambda row: row.cause),
    ]
    print_rows([*found.rows, found.total] if found.rows else [], columns, "No usage.")
    for problem in found.problems:
        click.echo(f"Problem: {problem}.", err=True)
