"""`cic bundle`: what a person carries between the site and its control plane."""

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from appliance.commands.books import reading
from appliance.commands.bundle_import import import_file
from appliance.commands.client import AdminClient
from appliance.commands.context import Refused, absolute, require_site
from appliance.commands.output import Column, print_json, print_rows, progress
from appliance.manifests import archive
from appliance.manifests.bundle import CarriedManifest, UsageReader
from appliance.manifests.usage_audit import UsageAudit
from appliance.security.signing import PublicKey, load_signing_key
from appliance.settings import load
from appliance.sync.bundles import Facts, Part, UsageExport
from appliance.sync.carrier import Carrier
from appliance.sync.checkpoints import site_checkpoint
from appliance.sync.identity import KEY_FILE
from appliance.sync.site_keys import key_chain, known_keys
from appliance.wire.command import Invocation
from appliance.wire.home import Home

_PAGE_MANIFESTS: Final = 32
_SEAL_TIMEOUT_S: Final = 600.0  # a window of a site that was not sealed for long
_SHOW_EVERY: Final = 64

Place = tuple[int, int]  # epoch and number of a manifest


class ManifestPlace(click.ParamType[Place]):
    """A manifest's number, with its epoch where it is not the first: 17, 2-17 or 2.17."""

    name = "[EPOCH-]SEQ"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Place:
        if isinstance(value, tuple):
            return value
        epoch, _, seq = str(value).replace(".", "-").rpartition("-")
        if not (seq.isascii() and seq.isdecimal() and (epoch or "1").isdecimal()):
            self.fail(f"{value!r} is not like 17 or 2-17.", param, ctx)
        return int(epoch or "1"), int(seq)


@click.group()
def bundle() -> None:
    """What is carried by hand between this site and its control plane."""


bundle.add_command(import_file)


@bundle.command("export")
@click.option("--to", "folder", required=True, metavar="DIR", help="The stick's folder.")
@click.option("--all", "everything", is_flag=True, help="Also what was receipted before.")
@click.option("--from", "since", type=ManifestPlace(), help="From this manifest on.")
@click.option("--through", type=ManifestPlace(), help="Up to this manifest.")
@click.pass_obj
def export(
    invocation: Invocation,
    folder: str,
    since: Place | None,
    through: Place | None,
    *,
    everything: bool,
) -> None:
    """Write the manifests that no receipt covers onto a stick, read them again, and say when it is
    safe to unplug it.
    """
    home = invocation.home
    require_site(home)
    with Carrier.open(Path(absolute(folder))) as carrier:
        # Before anything is written: the site's own books are read as they are then.
        sealed = _seal(home)
        with reading(home) as connection, progress("Reading …") as show:
            facts, trusted, chosen = _read(home, connection, _Wish(since, through, everything))
            usage = UsageExport(
                facts,
                lambda: _manifests(connection, chosen),
                lambda reader, tell: _audit(facts, trusted, reader, tell),
                lambda doing, done, of: _show(show, doing, done, of),
            )
            parts = usage.to(carrier)
        same_disk = carrier.is_on_disk_of(home.ledger_file)
    _print_export(invocation, facts.appliance_id, parts, sealed=sealed, same_disk=same_disk)


@dataclass(frozen=True, slots=True)
class _Wish:
    """What the options ask for."""

    since: Place | None
    through: Place | None
    everything: bool


@dataclass(frozen=True, slots=True)
class _Range:
    """Manifests after one place, up to another."""

    after: Place
    through: Place


def _seal(home: Home) -> bool:
    """Seal what is open, where the appliance runs; whether it does."""
    try:
        with AdminClient(home, timeout_s=_SEAL_TIMEOUT_S) as client:
            client.send("POST", "/v1/manifests/seal", dict[str, Any])
    except Refused as error:
        if error.wire_code != "not_running":
            raise
        return False
    return True


def _read(
    home: Home, connection: sqlite3.Connection, wish: _Wish
) -> tuple[Facts, list[PublicKey], _Range]:
    """The site as it is at one moment: what is sealed after it is not in this bundle."""
    key = load_signing_key(home.secrets / KEY_FILE)
    name = load(home.config_file, os.environ).site.name
    connection.execute("BEGIN")
    try:
        state, chain = archive.sync_state(connection), archive.chain_state(connection)
        keys, trusted = key_chain(connection), known_keys(connection)
        checkpoint = site_checkpoint(connection, state.appliance_id, key)
    finally:
        connection.execute("ROLLBACK")
    if wish.since is not None:
        after = (wish.since[0], wish.since[1] - 1)
    else:
        after = (0, 0) if wish.everything else (state.epoch, state.accepted_through)
    last = (chain.epoch, chain.seq)
    return (
        Facts(state.appliance_id, name, keys, checkpoint),
        trusted,
        _Range(after, last if wish.through is None else min(wish.through, last)),
    )


def _manifests(connection: sqlite3.Connection, chosen: _Range) -> Iterator[CarriedManifest]:
    """Page by page, so that no long reading keeps the ledger's log from being taken in."""
    after = chosen.after
    while page := archive.manifests_after(connection, *after, _PAGE_MANIFESTS):
        for each in page:
            after = (each.epoch, each.seq)
            if after > chosen.through:
                return
            yield CarriedManifest(*after, each.envelope, each.lines)


def _audit(facts: Facts, trusted: list[PublicKey], reader: UsageReader, tell: Any) -> None:
    """Look at the file as the control plane will: with public keys alone."""
    audit = UsageAudit(facts.appliance_id, reader.keys, trusted)
    for count, manifest in enumerate(reader, 1):
        audit.take(manifest)
        tell(count)
    audit.summary(facts.site, reader.checkpoint)


def _show(show: Any, doing: str, done: int, of: int) -> None:
    if done % _SHOW_EVERY == 0 or done == of:
        show(f"{doing} {done:,} of {of:,} manifests …" if of else f"{doing} {done:,} manifests …")


_PARTS: Final[tuple[Column[Part], ...]] = (
    Column("FILE", lambda part: part.path),
    Column("MANIFESTS", lambda part: part.manifests, right=True),
    Column("BYTES", lambda part: part.size_bytes, right=True),
)


def _print_export(
    invocation: Invocation, appliance_id: str, parts: list[Part], *, sealed: bool, same_disk: bool
) -> None:
    if invocation.json:
        print_json(
            {
                "appliance_id": appliance_id,
                "files": [_part_object(part) for part in parts],
                "manifests": sum(part.manifests for part in parts),
                "sealed": sealed,
                "same_disk": same_disk,
                "safe_to_unplug": True,
            }
        )
        return
    print_rows(parts, _PARTS, "Nothing to carry: a receipt covers every manifest.")
    if not sealed:
        click.echo("The appliance does not run: what it did not seal yet is not in it.", err=True)
    if parts and same_disk:
        click.echo("This is on the disk of the site itself, on no stick.", err=True)
    if parts:
        click.echo("Read again and verified. Give it to the vendor; a .receipt comes back.")
    click.echo("Safe to unplug.")


def _part_object(part: Part) -> dict[str, Any]:
    return {
        "path": str(part.path),
        "size_bytes": part.size_bytes,
        "epoch_from": part.first[0],
        "seq_from": part.first[1],
        "epoch_to": part.last[0],
        "seq_to": part.last[1],
        "manifests": part.manifests,
    }
