"""`cic manifest`: what was sealed, and the key that signs it."""

from collections.abc import Iterable, Iterator
from typing import Any, Final
from urllib.parse import quote

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
    progress,
)
from appliance.commands.usage import stopped_manifests
from appliance.wire.command import CommandError, ExitCode, Invocation
from appliance.wire.manifests import (
    Manifest,
    ManifestKey,
    ManifestShown,
    ManifestVerification,
    Sealing,
)

_SEAL_TIMEOUT_S: Final = 600.0  # a window of a site that was not sealed for long
_VERIFY_TIMEOUT_S: Final = 3_600.0
_COLUMNS: Final[tuple[Column[Manifest], ...]] = (
    Column("MANIFEST", lambda row: f"{row.epoch}-{row.seq}"),
    Column("STATE", lambda row: row.state),
    Column("SEALED", lambda row: row.sealed_at),
    Column("RECORDS", lambda row: row.records, right=True),
    Column("LINES", lambda row: row.lines, right=True),
    Column("INPUT", lambda row: row.input_tokens, right=True),
    Column("CACHED", lambda row: row.cached_tokens, right=True),
    Column("OUTPUT", lambda row: row.output_tokens, right=True),
    Column("SHA256", lambda row: row.sha256[:16]),
)


@click.group()
def manifest() -> None:
    """Signed statements of what was served: seal, look at and verify them."""


@manifest.command("seal")
@click.pass_obj
def seal(invocation: Invocation) -> None:
    """Seal the records that are new now, instead of at the end of the window."""
    with (
        AdminClient(invocation.home, timeout_s=_SEAL_TIMEOUT_S) as client,
        progress("Sealing …"),
    ):
        made = client.send("POST", "/v1/manifests/seal", Sealing)
    if invocation.json:
        print_json(made)
    elif not made.sealed:
        newest = f"; the newest manifest is {made.epoch}-{made.seq}" if made.seq else ""
        click.echo(f"Nothing is new{newest}.")
    else:
        print_fields(fields_of(made, omit=("sealed", "manifests")))


@manifest.command("list")
@click.option("--since", metavar="REF", help="Only after this one: SEQ, or EPOCH-SEQ.")
@click.pass_obj
def list_manifests(invocation: Invocation, since: str | None) -> None:
    """List the manifests, oldest first. Also reads a site that does not run."""
    epoch, seq = _place(since)
    try:
        with AdminClient(invocation.home) as client:
            lines = client.lines("/v1/manifests", {"epoch": epoch, "seq": seq})
            rows = _decoded(lines)
    except Refused as error:
        rows = list(stopped_manifests(invocation, error).rows(epoch, seq))
    if invocation.json:
        print_json(rows)
    else:
        print_rows(rows, _COLUMNS, "Nothing was sealed yet.")


@manifest.command("show")
@click.argument("ref", metavar="SEQ")
@click.option("--raw", is_flag=True, help="Print the DSSE envelope, byte for byte.")
@click.option("--lines", "as_lines", is_flag=True, help="Print the lines, one JSON object each.")
@click.option("--tenant", metavar="TENANT", help="Hide the lines of all others but their hashes.")
@click.pass_obj
def show(
    invocation: Invocation, ref: str, tenant: str | None, *, raw: bool, as_lines: bool
) -> None:
    """Show the manifest SEQ (or EPOCH-SEQ): what is signed, and its lines.

    Also reads a site that does not run.
    """
    try:
        with AdminClient(invocation.home) as client:
            path = f"/v1/manifests/{quote(ref, safe='')}"
            shown = client.get(path, ManifestShown, {"tenant": tenant})
    except Refused as error:
        shown = stopped_manifests(invocation, error).show(ref, tenant)
    if raw:
        click.echo(shown.envelope.encode(), nl=False)
    elif as_lines:
        for line in shown.lines:
            click.echo(bytes(line.line))
    elif invocation.json:
        print_json(shown)
    else:
        _print_shown(shown)


@manifest.command("verify")
@click.pass_context
def verify(ctx: click.Context) -> None:
    """Verify every signature and the chain, and add up the ledger's records again.

    Exit code 6 when a manifest, the chain or the ledger is not what was sealed. Also reads a site
    that does not run.
    """
    invocation: Invocation = ctx.obj
    verdict: ManifestVerification | None = None
    with progress("Verifying …") as told:
        for step in _verified(invocation):
            verdict = step
            told(f"Verified {step.checked:,} of {step.total:,} manifests, {step.records:,} records")
    if verdict is None or not verdict.done:
        raise CommandError(
            "The verification was broken off.",
            next_step="Look at the appliance's log, and do it again.",
        )
    if invocation.json:
        print_json(verdict)
    else:
        print_fields(fields_of(verdict, omit=("done", "total", "problems", "notes")))
        for sentence in (*verdict.problems, *verdict.notes):
            click.echo(sentence)
    if not verdict.ok:
        ctx.exit(ExitCode.DAMAGED)


@manifest.command("public-key")
@click.argument("ref", metavar="[SEQ]", required=False)
@click.pass_obj
def public_key(invocation: Invocation, ref: str | None) -> None:
    """Print the public key (PEM) with which anybody can check what this site signs.

    With SEQ (or EPOCH-SEQ) the key that signed that manifest, also of before a rotation. Also reads
    a site that does not run.
    """
    try:
        with AdminClient(invocation.home) as client:
            key = client.get("/v1/manifests/key", ManifestKey, {"manifest": ref})
    except Refused as error:
        key = stopped_manifests(invocation, error).key(ref)
    if invocation.json:
        print_json(key)
    else:
        click.echo(key.pem, nl=False)


@manifest.command("key-rotate")
@click.pass_obj
def key_rotate(invocation: Invocation) -> None:
    """Sign with a new key from the next manifest on; the old and the new key sign the change."""
    with AdminClient(invocation.home) as client:
        key = client.send("POST", "/v1/manifests/key/rotate", ManifestKey)
    if invocation.json:
        print_json(key)
    else:
        click.echo(f"Manifests are signed with the key {key.key_id} from {key.since} on.")
        click.echo(key.pem, nl=False)


def _verified(invocation: Invocation) -> Iterator[ManifestVerification]:
    decoder = msgspec.json.Decoder(ManifestVerification)
    try:
        with AdminClient(invocation.home, timeout_s=_VERIFY_TIMEOUT_S) as client:
            for line in client.lines("/v1/manifests/verify"):
                yield decoder.decode(line)
    except Refused as error:
        yield from stopped_manifests(invocation, error).verify()


def _decoded(lines: Iterable[bytes]) -> list[Manifest]:
    decoder = msgspec.json.Decoder(Manifest)
    return [decoder.decode(line) for line in lines]


def _place(since: str | None) -> tuple[int, int]:
    """`7` is of the first epoch here: a list goes over all of them."""
    epoch, _, seq = (since or "0").replace(".", "-").rpartition("-")
    if not (seq.isascii() and seq.isdecimal() and (epoch or "1").isdecimal()):
        raise Refused(
            "invalid_value",
            f"{since!r} is no number of a manifest.",
            next_step="Write it as 7, or with its epoch as 1-7.",
            exit_code=ExitCode.USAGE,
        )
    return int(epoch or "1"), int(seq)


def _print_shown(shown: ManifestShown) -> None:
    header: dict[str, Any] = msgspec.json.decode(shown.header)
    rows = [("state", shown.manifest.state), ("sha256", shown.manifest.sha256)]
    for name, value in header.items():
        if isinstance(value, dict):
            rows += [(f"{name}.{inner}", text) for inner, text in value.items()]
        else:
            rows.append((name, value))
    print_fields(rows)
    click.echo()
    visible = [
        msgspec.json.decode(line.line, type=dict[str, str])
        for line in shown.lines
        if not line.hidden
    ]
    print_rows(visible, _LINE_COLUMNS, "No lines to show.")
    hidden = len(shown.lines) - len(visible)
    if hidden:
        click.echo(f"{hidden:,} lines of others are hidden.")


_LINE_COLUMNS: Final[tuple[Column[dict[str, str]], ...]] = (
    Column("HOUR", lambda line: line["hour"]),
    Column("TENANT", lambda line: line["tenant"]),
    Column("ENV", lambda line: line["environment"]),
    Column("KEY", lambda line: line["key_id"]),
    Column("MODEL", lambda line: line["model"]),
    Column("REGION", lambda line: line["region"]),
    Column("CLASS", lambda line: line["price_class"]),
    Column("REQUESTS", lambda line: int(line["requests"]), right=True),
    Column("INPUT", lambda line: int(line["input_tokens"]), right=True),
    Column("CACHED", lambda line: int(line["cached_tokens"]), right=True),
    Column("OUTPUT", lambda line: int(line["output_tokens"]), right=True),
)
