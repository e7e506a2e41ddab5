"""Rows of deployments: what one is, from and to its columns, and what its parts must be."""

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, Literal

import msgspec

from appliance.domain.ids import DeploymentId, ModelId, NodeId
from appliance.domain.usage import Operation
from appliance.registry.engine_settings import (
    DEFAULTS,
    check_settings,
    settings_of,
    settings_text,
)
from appliance.registry.engines import Engine
from appliance.registry.errors import InvalidValue
from appliance.registry.models import ModelRow
from appliance.registry.names import check_count
from appliance.registry.urls import check_url
from appliance.wire.engine import EngineSettings

KIND: Final = "deployment"
REPLICAS_MAX: Final = 1_024
PARALLEL_MAX: Final = 1_024
CONTEXT_TOKENS_MAX: Final = 16_777_216
# A context nobody asked for: enough for most conversations, small enough for a small machine.
CONTEXT_TOKENS_DEFAULT: Final = 4_096
API_KEY_CHARS_MAX: Final = 4_096
_GGUF: Final = ".gguf"
IDLE_S_MIN: Final = 10
IDLE_S_MAX: Final = 30 * 86_400

# How replicas are replaced. surge: the new one is ready before the old one goes · recreate: one
# goes before the new one comes · auto: surge wherever there is room for both.
Strategy = Literal["auto", "surge", "recreate"]


@dataclass(frozen=True, slots=True)
class DeploymentRow:
    id: DeploymentId
    name: str
    engine: Engine
    model_id: ModelId | None  # None: external
    model_name: str  # "": external
    model_path: str  # "": external
    model_digest: str  # "": external
    url: str | None  # external only
    has_api_key: bool
    upstream_model: str | None
    replicas: int  # wanted
    parallel: int  # requests one replica works on at once
    context_tokens: int | None  # of one request; None: the engine's own affair (external)
    embedding: bool
    operations: frozenset[Operation]
    region: str
    suspended: bool
    generation: int  # rises with every change that needs a new process or a new connection
    created_at_ns: int
    settings: EngineSettings = DEFAULTS
    strategy: Strategy = "auto"
    pins: tuple[NodeId, ...] = ()  # the only nodes it may run on; (): any
    idle_s: int | None = None  # without a request, before its engines are unloaded; None: never


def operations_of(text: str) -> frozenset[Operation]:
    """The operations in the column of that name."""
    return frozenset(Operation(name) for name in json.loads(text))


def row_of(row: sqlite3.Row) -> DeploymentRow:
    return DeploymentRow(
        id=row["id"],
        name=row["name"],
        engine=Engine(row["engine"]),
        model_id=row["model_id"],
        model_name=row["model_name"] or "",
        model_path=row["model_path"] or "",
        model_digest=row["model_digest"] or "",
        url=row["url"],
        has_api_key=row["sealed_api_key"] is not None,
        upstream_model=row["upstream_model"],
        replicas=row["replicas"],
        parallel=row["parallel"],
        context_tokens=row["context_tokens"],
        embedding=bool(row["embedding"]),
        operations=operations_of(row["operations"]),
        region=row["region"],
        suspended=bool(row["suspended"]),
        generation=row["generation"],
        created_at_ns=row["created_at_ns"],
        settings=settings_of(row["settings"]),
        strategy=row["strategy"],
        pins=tuple(json.loads(row["pins"])),
        idle_s=row["idle_s"],
    )


def context_of(asked: int | None, weights: ModelRow | None) -> int | None:
    if asked is not None or weights is None:
        return asked
    return min(weights.context_tokens or CONTEXT_TOKENS_DEFAULT, CONTEXT_TOKENS_DEFAULT)


def settled(asked: EngineSettings, engine: Engine, weights: ModelRow | None) -> EngineSettings:
    """What was asked for; where nothing was, what the model's publisher recommends."""
    advice = None if weights is None else weights.facts.settings.get(engine.value)
    if advice is None:
        return asked
    names = [field.name for field in msgspec.structs.fields(EngineSettings)]
    left = [name for name in names if getattr(asked, name) == getattr(DEFAULTS, name)]
    return msgspec.structs.replace(asked, **{name: getattr(advice, name) for name in left})


def some(asked: Iterable[Operation]) -> frozenset[Operation]:
    operations = frozenset(asked)
    if not operations:
        raise InvalidValue(
            "A deployment needs at least one operation.", next_step="Name one, or leave it out."
        )
    return operations


def checked(row: DeploymentRow, weights: ModelRow | None) -> DeploymentRow:
    """`row` itself. Raises InvalidValue when its parts do not fit together."""
    check_count("The number of replicas", row.replicas, lowest=0, highest=REPLICAS_MAX)
    check_count("The number of parallel requests", row.parallel, highest=PARALLEL_MAX)
    check_settings(row.engine, row.settings)
    if row.idle_s is not None:
        what = "The seconds without a request"
        check_count(what, row.idle_s, lowest=IDLE_S_MIN, highest=IDLE_S_MAX)
    if row.context_tokens is not None:
        longest = CONTEXT_TOKENS_MAX
        if weights is not None and weights.context_tokens is not None:
            longest = weights.context_tokens
        check_count("A context in tokens", row.context_tokens, highest=longest)
    if row.engine is Engine.EXTERNAL:
        if row.model_id is not None or row.url is None:
            raise InvalidValue(
                "An external engine is reached by its URL and has no model of this site.",
                next_step="Give --url, and no --model.",
            )
        check_url(row.url)
        if row.replicas > 1:
            raise InvalidValue(
                "An external engine is one replica, whatever stands behind its URL.",
                next_step="Give 1, or 0 for none. Another URL is another deployment.",
            )
        if row.pins or row.idle_s is not None:
            raise InvalidValue(
                "An external engine is neither placed nor unloaded by this site.",
                next_step="Leave out --pin and --idle-unload.",
            )
    elif row.model_id is None or row.url is not None or row.has_api_key:
        raise InvalidValue(
            f"The engine {row.engine} runs a model of this site.",
            next_step="Give --model, and neither --url nor --api-key.",
        )
    elif row.engine is not Engine.LLAMACPP and row.model_path.endswith(_GGUF):
        raise InvalidValue(
            f"The model {row.model_name!r} is a GGUF file, which the engine {row.engine} does not"
            " serve well: it lacks its tokenizer.",
            next_step="Use the engine llamacpp, or a folder of safetensors.",
        )
    return row


def needs_new_process(before: DeploymentRow, after: DeploymentRow) -> bool:
    settled = replace(
        after,
        replicas=before.replicas,
        operations=before.operations,
        strategy=before.strategy,
        pins=before.pins,
        idle_s=before.idle_s,
    )
    if before.engine is not Engine.EXTERNAL:  # the gateway alone writes that name
        settled = replace(settled, upstream_model=before.upstream_model)
    return settled != before


def changeable(row: DeploymentRow) -> dict[str, str | int | None]:
    """The columns that may change."""
    return {
        "model_id": row.model_id,
        "url": row.url,
        "upstream_model": row.upstream_model,
        "replicas": row.replicas,
        "parallel": row.parallel,
        "context_tokens": row.context_tokens,
        "operations": json.dumps(sorted(row.operations)),
        "suspended": row.suspended,
        "generation": row.generation,
        "settings": settings_text(row.settings),
        "strategy": row.strategy,
        "pins": json.dumps(row.pins),
        "idle_s": row.idle_s,
    }
