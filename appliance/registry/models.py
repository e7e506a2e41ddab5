"""Models: named weights on this site, known by the SHA-256 of their file."""

import asyncio
import hashlib
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from appliance.domain.ids import ModelId
from appliance.registry.errors import AlreadyExists, InUse, InvalidValue, ModelUnreadable
from appliance.registry.gguf import Header, NotGGUF, read_header
from appliance.registry.names import check_model_name, column_of, only
from appliance.registry.store import Change, Store

# Bytes read so far and in all. Called from another thread than the event loop's.
Progress = Callable[[int, int], None]

KIND: Final = "model"
TEXT_CHARS_MAX: Final = 200
_CHUNK_BYTES: Final = 4 * 1024 * 1024
_LIVING: Final = (
    "SELECT id, name, path, digest, size_bytes, family, licence, architecture, context_tokens,"
    " suspended, created_at_ns FROM models WHERE deleted_at_ns IS NULL"
)


@dataclass(frozen=True, slots=True)
class ModelRow:
    id: ModelId
    name: str
    path: str
    digest: str  # "sha256:<hex>"
    size_bytes: int
    family: str
    licence: str
    architecture: str  # from the file: "llama", "bert", …
    context_tokens: int | None  # the model was trained for; None: the file does not say
    suspended: bool
    created_at_ns: int


@dataclass(frozen=True, slots=True)
class Weights:
    """What was read from a model's file."""

    path: Path
    header: Header
    digest: str
    size_bytes: int


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
        """Read and hash the GGUF file, off the event loop, and register it.

        `name` None: the file's name without `.gguf`; a model of that name with the same path
        and digest is returned as it is. Raises ModelUnreadable, InvalidValue, AlreadyExists.
        """
        named = check_model_name(KIND, path.name.removesuffix(".gguf") if name is None else name)
        _check_texts(family, licence)
        weights = await _read_off_loop(path, progress)

        def run(change: Change) -> ModelRow:
            known = _named(change.connection, named)
            if known is not None:
                if name is None and (known.path, known.digest) == (str(path), weights.digest):
                    return known
                raise _taken(named)
            row = ModelRow(
                id=ModelId(change.new_id(KIND)),
                name=named,
                path=str(path),
                digest=weights.digest,
                size_bytes=weights.size_bytes,
                family=family or weights.header.architecture,
                licence=licence,
                architecture=weights.header.architecture,
                context_tokens=weights.header.context_tokens,
                suspended=False,
                created_at_ns=change.now_ns,
            )
            _insert(change, row)
            return row

        return await self._store.change(actor, run)

    async def list(self) -> list[ModelRow]:
        """By name."""
        return await self._store.read(
            lambda connection: [_row(r) for r in connection.execute(_LIVING + " ORDER BY name")]
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


def read_weights(path: Path, progress: Progress | None, stop: threading.Event) -> Weights:
    """Read the header and the digest of a GGUF file; blocks. Raises ModelUnreadable.

    Ends early, with whatever it has, when `stop` is set: then nobody waits for the answer.
    """
    if not path.is_absolute():
        raise InvalidValue(
            f"The path {path} is not complete.", next_step="Give it from the root: /…/model.gguf."
        )
    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "is not there"
            raise ModelUnreadable(
                f"The model file {path} {what}.", next_step="Give the path of a .gguf file."
            )
        header = read_header(path)
        if header.split_count > 1:
            raise ModelUnreadable(
                f"The model is spread over {header.split_count} files, of which {path} is one.",
                next_step="Merge them with `llama-gguf-split --merge` and give the merged file.",
            )
        digest, size_bytes = _digest(path, progress, stop)
    except NotGGUF as error:
        raise ModelUnreadable(
            f"{path} is not a whole GGUF model: {error}.",
            next_step="Compare its size and checksum with the source, or get the file again.",
        ) from error
    except OSError as error:
        raise ModelUnreadable(
            f"Cannot read the model {path}: {error.strerror}.",
            next_step="Check that the appliance's account may read the file and its folders.",
        ) from error
    return Weights(path, header, digest, size_bytes)


async def _read_off_loop(path: Path, progress: Progress | None) -> Weights:
    stop = threading.Event()
    try:
        return await asyncio.to_thread(read_weights, path, progress, stop)
    finally:
        stop.set()


def _digest(path: Path, progress: Progress | None, stop: threading.Event) -> tuple[str, int]:
    size_bytes, done = path.stat().st_size, 0
    hasher = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while not stop.is_set() and (chunk := file.read(_CHUNK_BYTES)):
            hasher.update(chunk)
            done += len(chunk)
            if progress is not None:
                progress(done, size_bytes)
    return f"sha256:{hasher.hexdigest()}", done


def _row(row: sqlite3.Row) -> ModelRow:
    return replace(ModelRow(*row), suspended=bool(row["suspended"]))


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
    change.connection.execute(
        "INSERT INTO models VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
        [
            row.id,
            row.name,
            row.path,
            row.digest,
            row.size_bytes,
            row.family,
            row.licence,
            row.architecture,
            row.context_tokens,
            row.suspended,
            row.created_at_ns,
        ],
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
