"""Models: those that are registered, packs, the catalogue, the store; and the routes to all."""

from pathlib import Path
from typing import Final

from appliance.admin import deployments
from appliance.admin.calls import Call, NoQuery, Route, Services
from appliance.admin.errors import BadRequest
from appliance.modelpacks.catalogue import view
from appliance.modelpacks.store import Look
from appliance.wire.fleet import Model, ModelCreate, ModelUpdate
from appliance.wire.models import (
    CatalogueModel,
    PackBring,
    PackCopying,
    PackLookAt,
    PackSeen,
    StoreSweep,
    StoreSwept,
)


async def list_catalogue(services: Services, _call: Call[NoQuery, None]) -> list[CatalogueModel]:
    return [view(entry) for entry in await services.packs.catalogue()]


async def look_at_pack(services: Services, call: Call[NoQuery, PackLookAt]) -> PackSeen:
    return _seen(await services.packs.look(_absolute(call.body.path)))


async def bring_pack(services: Services, call: Call[NoQuery, PackBring]) -> Model:
    body = call.body
    return deployments.model_view(
        await services.packs.bring(
            call.actor,
            _absolute(body.path),
            name=body.name,
            publisher=body.publisher,
            licence=body.licence_sha256,
        )
    )


async def show_copying(services: Services, _call: Call[NoQuery, None]) -> PackCopying:
    copying = services.packs.copying
    if copying is None:
        return PackCopying(model="", done_bytes=0, total_bytes=0, resumed_bytes=0)
    return PackCopying(
        model=copying.model,
        done_bytes=copying.done_bytes,
        total_bytes=copying.total_bytes,
        resumed_bytes=copying.resumed_bytes,
    )


async def sweep_store(services: Services, call: Call[NoQuery, StoreSweep]) -> StoreSwept:
    dry = call.body.dry_run
    models, freed = await services.packs.sweep(services.clock.wall_ns(), dry=dry)
    return StoreSwept(models=list(models), freed_bytes=freed, dry_run=dry)


def _seen(look: Look) -> PackSeen:
    index = look.index
    licence = index.licence
    return PackSeen(
        name=index.name,
        version=index.version,
        family=index.family,
        architecture=index.architecture,
        context_tokens=index.context_tokens,
        digest=index.digest,
        size_bytes=index.size_bytes,
        files=len(index.files),
        licence="" if licence is None else licence.name,
        licence_text=look.licence_text,
        licence_sha256="" if licence is None else licence.acceptance_sha256,
        licence_accepted=look.licence_accepted,
        publisher=look.publisher.key_id,
        publisher_trusted=look.trusted,
        minimum_driver=index.minimum_driver,
        golden=index.golden is not None,
    )


def _absolute(path: str) -> Path:
    if not path.startswith("/") or "\0" in path:
        raise BadRequest(f"The path {path!r} is not complete.", next_step="Give it from the root.")
    return Path(path)


# Those of packs and the store before those of one model: none of them is the name of one.
ROUTES: Final = (
    Route("GET", "/v1/models", "List models", deployments.list_models, list[Model]),
    Route(
        *("POST", "/v1/models", "Register a model's file", deployments.create_model, Model),
        body=ModelCreate,
        status=201,
        grows=True,
    ),
    Route(
        *("GET", "/v1/models/catalogue", "Models that are known to run well"),
        *(list_catalogue, list[CatalogueModel]),
    ),
    Route(
        *("POST", "/v1/models/packs/look", "What a model pack says of itself, verified"),
        *(look_at_pack, PackSeen),
        body=PackLookAt,
        role="operator",
    ),
    Route(
        *("POST", "/v1/models/packs", "Import a model pack; answers when it is in the store"),
        *(bring_pack, Model),
        body=PackBring,
        status=201,
        grows=True,
    ),
    Route(
        *("GET", "/v1/models/packs/copying", "How far the import under way is"),
        *(show_copying, PackCopying),
    ),
    Route(
        *("POST", "/v1/models/gc", "Remove from the store what no registered model needs"),
        *(sweep_store, StoreSwept),
        body=StoreSweep,
    ),
    Route("GET", "/v1/models/{ref}", "Show a model", deployments.show_model, Model),
    Route(
        *("PATCH", "/v1/models/{ref}", "Change a model", deployments.update_model, Model),
        body=ModelUpdate,
        grows=True,
    ),
    Route(
        *("DELETE", "/v1/models/{ref}", "Forget a model; its file stays"),
        *(deployments.delete_model, None),
    ),
    Route(
        *("POST", "/v1/models/{ref}/suspend", "Suspend a model"),
        *(deployments.suspend_model, Model),
        role="operator",
    ),
    Route(
        *("POST", "/v1/models/{ref}/resume", "Resume a model"),
        *(deployments.resume_model, Model),
        role="operator",
    ),
)
