"""What goes with a tenant or an environment when it is deleted, and what keeps a deployment."""

from appliance.registry.api_keys import delete_key, keys_of
from appliance.registry.deployment_rows import DeploymentRow
from appliance.registry.environments import EnvironmentRow, environments_of, retire_environment
from appliance.registry.errors import InUse
from appliance.registry.reservations import end_reservations, reservations_of
from appliance.registry.store import Change
from appliance.registry.tenants import TenantRow


def empty_tenant(change: Change, tenant: TenantRow, cascade: bool) -> None:  # noqa: FBT001 (an injected step)
    """Delete the tenant's environments and keys; InUse unless `cascade`."""
    environments = environments_of(change.connection, tenant.id)
    if environments and not cascade:
        raise InUse(
            f"The tenant {tenant.name!r} is not empty (environments: {len(environments)}).",
            next_step="Delete those first, or delete it with all it has (--cascade), or suspend "
            f"it: `cic tenant suspend {tenant.name}`.",
        )
    for environment in environments:
        empty_environment(change, environment, cascade)
        retire_environment(change, environment)
    end_reservations(change, tenant_id=tenant.id)


def empty_environment(change: Change, environment: EnvironmentRow, cascade: bool) -> None:  # noqa: FBT001 (an injected step)
    """Delete the environment's keys; InUse unless `cascade`."""
    keys = keys_of(change.connection, environment.id)
    if keys and not cascade:
        raise InUse(
            f"The environment {environment.name!r} is not empty (API keys: {len(keys)}).",
            next_step="Delete those first, or delete it with all it has (--cascade), or suspend "
            f"it: `cic env suspend {environment.name} --tenant {environment.tenant_name}`.",
        )
    for key in keys:
        delete_key(change, key)
    end_reservations(change, environment_id=environment.id)


def release_deployment(change: Change, deployment: DeploymentRow) -> None:
    """Raise InUse while the deployment has promises to keep."""
    promises = reservations_of(change.connection, change.now_ns, deployment.id)
    if promises:
        raise InUse(
            f"Capacity of {deployment.name!r} is reserved (reservations: {promises}).",
            next_step="See `cic reservation list`; end them first with `cic reservation end ID`.",
        )
