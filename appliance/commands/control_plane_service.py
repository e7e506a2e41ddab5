"""`cic control-plane init`, `serve`, `key` and `operator-token`."""

import json

import click
import msgspec

from appliance.commands.control_plane_context import ControlInvocation
from appliance.commands.output import print_fields, print_json
from appliance.controlplane.billing import price_book
from appliance.controlplane.errors import ControlPlaneError
from appliance.controlplane.identity import bind, create, load_identity
from appliance.controlplane.settings import ControlHome
from appliance.domain.clock import SystemClock
from appliance.security.secrets import write_secret


@click.command()
@click.option("--listen", metavar="HOST:PORT", help="Where sites and operators reach it.")
@click.option("--database", "url", metavar="URL", help="postgresql://… instead of SQLite.")
@click.pass_obj
def init(invocation: ControlInvocation, listen: str | None, url: str | None) -> None:
    """Make a control plane in this home: settings, its signing key, the operator's token, tables.

    Doing it again completes what is missing and changes nothing else.
    """
    home = invocation.home
    try:
        home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not home.config_file.exists():
            _write_config(home, listen, url)
        identity = create(home)
    except OSError as error:
        raise ControlPlaneError(
            f"Cannot write {error.filename or home.root}: {error.strerror}.",
            next_step="Choose a home that may be written: --home DIR.",
        ) from error
    with invocation.database() as database:
        database.transact(lambda connection: bind(connection, identity.key.key_id))
        currency = invocation.settings().billing.currency
        now_ns = SystemClock().wall_ns()
        database.transact(lambda connection: price_book.ensure(connection, currency, now_ns))
        kind = "PostgreSQL" if database.shared else "SQLite"
    made = {
        "home": str(home.root),
        "config": str(home.config_file),
        "database": kind,
        "key_id": identity.key.key_id,
    }
    if invocation.json:
        print_json(made)
    else:
        print_fields(made.items())


@click.command()
@click.option("--listen", metavar="HOST:PORT", help="Instead of the settings' listen.address.")
@click.pass_obj
def serve(invocation: ControlInvocation, listen: str | None) -> None:
    """Serve sites, Stripe's webhooks and operators until SIGTERM or Ctrl-C.

    Prints `ready http://HOST:PORT` when requests are taken. Bills in the background.
    """
    settings = invocation.settings()
    if listen is not None:
        changed = msgspec.structs.replace(settings.listen, address=listen)
        settings = msgspec.structs.replace(settings, listen=changed)
    from appliance.controlplane.server import run  # noqa: PLC0415 (`key` need not load all of it)

    run(invocation.home, settings)


@click.command()
@click.pass_obj
def key(invocation: ControlInvocation) -> None:
    """Print the public key that receipts and entitlements are verified with (PEM)."""
    public = load_identity(invocation.home).key.public
    if invocation.json:
        print_json({"key_id": public.key_id, "pem": public.pem})
    else:
        click.echo(public.pem, nl=False)


@click.command("operator-token")
@click.pass_obj
def operator_token(invocation: ControlInvocation) -> None:
    """Print the bearer token of the operator API."""
    token = load_identity(invocation.home).operator_token
    if invocation.json:
        print_json({"token": token})
    else:
        click.echo(token)


def _write_config(home: ControlHome, listen: str | None, url: str | None) -> None:
    lines = []
    if listen is not None:
        lines += ["[listen]", f"address = {json.dumps(listen)}", ""]
    if url is not None:
        lines += ["[database]", f"url = {json.dumps(url)}", ""]
    write_secret(home.config_file, "\n".join(lines).encode())  # it may come to hold Stripe's key
