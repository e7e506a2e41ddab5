"""`cic tenant` and `cic env`."""

from typing import Final, get_args

import click

from appliance.commands.client import AdminClient, object_path
from appliance.commands.noun import Noun, add_common
from appliance.commands.output import Column, fields_of, print_fields
from appliance.wire.admin import (
    Environment,
    EnvironmentCreate,
    EnvironmentUpdate,
    PlanName,
    Tenant,
    TenantCreate,
    TenantUpdate,
)
from appliance.wire.command import Invocation

_PLANS: Final = click.Choice(get_args(PlanName))


def show_tenant(row: Tenant) -> None:
    """A limit that is not set is its plan's: `cic limit show` has that one."""
    print_fields((name, "as planned" if value is None else value) for name, value in fields_of(row))


def models_of(row: Environment) -> str | list[str]:
    return "all" if row.models is None else row.models


def show_environment(row: Environment) -> None:
    print_fields(
        (name, models_of(row) if name == "models" else value) for name, value in fields_of(row)
    )


TENANT: Final = Noun(
    word="tenant",
    collection="tenants",
    answer=Tenant,
    columns=(
        Column("NAME", lambda row: row.name),
        Column("PLAN", lambda row: row.plan),
        Column("STATE", lambda row: row.state),
        Column("CREATED", lambda row: row.created_at),
        Column("ID", lambda row: row.id),
    ),
    cascades=True,
    show=show_tenant,
)
ENVIRONMENT: Final = Noun(
    word="environment",
    collection="environments",
    answer=Environment,
    columns=(
        Column("TENANT", lambda row: row.tenant),
        Column("NAME", lambda row: row.name),
        Column("REGION", lambda row: row.region),
        Column("MODELS", models_of),
        Column("STATE", lambda row: row.state),
        Column("CREATED", lambda row: row.created_at),
        Column("ID", lambda row: row.id),
    ),
    scope=("tenant",),
    cascades=True,
    show=show_environment,
)


@click.group()
def tenant() -> None:
    """Tenants: who is billed."""


@tenant.command("create")
@click.argument("name")
@click.option("--plan", type=_PLANS, default="enterprise", show_default=True)
@click.pass_obj
def create_tenant(invocation: Invocation, name: str, plan: PlanName) -> None:
    """Create a tenant."""
    with AdminClient(invocation.home) as client:
        item = client.send("POST", "/v1/tenants", Tenant, TenantCreate(name=name, plan=plan))
    TENANT.print(invocation, item)


@tenant.command("update")
@click.argument("ref")
@click.option("--name", help="Its new name.")
@click.option("--plan", type=_PLANS)
@click.pass_obj
def update_tenant(
    invocation: Invocation, ref: str, name: str | None, plan: PlanName | None
) -> None:
    """Change a tenant's name or plan. REF is its id or name."""
    body = TenantUpdate(name=name, plan=plan)
    with AdminClient(invocation.home) as client:
        item = client.send("PATCH", object_path("tenants", ref), Tenant, body)
    TENANT.print(invocation, item)


@click.group()
def env() -> None:
    """Environments: isolation scopes of a tenant, with a region and allowed models."""


@env.command("create")
@click.argument("name")
@click.option("--tenant", required=True, help="The tenant it belongs to, id or name.")
@click.option("--region", help="Default: the site's region.")
@click.option("--models", metavar="A,B", help="Deployments its keys may use. Default: all.")
@click.pass_obj
def create_environment(
    invocation: Invocation, name: str, tenant: str, region: str | None, models: str | None
) -> None:
    """Create an environment in a tenant."""
    body = EnvironmentCreate(
        name=name, tenant=tenant, region=region, models=None if models is None else words(models)
    )
    with AdminClient(invocation.home) as client:
        item = client.send("POST", "/v1/environments", Environment, body)
    ENVIRONMENT.print(invocation, item)


@env.command("update")
@click.argument("ref")
@click.option("--tenant", help="Only of this tenant.")
@click.option("--name", help="Its new name.")
@click.option("--region")
@click.option("--models", metavar="A,B", help="Deployments its keys may use; `all` for all.")
@click.pass_obj
def update_environment(
    invocation: Invocation,
    ref: str,
    tenant: str | None,
    name: str | None,
    region: str | None,
    models: str | None,
) -> None:
    """Change an environment. REF is its id or name."""
    every = models == "all"
    body = EnvironmentUpdate(
        name=name,
        region=region,
        models=None if models is None or every else words(models),
        all_models=every,
    )
    path = object_path("environments", ref)
    with AdminClient(invocation.home) as client:
        item = client.send("PATCH", path, Environment, body, {"tenant": tenant})
    ENVIRONMENT.print(invocation, item)


def words(text: str) -> list[str]:
    """`a, b` -> ["a", "b"]."""
    return [word for word in (part.strip() for part in text.split(",")) if word]


add_common(tenant, TENANT)
add_common(env, ENVIRONMENT)
