"""`cic key`."""

from typing import Any, Final, get_args

import click

from appliance.commands.client import AdminClient, object_path
from appliance.commands.limits import LimitValue, limit_options
from appliance.commands.moments import Moment, Span
from appliance.commands.noun import Noun, add_common, scoped
from appliance.commands.output import Column, fields_of, print_fields, print_json
from appliance.wire.admin import (
    Key,
    KeyCreate,
    KeyCreated,
    KeyRotate,
    KeyUpdate,
    LimitValues,
    RoleName,
)
from appliance.wire.command import Invocation

_ROLES: Final = click.Choice(get_args(RoleName))
_SCOPE: Final = ("tenant", "environment")

KEY: Final = Noun(
    word="key",
    collection="keys",
    answer=Key,
    columns=(
        Column("TENANT", lambda row: row.tenant),
        Column("ENV", lambda row: row.environment),
        Column("NAME", lambda row: row.name),
        Column("KEY", lambda row: row.prefix),
        Column("ROLE", lambda row: row.role),
        Column("STATE", lambda row: row.state),
        Column("EXPIRES", lambda row: row.expires_at),
        Column("ID", lambda row: row.id),
    ),
    scope=_SCOPE,
)


@click.group()
def key() -> None:
    """API keys: what clients of the endpoint show."""


@key.command("create")
@click.option("--tenant", required=True, help="Id or name.")
@click.option("--env", "environment", required=True, help="Id or name.")
@click.option("--name", help="Default: key- and six digits.")
@click.option("--role", type=_ROLES, default="developer", show_default=True)
@click.option("--expires", type=Moment(1), help="A moment, or 30d from now. Default: never.")
@click.option("--test", is_flag=True, help="A clsk_test_ key.")
@limit_options(LimitValue())
@click.pass_obj
def create(
    invocation: Invocation,
    /,
    tenant: str,
    environment: str,
    name: str | None,
    role: RoleName,
    expires: str | None,
    *,
    test: bool,
    **limits: int | None,
) -> None:
    """Create an API key. Its secret is printed this once and kept nowhere."""
    body = KeyCreate(
        tenant=tenant,
        environment=environment,
        name=name,
        role=role,
        expires_at=expires,
        test=test,
        limits=LimitValues(
            requests_per_min=limits["rpm"],
            tokens_per_min=limits["tpm"],
            tokens_per_day=limits["tpd"],
            concurrency=limits["concurrency"],
        ),
    )
    with AdminClient(invocation.home) as client:
        item = client.send("POST", "/v1/keys", KeyCreated, body)
    print_secret(invocation, item)


@key.command("update")
@click.argument("ref")
@scoped(_SCOPE)
@click.option("--name", help="Its new name.")
@click.option("--role", type=_ROLES)
@click.option("--expires", metavar="TIME|none", help="A moment, 30d from now, or none.")
@click.pass_context
def update(
    ctx: click.Context,
    ref: str,
    tenant: str | None,
    environment: str | None,
    name: str | None,
    role: RoleName | None,
    expires: str | None,
) -> None:
    """Change a key's name, role or expiry. REF is its id or name."""
    never = expires in ("none", "never")
    moment = None if expires is None or never else Moment(1).convert(expires, None, ctx)
    body = KeyUpdate(name=name, role=role, expires_at=moment, never_expires=never)
    invocation: Invocation = ctx.obj
    query = {"tenant": tenant, "environment": environment}
    with AdminClient(invocation.home) as client:
        item = client.send("PATCH", object_path("keys", ref), Key, body, query)
    KEY.print(invocation, item)


@key.command("rotate")
@click.argument("ref")
@scoped(_SCOPE)
@click.option(
    "--overlap",
    type=Span(),
    default="24h",
    show_default=True,
    help="The old secret goes on so long.",
)
@click.pass_obj
def rotate(invocation: Invocation, /, ref: str, overlap: int, **scope: Any) -> None:
    """Give the key REF a new secret; id, limits and usage stay.

    The new secret is printed this once and kept nowhere.
    """
    path = object_path("keys", ref, "rotate")
    with AdminClient(invocation.home) as client:
        item = client.send("POST", path, KeyCreated, KeyRotate(overlap_s=overlap), scope)
    print_secret(invocation, item)


def print_secret(invocation: Invocation, item: KeyCreated) -> None:
    if invocation.json:
        print_json(item)
        return
    print_fields(fields_of(item))
    click.echo("Keep this key now: it is shown once and kept nowhere.", err=True)


add_common(key, KEY)
