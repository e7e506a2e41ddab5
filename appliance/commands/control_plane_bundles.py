"""`cic control-plane import|export|quarantine|audit`: what is carried by hand, and what is kept."""

from pathlib import Path
from typing import Any

import click

from appliance.commands.control_plane_context import ControlInvocation
from appliance.commands.output import Column, print_fields, print_json, print_rows, progress
from appliance.controlplane import audit as operator_audit
from appliance.controlplane import carriage, evidence, sites
from appliance.controlplane.errors import UnknownSite
from appliance.controlplane.examined import unpack
from appliance.domain.clock import iso
from appliance.registry.chain import Entry
from appliance.wire.command import CommandError, ExitCode


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--show", "shown_max", default=20, help="So many refused manifests are listed.")
@click.pass_context
def import_bundle(ctx: click.Context, file: Path, shown_max: int) -> None:
    """Take in a `.usage` that was carried here; doing it again changes nothing.

    Exit code 0 only when every manifest in it is accepted, now or before.
    """
    invocation: ControlInvocation = ctx.obj
    with invocation.plane() as plane, progress("checking the file") as tell, file.open("rb") as raw:
        delivery = carriage.take_bundle(
            plane.ingest,
            raw,
            "file",
            lambda at: tell(f"{at.manifests:,} of {at.of:,} manifests"),
            refused_max=shown_max,
        )
    told = {
        "file": str(file),
        "appliance_id": delivery.appliance_id,
        "site": delivery.index.site,
        "manifests": delivery.offered,
        "codes": dict(sorted(delivery.codes.items())),
        "refused": [
            {"epoch": epoch, "seq": seq, "code": code, "detail": detail}
            for epoch, seq, code, detail in delivery.refused.first
        ],
        "ok": delivery.well,
    }
    if invocation.json:
        print_json(told)
    else:
        codes = ", ".join(f"{count:,} {code}" for code, count in sorted(delivery.codes.items()))
        click.echo(f"{delivery.index.site} ({delivery.appliance_id}): {codes}")
        for epoch, seq, code, detail in delivery.refused.first:
            click.echo(f"  {epoch}-{seq} {code}: {detail}", err=True)
        if delivery.refused.count > len(delivery.refused.first):
            click.echo(f"  and {delivery.refused.count - shown_max} more", err=True)
    if not delivery.well:
        ctx.exit(ExitCode.FAILED)


@click.command("export")
@click.option(
    "--to",
    "folder",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The stick, or any folder.",
)
@click.option("--site", help="Only this one.")
@click.pass_obj
def export(invocation: ControlInvocation, folder: Path, site: str | None) -> None:
    """Write a `.receipt` for each site: receipts, licence, prices, plans, revocations, grants."""
    written = []
    with invocation.plane() as plane:
        wanted = plane.database.read(
            lambda c: sites.every(c) if site is None else [sites.find(c, site)]
        )
        for one in wanted:
            path = carriage.export(plane.ingest, one, folder)
            written.append({"site": one.name, "appliance_id": one.appliance_id, "file": str(path)})
            if not invocation.json:
                click.echo(f"{one.name}: {path}")
    if invocation.json:
        print_json(written)
    elif written:
        click.echo("Everything is on the disk and was read again: safe to unplug.")
    else:
        click.echo("No site is enrolled: `cic control-plane enroll NAME`.", err=True)


@click.group("quarantine")
def quarantine() -> None:
    """Manifests that were refused, kept as they came."""


@quarantine.command("list")
@click.option("--site", help="Only of this one; `unknown` for what names no known site.")
@click.pass_obj
def list_quarantine(invocation: ControlInvocation, site: str | None) -> None:
    """List what is kept, the newest first."""
    with invocation.plane() as plane:
        found = plane.database.read(
            lambda c: evidence.listed(
                c,
                None
                if site is None
                else evidence.NOBODY
                if site == "unknown"
                else sites.find(c, site).appliance_id,
            )
        )
    if invocation.json:
        print_json([_told(row) for row in found])
        return
    columns = (
        Column[Any]("ID", lambda row: row["sha256"][:16]),
        Column[Any]("SITE", lambda row: row["appliance_id"]),
        Column[Any]("MANIFEST", lambda row: f"{row['epoch']}-{row['seq']}"),
        Column[Any]("CODE", lambda row: row["code"]),
        Column[Any]("AT", lambda row: iso(row["at_ns"])),
        Column[Any]("VIA", lambda row: row["via"]),
        Column[Any]("DETAIL", lambda row: row["detail"]),
    )
    print_rows(found, columns, "Nothing was refused.")


@quarantine.command("show")
@click.argument("identity", metavar="ID")
@click.option("--to", "folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.pass_obj
def show_quarantine(invocation: ControlInvocation, identity: str, folder: Path | None) -> None:
    """Show one refused manifest; --to writes its bytes, and those of what is accepted instead."""
    with invocation.plane() as plane:
        found = plane.database.read(lambda c: evidence.found(c, identity))
        if len(found) != 1:
            raise UnknownSite(
                f"'{identity}' names {len(found)} refused manifests.",
                next_step="`cic control-plane quarantine list` shows their ids.",
            )
        row = found[0]
        other = plane.database.read(
            lambda c: evidence.accepted_instead(c, row["appliance_id"], (row["epoch"], row["seq"]))
        )
    if folder is not None:
        stem = f"{row['sha256'][:16]}-{row['epoch']}-{row['seq']}"
        (folder / f"{stem}.dsse.json").write_bytes(bytes(row["envelope"]))
        (folder / f"{stem}.ndjson").write_bytes(bytes(row["lines"]))
        if other is not None:
            (folder / f"{stem}-accepted.dsse.json").write_bytes(bytes(other["envelope"]))
            (folder / f"{stem}-accepted.ndjson").write_bytes(unpack(bytes(other["lines"])))
    told = _told(row) | {"accepted_instead": "" if other is None else other["sha256"]}
    if invocation.json:
        print_json(told)
    else:
        print_fields(told.items())


@click.group("audit")
def audit() -> None:
    """What operators did here."""


@audit.command("list")
@click.option("--since", type=click.IntRange(min=0), default=0, help="Rows after this number.")
@click.pass_obj
def list_audit(invocation: ControlInvocation, since: int) -> None:
    """List what was done, by whom, oldest first."""
    with invocation.plane() as plane:
        found = plane.database.read(lambda c: operator_audit.entries(c, since))
    if invocation.json:
        print_json([{**_entry(one), "before": one.before, "after": one.after} for one in found])
        return
    columns = (
        Column[Entry]("SEQ", lambda one: one.seq, right=True),
        Column[Entry]("AT", lambda one: iso(one.at_ns)),
        Column[Entry]("ACTOR", lambda one: one.actor),
        Column[Entry]("ACTION", lambda one: one.action),
        Column[Entry]("OBJECT", lambda one: one.object_name or one.object_id),
        Column[Entry]("AFTER", lambda one: one.after),
    )
    print_rows(found, columns, "Nothing was done yet.")


@audit.command("verify")
@click.pass_obj
def verify_audit(invocation: ControlInvocation) -> None:
    """Reckon the chain of the audit again."""
    with invocation.plane() as plane:
        verdict = plane.database.read(operator_audit.verify)
    if invocation.json:
        print_json(
            {
                "entries": verdict.entries,
                "head_sha256": verdict.head_sha256,
                "problems": verdict.problems,
                "ok": not verdict.problems,
            }
        )
    else:
        click.echo(f"{verdict.entries:,} entries, head {verdict.head_sha256}")
    if verdict.problems:
        raise CommandError(
            f"The audit was changed: {verdict.problems[0]}.",
            next_step="Compare it with a backup.",
            exit_code=ExitCode.DAMAGED,
        )


def _entry(one: Entry) -> dict[str, Any]:
    return {
        "seq": one.seq,
        "at": iso(one.at_ns),
        "actor": one.actor,
        "action": one.action,
        "object": one.object_kind,
        "id": one.object_id,
        "name": one.object_name,
    }


def _told(row: Any) -> dict[str, Any]:
    return {
        "id": row["sha256"],
        "appliance_id": row["appliance_id"],
        "epoch": row["epoch"],
        "seq": row["seq"],
        "code": row["code"],
        "detail": row["detail"],
        "via": row["via"],
        "at": iso(row["at_ns"]),
        "bytes": row["bytes"],
    }
