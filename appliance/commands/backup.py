"""`cic backup`."""

from pathlib import Path
from typing import Final

import click

from appliance.backup.container import Opening
from appliance.backup.desk import note_given, site_key
from appliance.backup.restoring import restore as put_back
from appliance.backup.trial import Tried, head_of, require_sound, try_out
from appliance.commands.client import AdminClient
from appliance.commands.context import Refused, absolute, cic_line, require_site
from appliance.commands.noun import confirm
from appliance.commands.output import Column, print_fields, print_json, print_rows, progress
from appliance.domain.clock import SystemClock
from appliance.security.secrets import SECRET_BYTES, read_secret, write_secret
from appliance.wire.backups import Backup, BackupCreate, BackupList
from appliance.wire.command import CommandError, ExitCode, Invocation
from appliance.wire.home import Home

_TIMEOUT_S: Final = 4 * 3_600.0  # a large ledger on a slow stick
_PASSPHRASE_BYTES_MAX: Final = 4_096
_PASSPHRASE_CHARS_MIN: Final = 12

COLUMNS: Final[list[Column[Backup]]] = [
    Column("MADE", lambda row: row.made_at),
    Column("BYTES", lambda row: row.size_bytes, right=True),
    Column("OPENED BY", lambda row: f"key {row.key_id}" if row.key_id else "a passphrase"),
    Column("VERSION", lambda row: row.product),
    Column("FILE", lambda row: row.path),
]

passphrase_option = click.option(
    "--passphrase-file",
    metavar="FILE",
    help="Its first line opens the backup; - reads it from the input.",
)
key_option = click.option(
    "--key-file", metavar="FILE", help="The key of the site that made it. Default: this home's."
)


@click.group()
def backup() -> None:
    """Backups: settings, tenants, keys, ledger and secrets, encrypted. Weights are not in them."""


@backup.command("create")
@click.option("--to", metavar="FOLDER", help="Default: the settings' folder.")
@passphrase_option
@click.pass_obj
def create(invocation: Invocation, to: str | None, passphrase_file: str | None) -> None:
    """Make a backup now, while the site serves."""
    passphrase = None if passphrase_file is None else _new_passphrase(passphrase_file)
    body = BackupCreate(folder=None if to is None else absolute(to), passphrase=passphrase)
    with (
        progress("Copying and encrypting"),
        AdminClient(invocation.home, timeout_s=_TIMEOUT_S) as client,
    ):
        made = client.send("POST", "/v1/backups", Backup, body)
        kept = client.get("/v1/backups", BackupList)
    if invocation.json:
        print_json(made)
        return
    print_fields(
        (
            ("made", made.path),
            ("bytes", made.size_bytes),
            ("records", made.records),
            ("newest manifest", made.newest or "none"),
            ("opened by", f"key {made.key_id}" if made.key_id else "your passphrase"),
        )
    )
    if kept.next_step and made.key_id:
        click.echo(kept.next_step, err=True)


@backup.command("list")
@click.pass_obj
def list_backups(invocation: Invocation) -> None:
    """List the backups of the settings' folder, and when the next is made."""
    with AdminClient(invocation.home) as client:
        found = client.get("/v1/backups", BackupList)
    if invocation.json:
        print_json(found)
        return
    print_rows(found.backups, COLUMNS, f"No backups in {found.folder} yet.")
    click.echo()
    print_fields(
        (("next", found.due_at or "only when asked"), ("last error", found.last_error or "none"))
    )
    if found.next_step:
        click.echo(found.next_step, err=True)


@backup.command("verify")
@click.argument("file")
@key_option
@passphrase_option
@click.pass_obj
def verify(
    invocation: Invocation, file: str, key_file: str | None, passphrase_file: str | None
) -> None:
    """Try a backup: unpack it aside, open everything, recompute every chain.

    Works without a running appliance, and without any site.
    """
    path = Path(absolute(file))
    opening = _opening(invocation.home, path, key_file, passphrase_file)
    with progress("Trying the backup") as tell:
        tried = try_out(path, opening, _beside(invocation.home, path), tell)
    _print_tried(invocation, path, tried)
    require_sound(tried)


@backup.command("restore")
@click.argument("file")
@key_option
@passphrase_option
@click.option("--replace", is_flag=True, help="Over the site that is there; it is kept beside.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def restore(
    invocation: Invocation,
    file: str,
    key_file: str | None,
    passphrase_file: str | None,
    *,
    replace: bool,
    yes: bool,
) -> None:
    """Put a backup back, into the --home that is named. Its site must not run.

    Everything is tried first. A site whose manifests went on after this backup is told so by its
    control plane, and goes on with a new epoch that the vendor grants.
    """
    home, path = invocation.home, Path(absolute(file))
    opening = _opening(home, path, key_file, passphrase_file)
    if replace:
        head = head_of(path)
        confirm(
            invocation,
            f"Put the site in {home.state} back to {head.made_at}?"
            " What was served since is then in the kept copy alone.",
            yes=yes,
        )
    with progress("Restoring") as tell:
        done = put_back(path, home, opening, SystemClock(), replace=replace, tell=tell)
    if invocation.json:
        print_json(
            {
                "restored": str(home.state),
                "made_at": done.tried.head.made_at,
                "records": done.tried.records,
                "manifests": done.tried.manifests,
                "before": None if done.before is None else str(done.before),
            }
        )
        return
    print_fields(
        (
            ("restored", home.state),
            ("as of", done.tried.head.made_at),
            ("ledger records", done.tried.records),
            ("manifests", done.tried.manifests),
            ("what was there", done.before or "nothing"),
        )
    )
    click.echo(f"Start it with `{cic_line(home, 'serve')}`.", err=True)


@backup.command("key")
@click.option("--to", required=True, metavar="FILE", help="A new file, for its owner alone.")
@click.pass_obj
def key(invocation: Invocation, to: str) -> None:
    """Copy the key that opens this site's backups. Keep it elsewhere: none of them has it."""
    home = invocation.home
    require_site(home)
    target = Path(absolute(to))
    if target.exists():
        raise Refused(
            "already_exists",
            f"{target} is there already.",
            next_step="Name a new file.",
            exit_code=ExitCode.CONFLICT,
        )
    secret = site_key(home)
    try:
        write_secret(target, secret)
    except OSError as error:
        raise CommandError(
            f"{target} cannot be written: {error.strerror}.",
            next_step="Name a file in a folder that you may write.",
            exit_code=ExitCode.CONFIGURATION,
        ) from error
    note_given(home)
    key_id = Opening(secret=secret).key_id
    if invocation.json:
        print_json({"file": str(target), "key_id": key_id})
    else:
        print_fields((("file", target), ("key", key_id)))


def _opening(home: Home, path: Path, key_file: str | None, passphrase_file: str | None) -> Opening:
    """What was named; else the key of this home, where the backup wants a key."""
    if passphrase_file is not None:
        return Opening(passphrase=_passphrase_in(passphrase_file))
    if key_file is not None:
        return Opening(secret=_key_in(Path(absolute(key_file))))
    if head_of(path).protection == "key" and home.backup_key_file.exists():
        return Opening(secret=read_secret(home.backup_key_file))
    return Opening()


def _key_in(path: Path) -> bytes:
    """From wherever it was kept: a stick knows no owners and no modes."""
    try:
        with path.open("rb") as file:
            secret = file.read(SECRET_BYTES + 1)
    except OSError as error:
        raise CommandError(
            f"The key {path} cannot be read: {error.strerror}.",
            next_step="Name the file that `cic backup key` wrote.",
            exit_code=ExitCode.CONFIGURATION,
        ) from error
    if len(secret) != SECRET_BYTES:
        raise CommandError(
            f"{path} does not hold {SECRET_BYTES} bytes, so it is no key of backups.",
            next_step="Name the file that `cic backup key` wrote.",
            exit_code=ExitCode.CONFIGURATION,
        )
    return secret


def _new_passphrase(file: str) -> str:
    passphrase = _passphrase_in(file)
    if len(passphrase) < _PASSPHRASE_CHARS_MIN:
        raise Refused(
            "invalid_value",
            f"A passphrase of {len(passphrase)} characters is soon guessed.",
            next_step=f"Use at least {_PASSPHRASE_CHARS_MIN}: five words, for instance.",
            exit_code=ExitCode.USAGE,
        )
    return passphrase


def _passphrase_in(file: str) -> str:
    try:
        with click.open_file(file, "rb") as source:
            content = bytes(source.readline(_PASSPHRASE_BYTES_MAX))
        return content.decode().strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(
            f"No passphrase can be read from {file}: {error}.",
            next_step="Name a file whose first line it is.",
            exit_code=ExitCode.CONFIGURATION,
        ) from error


def _beside(home: Home, path: Path) -> Path:
    """Where there is room to unpack: this home's, where there is one."""
    return home.state if home.config_file.exists() else path.parent


def _print_tried(invocation: Invocation, path: Path, tried: Tried) -> None:
    if invocation.json:
        print_json({"file": str(path), "ok": not tried.problems, **_facts(tried)})
        return
    print_fields(_facts(tried).items())


def _facts(tried: Tried) -> dict[str, object]:
    return {
        "site": tried.index.site,
        "made_at": tried.head.made_at,
        "product": tried.head.product,
        "ledger_records": tried.records,
        "audit_entries": tried.audit_entries,
        "manifests": tried.manifests,
        "newest_manifest": tried.index.newest or None,
        "problems": list(tried.problems),
    }
