"""`cic bundle import`: what the control plane sent back by hand, checked whole and then taken."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from appliance import lock
from appliance.commands.books import reading
from appliance.commands.client import AdminClient
from appliance.commands.context import Refused, absolute, require_site
from appliance.commands.output import Column, print_json, print_rows
from appliance.domain.clock import SystemClock
from appliance.manifests.archive import SyncState, sync_state
from appliance.security.signing import PublicKey
from appliance.settings import load
from appliance.sync.bundles import Brought, read_brought, read_key
from appliance.sync.errors import DocumentRefused
from appliance.sync.inbox import is_pinned, open_signed, pinned_key
from appliance.sync.stopped import bring_stopped
from appliance.wire.command import ExitCode, Invocation
from appliance.wire.home import Home
from appliance.wire.sync import DocumentOutcome, DocumentsBring, SyncReport

_TIMEOUT_S: Final = 600.0  # answers of a year are judged one by one


@click.command("import")
@click.argument("file")
@click.option(
    "--control-plane-key",
    "key_file",
    metavar="PEM",
    help="The control plane's public key, where this site does not know it yet; it is kept.",
)
@click.pass_context
def import_file(ctx: click.Context, file: str, key_file: str | None) -> None:
    """Take a .receipt, or one signed document, that was carried here.

    FILE is checked whole before anything of it is taken. Also for a site that does not run.
    """
    invocation: Invocation = ctx.obj
    home = invocation.home
    require_site(home)
    brought = read_brought(Path(absolute(file)))
    key = None if key_file is None else read_key(Path(absolute(key_file)))
    with reading(home) as connection:
        check_whole(brought, sync_state(connection), key)
    report = _bring(home, brought.envelopes, key)
    _print(invocation, report)
    if not report.ok:
        ctx.exit(ExitCode.FAILED)
    outcomes = {each.outcome for each in report.documents}
    if "superseded" in outcomes and "applied" not in outcomes:
        ctx.exit(ExitCode.CONFLICT)


def check_whole(brought: Brought, state: SyncState, key: PublicKey | None) -> None:
    """That every document is signed by this site's control plane and none is for another site.

    Raises DocumentRefused, ManifestError, NotPinned or EntitlementRefused; nothing is taken then.
    """
    if brought.appliance_id not in {"", state.appliance_id}:
        raise DocumentRefused(
            f"The bundle is for the appliance {brought.appliance_id}, this is"
            f" {state.appliance_id}.",
            next_step="Bring the one of this site. Nothing was changed.",
        )
    if key is None or is_pinned(state, key):
        key = pinned_key(state)
    for envelope in brought.envelopes:
        document = open_signed(envelope, key).document
        named = getattr(document, "appliance_id", state.appliance_id)
        if named != state.appliance_id:
            raise DocumentRefused(
                f"A document in it is for the appliance {named}, this is {state.appliance_id}.",
                next_step="Bring what is for this site. Nothing was changed.",
            )


def _bring(home: Home, envelopes: Sequence[bytes], key: PublicKey | None) -> SyncReport:
    body = DocumentsBring(
        envelopes=[envelope.decode() for envelope in envelopes],
        control_plane_key=None if key is None else key.pem,
    )
    try:
        with AdminClient(home, timeout_s=_TIMEOUT_S) as client:
            return client.send("POST", "/v1/documents", SyncReport, body)
    except Refused as error:
        if error.wire_code != "not_running":
            raise
    with lock.held(home.lock_file):
        return bring_stopped(
            home.ledger_file,
            home.secrets,
            load(home.config_file, os.environ).sync,
            SystemClock(),
            envelopes,
            key,
        )


_DOCUMENTS: Final[tuple[Column[DocumentOutcome], ...]] = (
    Column("DOCUMENT", lambda one: one.kind),
    Column("ID", lambda one: one.document_id),
    Column("OUTCOME", lambda one: one.outcome),
)


def _print(invocation: Invocation, report: SyncReport) -> None:
    if invocation.json:
        print_json(report)
        return
    print_rows(report.documents, _DOCUMENTS, "Everything in it was taken before.")
    for one in report.documents:
        if one.message:
            click.echo(f"{one.kind} {one.document_id}: {one.message} {one.next_step}".rstrip())
    status = report.status
    click.echo(
        f"Accepted through manifest {status.epoch}-{status.accepted_through};"
        f" {status.lag_manifests} not receipted yet."
    )
    for trouble in (status.alarm_detail, status.frozen_reason):
        if trouble:
            click.echo(f"{trouble} {status.next_step}".rstrip())
