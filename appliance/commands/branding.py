"""`cic branding`: the signed file that gives the product a partner's name."""

import os
import tomllib
from pathlib import Path
from typing import Final

import click
import msgspec

from appliance.branding import BadBranding, Brand, read_brand, sign_brand
from appliance.commands.context import absolute
from appliance.commands.output import fields_of, print_fields, print_json
from appliance.domain.clock import SystemClock, iso
from appliance.security.signing import load_signing_key
from appliance.wire.command import CommandError, ExitCode, Invocation

_TOML_BYTES_MAX: Final = 16 * 1024


@click.group()
def branding() -> None:
    """The name, colour and contact under which a partner sells the appliance: one signed file."""


@branding.command("check")
@click.argument("file")
@click.option(
    "--publisher", required=True, metavar="FILE", help="PEM: the public key of who signs it."
)
@click.pass_obj
def check(invocation: Invocation, file: str, publisher: str) -> None:
    """Show what FILE would change, once its signature was verified. Nothing is changed."""
    brand = read_brand(absolute(file), absolute(publisher))
    if invocation.json:
        print_json(brand)
        return
    print_fields(fields_of(brand))
    click.echo("To use it: `cic settings set branding.file FILE`, then `branding.publisher`,")
    click.echo("and start the appliance again.")


@branding.command("make")
@click.argument("description")
@click.option("--key", required=True, metavar="FILE", help="The signing key: 32 bytes, 0600.")
@click.option("--out", required=True, metavar="FILE", help="The signed file to write.")
@click.pass_obj
def make(invocation: Invocation, description: str, key: str, out: str) -> None:
    """Sign DESCRIPTION, a TOML file with product, owner, support and accent. For who sells it.

    Beside OUT its public key is written as OUT.pem: the sites get it on another way.
    """
    signer = load_signing_key(Path(absolute(key)))
    raw = sign_brand(_described(Path(absolute(description))), signer)
    path = Path(absolute(out))
    public = Path(f"{path}.pem")
    _write(path, raw)
    _write(public, signer.public.pem.encode())
    told = {"file": str(path), "publisher": str(public), "key_id": signer.key_id}
    if invocation.json:
        print_json(told)
    else:
        print_fields(told.items())


def _described(path: Path) -> Brand:
    try:
        with path.open("rb") as file:
            tree = tomllib.loads(file.read(_TOML_BYTES_MAX).decode())
        unknown = sorted(set(tree) - {"product", "owner", "support", "accent"})
        if unknown:
            raise BadBranding(
                f"{path} has {', '.join(unknown)}, which no branding has.",
                next_step="It takes product, owner, support and accent.",
            )
        return msgspec.convert({**tree, "made_at": iso(SystemClock().wall_ns())}, Brand)
    except OSError as error:
        raise BadBranding(
            f"{path} cannot be read: {error.strerror}.", next_step="Check the path."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise BadBranding(
            f"{path} describes no branding: {error}.",
            next_step="It takes product, owner, support, and accent as #5fafd7.",
        ) from error


def _write(path: Path, content: bytes) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except OSError as error:
        raise CommandError(
            f"{path} cannot be written: {error.strerror}.",
            next_step="Name a new file in a folder that you may write: --out FILE.",
            exit_code=ExitCode.CONFIGURATION,
        ) from error
