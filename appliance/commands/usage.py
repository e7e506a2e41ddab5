"""`cic usage` and `cic ledger`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

import click
import msgspec

from appliance.admin.moments import parse_moment
from appliance.commands.client import AdminClient, object_path
from appliance.commands.context import Refused, absolute
from appliance.commands.files import write_new
from appliance.commands.moments import Moment
from appliance.commands.output import (
    Column,
    fields_of,
    print_fields,
    print_json,
    print_rows,
    progress,
)
from appliance.wire.admin import SEQ_MAX, LedgerVerification, UsageColumn, UsageRow
from appliance.wire.command import ExitCode, Invocation
from appliance.wire.manifests import UsageProof

if TYPE_CHECKING:
    from appliance.commands.stopped import StoppedLedger, StoppedManifests

_COLUMNS: Final[tuple[UsageColumn, ...]] = get_args(UsageColumn)
PROVE_TIMEOUT_S: Final = 600.0
VERIFY_TIMEOUT_S: Final = 3_600.0  # a ledger of years is read from its beginning
_NOT_RUNNING: Final = "not_running"


class UsageColumns(click.ParamType[list[UsageColumn]]):
    """Columns with commas. `env` is short for environment."""

    name = "COLUMNS"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[UsageColumn]:
        if isinstance(value, list):
            return value
        columns: list[UsageColumn] = []
        for word in (part.strip() for part in str(value).split(",")):
            name = "environment" if word == "env" else word
            column = next((known for known in _COLUMNS if known == name), None)
            if column is None:
                self.fail(f"{word!r} is none of tenant, env, key, model, hour.", param, ctx)
            if column not in columns:
                columns.append(column)
        return columns


@click.group(invoke_without_command=True)
@click.option("--since", type=Moment(-1), help="From this moment on, or 24h, 7d, 30m ago.")
@click.option("--until", type=Moment(-1), help="Before this moment.")
@click.option("--by", type=UsageColumns(), default=list, help="Of tenant,env,key,model,hour.")
@click.pass_context
def usage(ctx: click.Context, since: str | None, until: str | None, by: list[UsageColumn]) -> None:
    """Sum the tokens in the ledger. Also reads a site that does not run."""
    if ctx.invoked_subcommand is not None:
        return
    invocation: Invocation = ctx.obj
    query = {"since": since, "until": until, "by": ",".join(by)}
    try:
        with AdminClient(invocation.home) as client:
            rows = client.get("/v1/usage", list[UsageRow], query)
    except Refused as error:
        rows = stopped(invocation, error).usage(_moment(since), _moment(until), by)
    if invocation.json:
        print_json([usage_object(row) for row in rows])
        return
    named: list[Column[UsageRow]] = [
        Column(name.upper(), lambda row, name=name: getattr(row, name))  # type: ignore[misc]  # the default binds the loop's value
        for name in by
    ]
    print_rows(rows, [*named, *_SUMS], "No usage.")


@usage.command("prove")
@click.argument("record", metavar="RECORD")
@click.option("--out", metavar="FILE", help="Write the proof into this file.")
@click.pass_obj
def prove(invocation: Invocation, record: str, out: str | None) -> None:
    """Prove that RECORD, or the request of that id, is in a signed manifest.

    The proof shows nothing of other requests; `cic verify FILE --key PUB` checks it offline. Also
    reads a site that does not run.
    """
    try:
        with AdminClient(invocation.home, timeout_s=PROVE_TIMEOUT_S) as client:
            made = client.get(object_path("usage", record, "proof"), UsageProof)
    except Refused as error:
        made = stopped_manifests(invocation, error).prove(record)
    proof = bytes(made.proof) + b"\n"
    if out is not None:
        write_new(Path(absolute(out)), proof)
        if invocation.json:
            print_json({"record_id": made.record_id, "file": absolute(out), "bytes": len(proof)})
        else:
            click.echo(f"Wrote the proof of {made.record_id} to {out}, {len(proof):,} bytes.")
    else:
        click.echo(proof, nl=False)


_SUMS: Final[tuple[Column[UsageRow], ...]] = (
    Column("REQUESTS", lambda row: row.requests, right=True),
    Column("INPUT", lambda row: row.input_tokens, right=True),
    Column("OUTPUT", lambda row: row.output_tokens, right=True),
    Column("CACHED", lambda row: row.cached_tokens, right=True),
)


@click.group()
def ledger() -> None:
    """The ledger: one record for each request that was admitted."""


@ledger.command("list")
@click.option("--since", type=click.IntRange(0, SEQ_MAX), default=0, help="Only after this number.")
@click.pass_obj
def list_records(invocation: Invocation, since: int) -> None:
    """Print the records as JSON, one object a line. Also reads a site that does not run."""
    for line in record_lines(invocation, since):
        click.echo(line)


@ledger.command("verify")
@click.pass_context
def verify(ctx: click.Context) -> None:
    """Recompute the ledger's chain. Exit code 6 when it is broken.

    Also reads a site that does not run.
    """
    invocation: Invocation = ctx.obj
    with progress("Reading every record …") as show:
        try:
            with AdminClient(invocation.home, timeout_s=VERIFY_TIMEOUT_S) as client:
                verdict = client.get("/v1/ledger/verify", LedgerVerification)
        except Refused as error:
            verdict = stopped(invocation, error).verify(
                lambda read, total: show(f"Read {read:,} of {total:,} records …")
            )
    if invocation.json:
        print_json(verdict)
    else:
        print_fields(fields_of(verdict))
    if not verdict.ok:
        ctx.exit(ExitCode.DAMAGED)


def record_lines(invocation: Invocation, since: int) -> Iterator[bytes]:
    try:
        with AdminClient(invocation.home) as client:
            yield from client.lines("/v1/ledger", {"since": since})
    except Refused as error:
        yield from map(msgspec.json.encode, stopped(invocation, error).rows(since))


def stopped_manifests(invocation: Invocation, error: Refused) -> "StoppedManifests":
    """The same for what was sealed."""
    if error.wire_code != _NOT_RUNNING:
        raise error
    from appliance.commands.stopped import StoppedManifests  # noqa: PLC0415 (loads SQLite's library)

    return StoppedManifests(invocation.home)


def stopped(invocation: Invocation, error: Refused) -> "StoppedLedger":
    """The ledger's file, when the error is that the appliance does not run; else raises it."""
    if error.wire_code != _NOT_RUNNING:
        raise error
    from appliance.commands.stopped import StoppedLedger  # noqa: PLC0415 (loads SQLite's library)

    return StoppedLedger(invocation.home)


def _moment(text: str | None) -> int | None:
    return None if text is None else parse_moment(text, "time")


def usage_object(row: UsageRow) -> dict[str, Any]:
    """A row with `env` as well as `environment`: it is asked for by either name."""
    written: dict[str, Any] = msgspec.to_builtins(row)
    if "environment" in written:
        written["env"] = written["environment"]
    return written
