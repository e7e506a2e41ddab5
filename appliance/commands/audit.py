"""`cic audit`."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import click
import msgspec

from appliance.commands.client import AdminClient
from appliance.commands.context import Refused
from appliance.commands.output import (
    Column,
    fields_of,
    print_fields,
    print_json,
    print_rows,
)
from appliance.wire.admin import SEQ_MAX, AuditEntry, AuditVerification
from appliance.wire.command import ExitCode, Invocation

if TYPE_CHECKING:
    from appliance.commands.stopped import StoppedAudit

_NOT_RUNNING: Final = "not_running"
_COLUMNS: Final[tuple[Column[AuditEntry], ...]] = (
    Column("SEQ", lambda row: row.seq, right=True),
    Column("AT", lambda row: row.at),
    Column("WHO", lambda row: row.actor),
    Column("ACTION", lambda row: row.action),
    Column("KIND", lambda row: row.object_kind),
    Column("NAME", lambda row: row.object_name),
    Column("ID", lambda row: row.object_id),
)


@click.group()
def audit() -> None:
    """The audit: who changed what, before and after."""


@audit.command("list")
@click.option("--since", type=click.IntRange(0, SEQ_MAX), default=0, help="Only after this number.")
@click.pass_obj
def list_entries(invocation: Invocation, since: int) -> None:
    """List the entries of the audit, oldest first. Also reads a site that does not run."""
    try:
        with AdminClient(invocation.home) as client:
            entries = decoded(client.lines("/v1/audit", {"since": since}))
    except Refused as error:
        entries = list(stopped(invocation, error).entries(since))
    if invocation.json:
        print_json(entries)
    else:
        print_rows(entries, _COLUMNS, "No entries.")


@audit.command("verify")
@click.pass_context
def verify(ctx: click.Context) -> None:
    """Recompute the audit's chain. Exit code 6 when it is broken.

    Also reads a site that does not run.
    """
    invocation: Invocation = ctx.obj
    try:
        with AdminClient(invocation.home) as client:
            verdict = client.get("/v1/audit/verify", AuditVerification)
    except Refused as error:
        verdict = stopped(invocation, error).verify()
    if invocation.json:
        print_json(verdict)
    else:
        print_fields(fields_of(verdict))
    if not verdict.ok:
        ctx.exit(ExitCode.DAMAGED)


def stopped(invocation: Invocation, error: Refused) -> "StoppedAudit":
    """The audit's file, when the error is that the appliance does not run; else raises it."""
    if error.wire_code != _NOT_RUNNING:
        raise error
    from appliance.commands.stopped import StoppedAudit  # noqa: PLC0415 (loads SQLite's library)

    return StoppedAudit(invocation.home)


def decoded(lines: Iterable[bytes]) -> list[AuditEntry]:
    decoder = msgspec.json.Decoder(AuditEntry)
    return [decoder.decode(line) for line in lines]
