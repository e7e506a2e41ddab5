"""Make a model pack: hash the files, sign the index, write everything into one file."""

import hashlib
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from appliance.modelpacks.container import END, FILES, INDEX, LICENCE, PUBLISHER, header, padding
from appliance.modelpacks.errors import BadPack, PackNotWritten
from appliance.modelpacks.index import (
    LICENCE_BYTES_MAX,
    Golden,
    Licence,
    PackIndex,
    check_index,
    sign_index,
)
from appliance.registry.errors import RegistryError
from appliance.registry.names import check_model_name
from appliance.registry.weights import Progress, Source, digest_of, hash_files
from appliance.security.signing import SigningKey
from appliance.wire.agent import EngineKind
from appliance.wire.engine import EngineSettings
from appliance.wire.model_store import CHUNK_BYTES

LICENCE_NAMES: Final = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "LICENCE.txt")
UNNAMED_LICENCE: Final = "as in its text"


@dataclass(frozen=True, slots=True)
class About:
    """What a pack says of its model beside the files."""

    name: str
    created_at: str  # ISO 8601, UTC
    version: str = ""
    family: str = ""
    licence: str = ""
    licence_text: bytes = b""
    minimum_driver: str = ""
    gpu_memory_bytes: int | None = None
    settings: tuple[tuple[EngineKind, EngineSettings], ...] = ()
    golden: Golden | None = None


def find_licence(folder: Path) -> bytes:
    """The licence's text that lies beside a model; b"" where there is none. Raises OSError."""
    for name in LICENCE_NAMES:
        path = folder / name
        if path.is_file() and path.stat().st_size <= LICENCE_BYTES_MAX:
            return path.read_bytes()
    return b""


def make_pack(
    source: Source,
    about: About,
    key: SigningKey,
    out: Path,
    progress: Progress | None = None,
) -> PackIndex:
    """Write the pack at `out`, whole or not at all; blocks. Raises PackNotWritten.

    Every file is read twice: the index stands before the files, so that a reader knows what to
    expect of each byte. `progress` counts both.
    """
    if out.exists():
        raise PackNotWritten(
            f"{out} is there already.", next_step="Name another file; nothing was overwritten."
        )
    try:
        index = _index(source, about, progress)
        _check(index)
        draft = out.with_name(f".{out.name}.new")
        draft.unlink(missing_ok=True)
        try:
            with draft.open("xb") as file:
                _write(file, source, about, index, key, progress)
                file.flush()
                os.fsync(file.fileno())
            draft.rename(out)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise PackNotWritten(
            f"Cannot write the pack {out}: {error.strerror}.",
            next_step="Check that the model can be read and the disk has room for it.",
        ) from error
    return index


def _check(index: PackIndex) -> None:
    """What every site would refuse is not written."""
    try:
        check_model_name("model", index.name)
        check_index(index)
    except (BadPack, RegistryError) as error:
        raise PackNotWritten(
            f"Sites would refuse this pack: {error.message}",
            next_step="docs/MODELS.md has the bounds of names, files and texts.",
        ) from error


def _index(source: Source, about: About, progress: Progress | None) -> PackIndex:
    def first_half(done: int, total: int) -> None:
        if progress is not None:
            progress(done, 2 * total)

    files = hash_files(source, first_half, threading.Event())
    licence = None
    if about.licence or about.licence_text:
        text = about.licence_text
        name = about.licence or UNNAMED_LICENCE
        licence = Licence(name, hashlib.sha256(text).hexdigest(), len(text))
    return PackIndex(
        name=about.name,
        version=about.version,
        family=about.family or source.header.architecture,
        architecture=source.header.architecture,
        context_tokens=source.header.context_tokens,
        digest=digest_of(files, source.entry),
        entry=source.entry,
        files=files,
        licence=licence,
        minimum_driver=about.minimum_driver,
        gpu_memory_bytes=about.gpu_memory_bytes,
        settings=dict(about.settings),
        golden=about.golden,
        created_at=about.created_at,
    )


def _write(
    out: BinaryIO,
    source: Source,
    about: About,
    index: PackIndex,
    key: SigningKey,
    progress: Progress | None,
) -> None:
    _member(out, PUBLISHER, key.public.pem.encode())
    _member(out, INDEX, sign_index(index, key))
    if about.licence_text:
        _member(out, LICENCE, about.licence_text)
    total = index.size_bytes
    written = 0
    for one in index.files:
        hasher, size = hashlib.sha256(), 0
        out.write(header(FILES + one.name, one.size_bytes))
        with (source.folder / one.name).open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK_BYTES):
                hasher.update(chunk)
                size += len(chunk)
                out.write(chunk)
                if progress is not None:
                    progress(total + written + size, 2 * total)
        if (size, hasher.hexdigest()) != (one.size_bytes, one.sha256):
            raise PackNotWritten(
                f"{one.name} changed while it was packed.",
                next_step="Pack it again when nothing writes to it.",
            )
        written += size
        out.write(padding(size))
    out.write(END)


def _member(out: BinaryIO, name: str, content: bytes) -> None:
    out.write(header(name, len(content)))
    out.write(content)
    out.write(padding(len(content)))
