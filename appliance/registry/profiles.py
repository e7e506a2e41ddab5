"""Profiles: what an engine with a model, its settings and certain hardware was seen to need.

Measurements, no configuration: they are written without an entry in the audit, and nothing is told
of them; the next start reads them.
"""

import hashlib
import sqlite3
from dataclasses import astuple, dataclass
from typing import Final

import msgspec

from appliance.registry.generations import Generation
from appliance.registry.store import Change, Store

_COLUMNS: Final = (
    "model_digest, shape, hardware, engine_version, gpu_memory_bytes, loaded_ms, tokens_per_s,"
    " prefill_tokens_per_s, measured_at_ns"
)


@dataclass(frozen=True, slots=True)
class ProfileRow:
    """None: not measured."""

    model_digest: str
    shape: str  # of what is asked of the engine: `shape_of`
    hardware: str  # "2 × NVIDIA A100-SXM4-80GB", "processor"
    engine_version: str
    gpu_memory_bytes: int | None  # over all its GPUs
    loaded_ms: int | None  # from the start of the process to its first token
    tokens_per_s: int | None
    prefill_tokens_per_s: int | None
    measured_at_ns: int


def shape_of(engine: str, generation: Generation) -> str:
    """What of a generation bears on memory and speed, as one word."""
    asked = (
        engine,
        generation.parallel,
        generation.context_tokens,
        generation.embedding,
        msgspec.to_builtins(generation.settings),
    )
    return hashlib.sha256(msgspec.json.encode(asked, order="deterministic")).hexdigest()[:16]


class Profiles:
    __slots__ = ("_store",)

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(self) -> list[ProfileRow]:
        """Newest first."""

        def query(connection: sqlite3.Connection) -> list[ProfileRow]:
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM profiles ORDER BY measured_at_ns DESC"  # noqa: S608 (ours)
            )
            return [ProfileRow(*row) for row in rows]

        return await self._store.read(query)

    async def keep(self, actor: str, row: ProfileRow) -> None:
        """In place of what was known of the same."""

        def run(change: Change) -> None:
            change.connection.execute(
                f"INSERT OR REPLACE INTO profiles ({_COLUMNS})"  # noqa: S608 (our own words)
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                astuple(row),
            )

        await self._store.change(actor, run)
