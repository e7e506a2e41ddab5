"""Generations of deployments: what a replica of each is made from.

A change that needs new processes makes a new generation. Replicas of the one before go on serving
with what they were made from, also through a restart, until their successors are ready.
"""

import sqlite3
from dataclasses import dataclass
from typing import Final

import msgspec

from appliance.domain.ids import DeploymentId, ModelId
from appliance.registry.engine_settings import settings_of, settings_text
from appliance.registry.models import NO_FACTS, ModelFacts
from appliance.registry.store import Change, Store
from appliance.wire.engine import EngineSettings

# Only of what lives: an old generation without replicas is history, and the audit has that.
_NEEDED: Final = """SELECT g.*, m.path AS model_path, m.digest AS model_digest,
    m.size_bytes AS model_size_bytes, m.facts AS model_facts
    FROM generations g JOIN models m ON m.id = g.model_id
    JOIN deployments d ON d.id = g.deployment_id AND d.deleted_at_ns IS NULL
    WHERE g.generation = d.generation OR EXISTS (SELECT 1 FROM replicas r
        WHERE r.deployment_id = g.deployment_id AND r.generation = g.generation
        AND r.deleted_at_ns IS NULL)"""


@dataclass(frozen=True, slots=True)
class Generation:
    deployment_id: DeploymentId
    number: int
    model_id: ModelId
    model_path: str
    model_digest: str
    model_size_bytes: int
    parallel: int
    context_tokens: int | None
    embedding: bool
    settings: EngineSettings
    facts: ModelFacts = NO_FACTS  # of its model


class Generations:
    __slots__ = ("_store",)

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(self) -> list[Generation]:
        """The newest of each living deployment, and those that replicas still run."""
        return await self._store.read(
            lambda connection: [_row(row) for row in connection.execute(_NEEDED)]
        )


def keep_generation(
    change: Change,
    deployment_id: DeploymentId,
    number: int,
    model_id: ModelId,
    *,
    parallel: int,
    context_tokens: int | None,
    embedding: bool,
    settings: EngineSettings,
) -> None:
    """Write down what replicas of that generation are made from. It is not changed any more."""
    change.connection.execute(
        "INSERT INTO generations VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            deployment_id,
            number,
            model_id,
            parallel,
            context_tokens,
            embedding,
            settings_text(settings),
        ],
    )


def _row(row: sqlite3.Row) -> Generation:
    return Generation(
        deployment_id=row["deployment_id"],
        number=row["generation"],
        model_id=row["model_id"],
        model_path=row["model_path"],
        model_digest=row["model_digest"],
        model_size_bytes=row["model_size_bytes"],
        parallel=row["parallel"],
        context_tokens=row["context_tokens"],
        embedding=bool(row["embedding"]),
        settings=settings_of(row["settings"]),
        facts=msgspec.json.decode(row["model_facts"], type=ModelFacts),
    )
