"""Models and deployments: what is wanted, from the registry, and what is, from the fleet."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from appliance.admin.calls import Call, NoQuery, Services
from appliance.admin.errors import BadRequest
from appliance.admin.ports import DeploymentLive
from appliance.admin.tenants import state_word
from appliance.domain.clock import iso
from appliance.domain.ids import NodeId
from appliance.domain.usage import Operation
from appliance.registry.deployment_rows import DeploymentRow
from appliance.registry.models import ModelRow
from appliance.wire.engine import EngineSettings
from appliance.wire.fleet import (
    Deployment,
    DeploymentCreate,
    DeploymentUpdate,
    Model,
    ModelCreate,
    ModelUpdate,
)


def model_view(row: ModelRow) -> Model:
    return Model(
        id=row.id,
        name=row.name,
        path=row.path,
        digest=row.digest,
        size_bytes=row.size_bytes,
        family=row.family,
        licence=row.licence,
        state=state_word(suspended=row.suspended),
        created_at=iso(row.created_at_ns),
        files=len(row.files),
        architecture=row.architecture,
        context_tokens=row.context_tokens,
        version=row.facts.version,
        publisher=row.facts.publisher,
        minimum_driver=row.facts.minimum_driver,
        golden=bool(row.facts.probe_prompt),
    )


def deployment_view(
    row: DeploymentRow,
    live: DeploymentLive | None,
    names: Mapping[NodeId, str],
    *,
    model_suspended: bool = False,
) -> Deployment:
    """A suspended deployment is shown as such, whatever its processes still do.

    What was resumed or was given replicas a moment ago is pending until the fleet has heard of it.
    `names` are those of nodes.
    """
    if live is None:
        live = DeploymentLive("pending", "not started yet", ())
    resumed = live.state == "suspended" and not row.suspended
    if resumed or (live.state == "pending" and row.replicas > 0 and not live.replicas):
        live = replace(live, state="pending", reason="not started yet")
    if row.suspended:
        live = replace(live, state="suspended", reason="")
    elif model_suspended:
        reason = f"Its model is suspended: `cic model resume {row.model_name}`."
        live = replace(live, state="suspended", reason=reason)
    return Deployment(
        id=row.id,
        name=row.name,
        engine=row.engine.value,
        model=row.model_name,
        url=row.url,
        has_api_key=row.has_api_key,
        upstream_model=row.upstream_model,
        replicas_wanted=row.replicas,
        parallel=row.parallel,
        context_tokens=row.context_tokens,
        embedding=row.embedding,
        operations=sorted(operation.value for operation in row.operations),
        region=row.region,
        state=live.state,
        reason=live.reason,
        replicas=list(live.replicas),
        created_at=iso(row.created_at_ns),
        settings=row.settings,
        strategy=row.strategy,
        pins=tuple(names.get(node_id, node_id) for node_id in row.pins),
        idle_s=row.idle_s,
        generation=row.generation,
    )


async def _all_with_live(services: Services, rows: Sequence[DeploymentRow]) -> list[Deployment]:
    suspended = {row.id for row in await services.registry.models.list() if row.suspended}
    names = {row.id: row.name for row in await services.registry.nodes.list()}
    return [
        deployment_view(
            row,
            services.live.deployment(row.id),
            names,
            model_suspended=row.model_id in suspended,
        )
        for row in rows
    ]


async def _with_live(services: Services, row: DeploymentRow) -> Deployment:
    (view,) = await _all_with_live(services, [row])
    return view


async def list_models(services: Services, _call: Call[NoQuery, None]) -> list[Model]:
    return [model_view(row) for row in await services.registry.models.list()]


async def create_model(services: Services, call: Call[NoQuery, ModelCreate]) -> Model:
    body = call.body
    return model_view(
        await services.registry.models.register(
            call.actor,
            body.name,
            _absolute(body.path),
            family=body.family,
            licence=body.licence,
        )
    )


async def show_model(services: Services, call: Call[NoQuery, None]) -> Model:
    return model_view(await services.registry.models.get(call.ref))


async def update_model(services: Services, call: Call[NoQuery, ModelUpdate]) -> Model:
    body = call.body
    return model_view(
        await services.registry.models.update(
            call.actor, call.ref, name=body.name, family=body.family, licence=body.licence
        )
    )


async def suspend_model(services: Services, call: Call[NoQuery, None]) -> Model:
    return model_view(await services.registry.models.suspend(call.actor, call.ref))


async def resume_model(services: Services, call: Call[NoQuery, None]) -> Model:
    return model_view(await services.registry.models.resume(call.actor, call.ref))


async def delete_model(services: Services, call: Call[NoQuery, None]) -> None:
    await services.registry.models.delete(call.actor, call.ref)


async def list_deployments(services: Services, _call: Call[NoQuery, None]) -> list[Deployment]:
    return await _all_with_live(services, await services.registry.deployments.list())


async def create_deployment(
    services: Services, call: Call[NoQuery, DeploymentCreate]
) -> Deployment:
    body = call.body
    model = await _model(services, call.actor, body.model)
    row = await services.registry.deployments.create(
        call.actor,
        body.name,
        body.engine,
        model=model,
        url=body.url,
        api_key=body.api_key,
        upstream_model=body.upstream_model,
        replicas=body.replicas,
        parallel=body.parallel,
        context_tokens=body.context_tokens,
        embedding=body.embedding,
        operations=_operations(body.operations),
        region=body.region,
        settings=body.settings,
        strategy=body.strategy,
        pins=body.pins,
        idle_s=body.idle_s,
    )
    return await _with_live(services, row)


async def show_deployment(services: Services, call: Call[NoQuery, None]) -> Deployment:
    return await _with_live(services, await services.registry.deployments.get(call.ref))


async def update_deployment(
    services: Services, call: Call[NoQuery, DeploymentUpdate]
) -> Deployment:
    body = call.body
    row = await services.registry.deployments.update(
        call.actor,
        call.ref,
        replicas=body.replicas,
        model=await _model(services, call.actor, body.model),
        parallel=body.parallel,
        context_tokens=body.context_tokens,
        url=body.url,
        api_key=body.api_key,
        upstream_model=body.upstream_model,
        operations=_operations(body.operations),
        settings=await _merged(services, call.ref, body.settings),
        strategy=body.strategy,
        pins=body.pins,
        idle_s=body.idle_s,
    )
    return await _with_live(services, row)


async def suspend_deployment(services: Services, call: Call[NoQuery, None]) -> Deployment:
    return await _with_live(
        services, await services.registry.deployments.suspend(call.actor, call.ref)
    )


async def resume_deployment(services: Services, call: Call[NoQuery, None]) -> Deployment:
    return await _with_live(
        services, await services.registry.deployments.resume(call.actor, call.ref)
    )


async def delete_deployment(services: Services, call: Call[NoQuery, None]) -> None:
    await services.registry.deployments.delete(call.actor, call.ref)


async def _model(services: Services, actor: str, ref: str | None) -> str | None:
    """A path registers the model as well."""
    if ref is None or not ref.startswith("/"):
        return ref
    return (await services.registry.models.register(actor, None, Path(ref))).id


async def _merged(
    services: Services, ref: str, changes: dict[str, Any] | None
) -> EngineSettings | None:
    """The settings of a deployment with some of them changed."""
    if not changes:
        return None
    before = (await services.registry.deployments.get(ref)).settings
    plain = {name: value for name, value in changes.items() if value is not None}
    kept = {k: v for k, v in msgspec.to_builtins(before).items() if k not in changes}
    try:
        return msgspec.convert(kept | plain, EngineSettings)
    except msgspec.ValidationError as error:
        raise BadRequest(
            f"settings: {error}.", next_step="docs/ENGINES.md names the settings of each engine."
        ) from error


def _absolute(text: str) -> Path:
    path = Path(text)
    if not path.is_absolute():
        raise BadRequest(
            f"path: {text!r} is not absolute.",
            next_step="The appliance runs in a folder of its own: write the path from / on.",
        )
    return path


def _operations(names: list[str] | None) -> list[Operation] | None:
    if names is None:
        return None
    try:
        return [Operation(name) for name in names]
    except ValueError as error:
        raise BadRequest(
            f"operations: {error}.",
            next_step=f"Operations: {', '.join(operation.value for operation in Operation)}.",
        ) from error
