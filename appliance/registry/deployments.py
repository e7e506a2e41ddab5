"""Deployments: a model, an engine, settings and replicas. The name is what clients ask for."""

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from appliance.domain.ids import DeploymentId, ModelId
from appliance.domain.usage import Operation
from appliance.registry.engines import Engine, default_operations, engine_named
from appliance.registry.errors import AlreadyExists, InvalidValue
from appliance.registry.models import ModelRow, find_model
from appliance.registry.names import check_count, check_model_name, column_of, only
from appliance.registry.regions import ensure_region
from appliance.registry.replicas import set_replica_count
from appliance.registry.store import Change, Store
from appliance.registry.urls import check_url
from appliance.security.seal import Seal

KIND: Final = "deployment"
REPLICAS_MAX: Final = 1_024
PARALLEL_MAX: Final = 1_024
CONTEXT_TOKENS_MAX: Final = 16_777_216
# A context nobody asked for: enough for most conversations, small enough for a small machine.
CONTEXT_TOKENS_DEFAULT: Final = 4_096
API_KEY_CHARS_MAX: Final = 4_096
_LIVING: Final = (
    "SELECT d.*, m.name AS model_name, m.path AS model_path, m.digest AS model_digest"
    " FROM deployments d LEFT JOIN models m ON m.id = d.model_id WHERE d.deleted_at_ns IS NULL"
)


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


class Deployments:
    """`ref` is an id or a name."""

    __slots__ = ("_seal", "_site_region", "_store")

    def __init__(self, store: Store, site_region: str, seal: Seal) -> None:
        self._store = store
        self._site_region = site_region
        self._seal = seal

    async def create(
        self,
        actor: str,
        name: str,
        engine: str,
        *,
        model: str | None = None,
        url: str | None = None,
        api_key: str | None = None,
        upstream_model: str | None = None,
        replicas: int = 1,
        parallel: int = 4,
        context_tokens: int | None = None,
        embedding: bool = False,
        operations: Iterable[Operation] | None = None,
        region: str | None = None,
    ) -> DeploymentRow:
        """`model` is a registered model's id or name (llamacpp); `url` is for external only.

        `operations` None: what the engine is known to have. `region` None: the site's.
        Raises NotFound, InvalidValue, AlreadyExists.
        """
        check_model_name(KIND, name)
        kind = engine_named(engine)

        def run(change: Change) -> DeploymentRow:
            _refuse_taken(change.connection, name)
            weights = None if model is None else find_model(change.connection, model)
            row = _checked(
                DeploymentRow(
                    id=DeploymentId(change.new_id(KIND)),
                    name=name,
                    engine=kind,
                    model_id=None if weights is None else weights.id,
                    model_name="" if weights is None else weights.name,
                    model_path="" if weights is None else weights.path,
                    model_digest="" if weights is None else weights.digest,
                    url=None if url is None else url.rstrip("/"),
                    has_api_key=bool(api_key),
                    upstream_model=upstream_model or None,
                    replicas=replicas,
                    parallel=parallel,
                    context_tokens=_context(context_tokens, weights),
                    embedding=embedding,
                    operations=default_operations(kind, embedding=embedding)
                    if operations is None
                    else _some(operations),
                    region=ensure_region(change, region or self._site_region),
                    suspended=False,
                    generation=1,
                    created_at_ns=change.now_ns,
                ),
                weights,
            )
            self._insert(change, row, api_key)
            return row

        return await self._store.change(actor, run)

    async def list(self) -> list[DeploymentRow]:
        """By name."""
        return await self._store.read(
            lambda connection: [_row(r) for r in connection.execute(_LIVING + " ORDER BY d.name")]
        )

    async def get(self, ref: str) -> DeploymentRow:
        """Raises NotFound."""
        return await self._store.read(lambda connection: find_deployment(connection, ref))

    async def api_key(self, ref: str) -> str | None:
        """The unsealed API key of an external engine, for the fleet alone. Raises SealBroken."""

        def query(connection: sqlite3.Connection) -> str | None:
            row = find_deployment(connection, ref)
            (sealed,) = connection.execute(
                "SELECT sealed_api_key FROM deployments WHERE id = ?", [row.id]
            ).fetchone()
            return None if sealed is None else self._seal.open(sealed, row.id)

        return await self._store.read(query)

    async def update(
        self,
        actor: str,
        ref: str,
        *,
        replicas: int | None = None,
        parallel: int | None = None,
        context_tokens: int | None = None,
        url: str | None = None,
        api_key: str | None = None,
        upstream_model: str | None = None,
        operations: Iterable[Operation] | None = None,
    ) -> DeploymentRow:
        """None leaves a field as it is; "" takes `api_key` or `upstream_model` away."""

        def run(change: Change) -> DeploymentRow:
            before = find_deployment(change.connection, ref)
            weights = _weights(change.connection, before)
            after = replace(
                before,
                replicas=before.replicas if replicas is None else replicas,
                parallel=before.parallel if parallel is None else parallel,
                context_tokens=before.context_tokens if context_tokens is None else context_tokens,
                url=before.url if url is None else url.rstrip("/"),
                has_api_key=before.has_api_key if api_key is None else bool(api_key),
                upstream_model=before.upstream_model
                if upstream_model is None
                else upstream_model or None,
                operations=before.operations if operations is None else _some(operations),
            )
            if api_key is not None or _needs_new_process(before, after):
                after = replace(after, generation=before.generation + 1)
            _checked(after, weights)
            if api_key is not None:
                self._write_api_key(change, after, api_key)
            return _save(change, "update", before, after)

        return await self._store.change(actor, run)

    async def suspend(self, actor: str, ref: str) -> DeploymentRow:
        """Its replicas stop; clients are told it is not there."""
        return await self._set_suspended(actor, "suspend", ref, suspended=True)

    async def resume(self, actor: str, ref: str) -> DeploymentRow:
        return await self._set_suspended(actor, "resume", ref, suspended=False)

    async def delete(self, actor: str, ref: str) -> None:
        """Raises NotFound."""

        def run(change: Change) -> None:
            row = find_deployment(change.connection, ref)
            set_replica_count(change, row.id, 0)
            # The sealed key is of no use any more, and what is not there cannot leak.
            change.connection.execute(
                "UPDATE deployments SET deleted_at_ns = ?, sealed_api_key = NULL WHERE id = ?",
                [change.now_ns, row.id],
            )
            change.record("delete", KIND, row.id, row.name, row, None)

        await self._store.change(actor, run)

    async def _set_suspended(
        self, actor: str, action: str, ref: str, *, suspended: bool
    ) -> DeploymentRow:
        def run(change: Change) -> DeploymentRow:
            before = find_deployment(change.connection, ref)
            return _save(change, action, before, replace(before, suspended=suspended))

        return await self._store.change(actor, run)

    def _insert(self, change: Change, row: DeploymentRow, api_key: str | None) -> None:
        change.connection.execute(
            "INSERT INTO deployments VALUES"
            " (?, ?, ?, ?, ?, NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
            [
                row.id,
                row.name,
                row.engine,
                row.model_id,
                row.url,
                row.upstream_model,
                row.replicas,
                row.parallel,
                row.context_tokens,
                row.embedding,
                _operations_text(row),
                row.region,
                row.suspended,
                row.generation,
                row.created_at_ns,
            ],
        )
        self._write_api_key(change, row, api_key or "")
        set_replica_count(change, row.id, row.replicas)
        change.record("create", KIND, row.id, row.name, None, row)

    def _write_api_key(self, change: Change, row: DeploymentRow, api_key: str) -> None:
        if len(api_key) > API_KEY_CHARS_MAX or not (api_key.isascii() and api_key.isprintable()):
            raise InvalidValue(
                "The engine's API key cannot be sent in a header.",
                next_step="Give it without line breaks and in ASCII.",
            )
        sealed = self._seal.seal(api_key, row.id) if api_key else None
        change.connection.execute(
            "UPDATE deployments SET sealed_api_key = ? WHERE id = ?", [sealed, row.id]
        )


def find_deployment(connection: sqlite3.Connection, ref: str) -> DeploymentRow:
    """The living deployment of that id or name. Raises NotFound."""
    rows = connection.execute(_LIVING + f" AND d.{column_of(ref)} = ?", [ref])
    return only([_row(row) for row in rows], KIND, ref)


def operations_of(text: str) -> frozenset[Operation]:
    """The operations in the column of that name."""
    return frozenset(Operation(name) for name in json.loads(text))


def _operations_text(row: DeploymentRow) -> str:
    return json.dumps(sorted(row.operations))


def _row(row: sqlite3.Row) -> DeploymentRow:
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
    )


def _weights(connection: sqlite3.Connection, row: DeploymentRow) -> ModelRow | None:
    return None if row.model_id is None else find_model(connection, row.model_id)


def _context(asked: int | None, weights: ModelRow | None) -> int | None:
    if asked is not None or weights is None:
        return asked
    return min(weights.context_tokens or CONTEXT_TOKENS_DEFAULT, CONTEXT_TOKENS_DEFAULT)


def _some(asked: Iterable[Operation]) -> frozenset[Operation]:
    operations = frozenset(asked)
    if not operations:
        raise InvalidValue(
            "A deployment needs at least one operation.", next_step="Name one, or leave it out."
        )
    return operations


def _checked(row: DeploymentRow, weights: ModelRow | None) -> DeploymentRow:
    """`row` itself. Raises InvalidValue when its parts do not fit together."""
    check_count("The number of replicas", row.replicas, lowest=0, highest=REPLICAS_MAX)
    check_count("The number of parallel requests", row.parallel, highest=PARALLEL_MAX)
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
    elif row.model_id is None or row.url is not None or row.has_api_key:
        raise InvalidValue(
            f"The engine {row.engine} runs a model of this site.",
            next_step="Give --model, and neither --url nor --api-key.",
        )
    return row


def _needs_new_process(before: DeploymentRow, after: DeploymentRow) -> bool:
    settled = replace(after, replicas=before.replicas, operations=before.operations)
    return settled != before


def _refuse_taken(connection: sqlite3.Connection, name: str) -> None:
    if connection.execute(_LIVING + " AND d.name = ?", [name]).fetchone():
        raise AlreadyExists(
            f"There is a deployment {name!r} already.",
            next_step=f"Choose another name, or change it: `cic deployment update {name}`.",
        )


def _save(
    change: Change, action: str, before: DeploymentRow, after: DeploymentRow
) -> DeploymentRow:
    if after != before:
        change.connection.execute(
            "UPDATE deployments SET url = ?, upstream_model = ?, replicas = ?, parallel = ?,"
            " context_tokens = ?, operations = ?, suspended = ?, generation = ? WHERE id = ?",
            [
                after.url,
                after.upstream_model,
                after.replicas,
                after.parallel,
                after.context_tokens,
                _operations_text(after),
                after.suspended,
                after.generation,
                after.id,
            ],
        )
        set_replica_count(change, after.id, after.replicas)
        change.record(action, KIND, after.id, after.name, before, after)
    return after
