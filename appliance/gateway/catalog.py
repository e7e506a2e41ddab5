"""`/v1/models` and `/v1/models/{id}`: what a key may use, in the envelope of either family."""

from collections.abc import Sequence
from urllib.parse import unquote

import msgspec

from appliance.domain.clock import iso
from appliance.gateway.access import plain
from appliance.gateway.errors import ModelNotFound
from appliance.gateway.routes import MODELS_PATH
from appliance.registry.snapshot import DeploymentEntry


def listing(entries: Sequence[DeploymentEntry], owned_by: str) -> bytes:
    """All models. The fields of both families stand side by side, as their clients expect."""
    models = [_model(entry, owned_by) for entry in entries]
    return msgspec.json.encode(
        {
            "object": "list",
            "data": models,
            "has_more": False,
            "first_id": models[0]["id"] if models else None,
            "last_id": models[-1]["id"] if models else None,
        }
    )


def single(entries: Sequence[DeploymentEntry], path: str, owned_by: str) -> bytes:
    """One model; its id is the rest of the path and may contain slashes."""
    name = unquote(path.removeprefix(MODELS_PATH + "/"))
    for entry in entries:
        if entry.name == name:
            return msgspec.json.encode(_model(entry, owned_by))
    raise ModelNotFound(f"The model '{plain(name)}' does not exist.", param="model")


def _model(entry: DeploymentEntry, owned_by: str) -> dict[str, object]:
    return {
        "id": entry.name,
        "object": "model",
        "created": entry.created_s,
        "owned_by": owned_by,
        "type": "model",
        "display_name": entry.name,
        "created_at": iso(entry.created_s * 1_000_000_000),
        "max_model_len": entry.context_tokens,
    }
