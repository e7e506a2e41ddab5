"""Deployments: a model, an engine, settings and replicas. The name is what clients ask for."""

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from appliance.domain.ids import DeploymentId, NodeId
from appliance.domain.usage import Operation
from appliance.registry.deployment_rows import (
    API_KEY_CHARS_MAX,
    KIND,
    DeploymentRow,
    Strategy,
    changeable,
    checked,
    context_of,
    needs_new_process,
    row_of,
    settled,
    some,
)
from appliance.registry.engine_settings import DEFAULTS
from appliance.registry.engines import Engine, default_operations, engine_named
from appliance.registry.errors import AlreadyExists, InvalidValue
from appliance.registry.generations import keep_generation
from appliance.registry.models import ModelRow, find_model
from appliance.registry.names import check_model_name, column_of, only
from appliance.registry.nodes import find_node
from appliance.registry.regions import ensure_region
from appliance.registry.replicas import renew_replicas, set_replica_count
from appliance.registry.store import Change, Store
from appliance.security.seal import Seal
from appliance.wire.engine import EngineSettings

_LIVING: Final = (
    "SELECT d.*, m.name AS model_name, m.path AS model_path, m.digest AS model_digest"
    " FROM deployments d LEFT JOIN models m ON m.id = d.model_id WHERE d.deleted_at_ns IS NULL"
)


class Deployments:
    """`ref` is an id or a name."""

    __slots__ = ("_release", "_seal", "_site_region", "_store")

    def __init__(
        self,
        store: Store,
        site_region: str,
        seal: Seal,
        release: Callable[[Change, DeploymentRow], None],
    ) -> None:
        """`release(change, deployment)` raises InUse while others rely on it."""
        self._release = release
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
        settings: EngineSettings | None = None,
        strategy: Strategy = "auto",
        pins: Iterable[str] = (),
        idle_s: int | None = None,
    ) -> DeploymentRow:
        """`model` is a registered model's id or name; `url` is for external only.

        `operations` None: what the engine is known to have. `region` None: the site's.
        What `settings` leave open is as the model's pack has it. `pins` are ids or names of nodes.
        Raises NotFound, InvalidValue, AlreadyExists.
        """
        check_model_name(KIND, name)
        kind = engine_named(engine)

        def run(change: Change) -> DeploymentRow:
            _refuse_taken(change.connection, name)
            weights = None if model is None else find_model(change.connection, model)
            row = checked(
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
                    context_tokens=context_of(context_tokens, weights),
                    embedding=embedding,
                    operations=default_operations(kind, embedding=embedding)
                    if operations is None
                    else some(operations),
                    region=ensure_region(change, region or self._site_region),
                    suspended=False,
                    generation=1,
                    created_at_ns=change.now_ns,
                    settings=settled(settings or DEFAULTS, kind, weights),
                    strategy=strategy,
                    pins=_pins(change.connection, pins),
                    idle_s=idle_s,
                ),
                weights,
            )
            self._insert(change, row, api_key)
            return row

        return await self._store.change(actor, run)

    async def list(self) -> list[DeploymentRow]:
        """By name."""
        return await self._store.read(
            lambda connection: [row_of(r) for r in connection.execute(_LIVING + " ORDER BY d.name")]
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
        model: str | None = None,
        parallel: int | None = None,
        context_tokens: int | None = None,
        url: str | None = None,
        api_key: str | None = None,
        upstream_model: str | None = None,
        operations: Iterable[Operation] | None = None,
        settings: EngineSettings | None = None,
        strategy: Strategy | None = None,
        pins: Iterable[str] | None = None,
        idle_s: int | None = None,
    ) -> DeploymentRow:
        """None leaves a field as it is; "" takes `api_key` or `upstream_model` away.

        `model` is another model's id or name. `pins` () and `idle_s` 0 take theirs away.
        """

        def run(change: Change) -> DeploymentRow:
            before = find_deployment(change.connection, ref)
            weights = _weights(change.connection, before, model)
            after = replace(
                before,
                model_id=None if weights is None else weights.id,
                model_name="" if weights is None else weights.name,
                model_path="" if weights is None else weights.path,
                model_digest="" if weights is None else weights.digest,
                settings=before.settings if settings is None else settings,
                strategy=before.strategy if strategy is None else strategy,
                pins=before.pins if pins is None else _pins(change.connection, pins),
                idle_s=before.idle_s if idle_s is None else idle_s or None,
                replicas=before.replicas if replicas is None else replicas,
                parallel=before.parallel if parallel is None else parallel,
                context_tokens=before.context_tokens if context_tokens is None else context_tokens,
                url=before.url if url is None else url.rstrip("/"),
                has_api_key=before.has_api_key if api_key is None else bool(api_key),
                upstream_model=before.upstream_model
                if upstream_model is None
                else upstream_model or None,
                operations=before.operations if operations is None else some(operations),
            )
            if api_key is not None or needs_new_process(before, after):
                after = replace(after, generation=before.generation + 1)
            checked(after, weights)
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
        """Raises NotFound; InUse while capacity of it is reserved."""

        def run(change: Change) -> None:
            row = find_deployment(change.connection, ref)
            self._release(change, row)
            set_replica_count(change, row.id, row.generation, 0)
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
        columns = {
            "id": row.id,
            "name": row.name,
            "engine": row.engine,
            "embedding": row.embedding,
            "region": row.region,
            "created_at_ns": row.created_at_ns,
            **changeable(row),
        }
        change.connection.execute(
            f"INSERT INTO deployments ({', '.join(columns)})"  # noqa: S608 (our own words)
            f" VALUES ({', '.join('?' * len(columns))})",
            list(columns.values()),
        )
        self._write_api_key(change, row, api_key or "")
        _keep_generation(change, row)
        set_replica_count(change, row.id, row.generation, row.replicas)
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
    return only([row_of(row) for row in rows], KIND, ref)


def _weights(
    connection: sqlite3.Connection, row: DeploymentRow, other: str | None
) -> ModelRow | None:
    ref = row.model_id if other is None else other
    return None if ref is None else find_model(connection, ref)


def _pins(connection: sqlite3.Connection, refs: Iterable[str]) -> tuple[NodeId, ...]:
    return tuple(sorted({find_node(connection, ref).id for ref in refs}))


def _keep_generation(change: Change, row: DeploymentRow) -> None:
    if row.model_id is not None:
        keep_generation(
            change,
            row.id,
            row.generation,
            row.model_id,
            parallel=row.parallel,
            context_tokens=row.context_tokens,
            embedding=row.embedding,
            settings=row.settings,
        )


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
        columns = changeable(after)
        assignments = ", ".join(f"{name} = ?" for name in columns)
        change.connection.execute(
            f"UPDATE deployments SET {assignments} WHERE id = ?",  # noqa: S608 (our own words)
            [*columns.values(), after.id],
        )
        if after.generation != before.generation:
            _keep_generation(change, after)
            if after.engine is Engine.EXTERNAL:
                renew_replicas(change, after.id, after.generation)
        set_replica_count(change, after.id, after.generation, after.replicas)
        change.record(action, KIND, after.id, after.name, before, after)
    return after
