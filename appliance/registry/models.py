"""Models: named weights on this site, known by the SHA-256 of their file or list of files."""

import sqlite3
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from appliance.domain.ids import ModelId
from appliance.registry.errors import AlreadyExists, InUse, InvalidValue
from appliance.registry.names import check_model_name, column_of, only
from appliance.registry.store import Change, Store
from appliance.registry.weights import GGUF, Progress, Weights, read_off_loop
from appliance.wire.agent import EngineKind, ModelFile
from appliance.wire.engine import EngineSettings

KIND: Final = "model"
TEXT_CHARS_MAX: Final = 200
_EVERY: Final = (
    "SELECT id, name, path, digest, size_bytes, family, licence, architecture, context_tokens,"
    " suspended, created_at_ns, files, facts FROM models"
)
_LIVING: Final = _EVERY + " WHERE deleted_at_ns IS NULL"


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a model's pack says beside its weights. Empty: nothing."""

    version: str = ""
    publisher: str = ""  # id of the key that signed the pack
    minimum_driver: str = ""  # of the GPUs, as "550.54"
    probe_prompt: str = ""  # the golden prompt: what it must be able to answer once it is loaded
    probe_answer: str = ""  # what its answer must contain; "": any token will do
    gpu_memory_bytes: int | None = None  # that it needs, as the publisher says
    settings: dict[EngineKind, EngineSettings] = {}  # for deployments that say nothing else


NO_FACTS: Final = ModelFacts()


@dataclass(frozen=True, slots=True)
class ModelRow:
    id: ModelId
    name: str
    path: str  # a GGUF file, or a folder with safetensors
    digest: str  # "sha256:<hex>"
    size_bytes: int
    family: str
    licence: str
    architecture: str  # from the file: "llama", "bert", …
    context_tokens: int | None  # the model was trained for; None: the file does not say
    suspended: bool
    created_at_ns: int
    files: tuple[ModelFile, ...] = ()  # names relative to the folder they are in
    facts: ModelFacts = NO_FACTS

    @property
    def entry(self) -> str:
        """What engines open within the model's folder: a file's name, or "" for the folder."""
        return Path(self.path).name if self.path.endswith(GGUF) else ""

    @property
    def folder(self) -> Path:
        """Where `files` are."""
        return Path(self.path).parent if self.entry else Path(self.path)


class Models:
    """`ref` is an id or a name."""

    __slots__ = ("_store",)

    def __init__(self, store: Store) -> None:
        self._store = store

    async def register(
        self,
        actor: str,
        name: str | None,
        path: Path,
        *,
        family: str = "",
        licence: str = "",
        progress: Progress | None = None,
    ) -> ModelRow:
        """Read and hash the file or folder, off the event loop, and register it.

        `name` None: the file's name without `.gguf`; a model of that name with the same path
        and digest is returned as it is. Raises ModelUnreadable, InvalidValue, AlreadyExists.
        """
        named = check_model_name(KIND, path.name.removesuffix(GGUF) if name is None else name)
        _check_texts(family, licence)
        weights = await read_off_loop(path, progress)
        return await self.enter(
            actor, named, weights, family=family, licence=licence, again=name is None
        )

    async def enter(
        self,
        actor: str,
        name: str,
        weights: Weights,
        *,
        family: str = "",
        licence: str = "",
        facts: ModelFacts = NO_FACTS,
        again: bool = True,
    ) -> ModelRow:
        """Register weights that were read already.

        `again`: a model of that name with the same path and digest is returned as it is.
        Raises InvalidValue, AlreadyExists.
        """
        named = check_model_name(KIND, name)
        _check_texts(family, licence, facts.version, facts.minimum_driver)

        def run(change: Change) -> ModelRow:
            known = _named(change.connection, named)
            if known is not None:
                if again and (known.path, known.digest) == (str(weights.path), weights.digest):
                    return known
                raise _taken(named)
            row = ModelRow(
                id=ModelId(change.new_id(KIND)),
                name=named,
                path=str(weights.path),
                digest=weights.digest,
                size_bytes=weights.size_bytes,
                family=family or weights.header.architecture,
                licence=licence,
                architecture=weights.header.architecture,
                context_tokens=weights.header.context_tokens,
                suspended=False,
                created_at_ns=change.now_ns,
                files=weights.files,
                facts=facts,
            )
            _insert(change, row)
            return row

        return await self._store.change(actor, run)

    async def list(self) -> list[ModelRow]:
        """By name."""
        return await self._store.read(
            lambda connection: [_row(r) for r in connection.execute(_LIVING + " ORDER BY name")]
        )

    async def known(self) -> dict[ModelId, ModelRow]:
        """Every model that ever was: replicas of an older generation may still run one."""
        return await self._store.read(
            lambda connection: {row["id"]: _row(row) for row in connection.execute(_EVERY)}
        )

    async def get(self, ref: str) -> ModelRow:
        """Raises NotFound."""
        return await self._store.read(lambda connection: find_model(connection, ref))

    async def update(
        self,
        actor: str,
        ref: str,
        *,
        name: str | None = None,
        family: str | None = None,
        licence: str | None = None,
    ) -> ModelRow:
        """None leaves a field as it is."""
        _check_texts(family or "", licence or "")

        def run(change: Change) -> ModelRow:
            before = find_model(change.connection, ref)
            if name is not None and name != before.name:
                check_model_name(KIND, name)
                if _named(change.connection, name) is not None:
                    raise _taken(name)
            after = replace(
                before,
                name=name or before.name,
                family=before.family if family is None else family,
                licence=before.licence if licence is None else licence,
            )
            return _save(change, "update", before, after)

        return await self._store.change(actor, run)

    async def suspend(self, actor: str, ref: str) -> ModelRow:
        """Suspends its deployments for clients as well."""
        return await self._set_suspended(actor, "suspend", ref, suspended=True)

    async def resume(self, actor: str, ref: str) -> ModelRow:
        return await self._set_suspended(actor, "resume", ref, suspended=False)

    async def delete(self, actor: str, ref: str) -> None:
        """Forgets the model; its file stays. Raises InUse while a living deployment has it."""

        def run(change: Change) -> None:
            row = find_model(change.connection, ref)
            users = change.connection.execute(
                "SELECT name FROM deployments WHERE model_id = ? AND deleted_at_ns IS NULL"
                " ORDER BY name",
                [row.id],
            ).fetchall()
            if users:
                names = ", ".join(user["name"] for user in users)
                raise InUse(
                    f"The model {row.name!r} is deployed as {names}.",
                    next_step=f"Delete the deployment first: "
                    f"`cic deployment delete {users[0]['name']}`.",
                )
            change.connection.execute(
                "UPDATE models SET deleted_at_ns = ? WHERE id = ?", [change.now_ns, row.id]
            )
            change.record("delete", KIND, row.id, row.name, row, None)

        await self._store.change(actor, run)

    async def _set_suspended(
        self, actor: str, action: str, ref: str, *, suspended: bool
    ) -> ModelRow:
        def run(change: Change) -> ModelRow:
            before = find_model(change.connection, ref)
            return _save(change, action, before, replace(before, suspended=suspended))

        return await self._store.change(actor, run)


def find_model(connection: sqlite3.Connection, ref: str) -> ModelRow:
    """The living model of that id or name. Raises NotFound."""
    rows = connection.execute(_LIVING + f" AND {column_of(ref)} = ?", [ref])
    return only([_row(row) for row in rows], KIND, ref)


def _row(row: sqlite3.Row) -> ModelRow:
    plain = ModelRow(*row)
    files = msgspec.json.decode(row["files"], type=tuple[ModelFile, ...])
    if not files:  # registered before models of several files
        sha256 = plain.digest.removeprefix("sha256:")
        name = Path(plain.path).name
        files = (ModelFile(name=name, sha256=sha256, size_bytes=plain.size_bytes),)
    facts = msgspec.json.decode(row["facts"], type=ModelFacts)
    return replace(plain, suspended=bool(row["suspended"]), files=files, facts=facts)


def _named(connection: sqlite3.Connection, name: str) -> ModelRow | None:
    row = connection.execute(_LIVING + " AND name = ?", [name]).fetchone()
    return None if row is None else _row(row)


def _taken(name: str) -> AlreadyExists:
    return AlreadyExists(
        f"There is a model {name!r} already.",
        next_step=f"Choose another name, or see `cic model show {name}`.",
    )


def _check_texts(*texts: str) -> None:
    for text in texts:
        if len(text) > TEXT_CHARS_MAX or not (text.isprintable() or text == ""):
            raise InvalidValue(
                "The family or licence is not acceptable.",
                next_step=f"Give one line of at most {TEXT_CHARS_MAX} characters.",
            )


def _insert(change: Change, row: ModelRow) -> None:
    columns = {
        "id": row.id,
        "name": row.name,
        "path": row.path,
        "digest": row.digest,
        "size_bytes": row.size_bytes,
        "family": row.family,
        "licence": row.licence,
        "architecture": row.architecture,
        "context_tokens": row.context_tokens,
        "suspended": row.suspended,
        "created_at_ns": row.created_at_ns,
        "files": msgspec.json.encode(row.files).decode(),
        "facts": msgspec.json.encode(row.facts).decode(),
    }
    change.connection.execute(
        f"INSERT INTO models ({', '.join(columns)})"  # noqa: S608 (our own words)
        f" VALUES ({', '.join('?' * len(columns))})",
        list(columns.values()),
    )
    change.record("create", KIND, row.id, row.name, None, row)


def _save(change: Change, action: str, before: ModelRow, after: ModelRow) -> ModelRow:
    if after != before:
        change.connection.execute(
            "UPDATE models SET name = ?, family = ?, licence = ?, suspended = ? WHERE id = ?",
            [after.name, after.family, after.licence, after.suspended, after.id],
        )
        change.record(action, KIND, after.id, after.name, before, after)
    return after
