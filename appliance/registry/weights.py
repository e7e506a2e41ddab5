"""What a model is on disk: one GGUF file or a folder of safetensors, read and hashed."""

import asyncio
import hashlib
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.registry.errors import InvalidValue, ModelUnreadable
from appliance.registry.gguf import Header, NotGGUF, read_header
from appliance.registry.hf import NotAModelFolder, list_files, read_folder
from appliance.wire.agent import ModelFile

# Bytes read so far and in all. Called from another thread than the event loop's.
Progress = Callable[[int, int], None]

GGUF: Final = ".gguf"
_CHUNK_BYTES: Final = 4 * 1024 * 1024
_FOLDER_DIGEST: Final = b"crosslogic model folder 1\n"


@dataclass(frozen=True, slots=True)
class Source:
    """A model before it is hashed. `path`: what engines open; `names` are relative to `folder`."""

    path: Path
    folder: Path
    names: tuple[str, ...]
    header: Header

    @property
    def entry(self) -> str:
        """What engines open within the folder: a file's name, or "" for the folder itself."""
        return "" if self.path == self.folder else self.path.name


@dataclass(frozen=True, slots=True)
class Weights:
    """What was read from a model's files."""

    path: Path
    header: Header
    digest: str  # "sha256:<hex>"
    size_bytes: int
    files: tuple[ModelFile, ...]


def digest_of(files: Iterable[ModelFile], entry: str) -> str:
    """The digest of a model: of its only file, or of the list of the files of its folder."""
    listed = sorted(files, key=lambda file: file.name)
    if entry and len(listed) == 1:
        return f"sha256:{listed[0].sha256}"
    lines = b"".join(f"{file.sha256}  {file.name}\n".encode() for file in listed)
    return f"sha256:{hashlib.sha256(_FOLDER_DIGEST + lines).hexdigest()}"


def look_at(path: Path) -> Source:
    """Find a model's files and read their heads; blocks. Raises ModelUnreadable, InvalidValue.

    A folder with one GGUF file and no other weights stands for that file.
    """
    if not path.is_absolute():
        raise InvalidValue(
            f"The path {path} is not complete.", next_step="Give it from the root: /…/model.gguf."
        )
    try:
        return _look_at(path)
    except NotGGUF as error:
        raise ModelUnreadable(
            f"{path} is not a whole GGUF model: {error}.",
            next_step="Compare its size and checksum with the source, or get the file again.",
        ) from error
    except NotAModelFolder as error:
        raise ModelUnreadable(
            f"The folder {path} is no model: {error}.",
            next_step="Give a .gguf file, or a folder with config.json and .safetensors files.",
        ) from error
    except OSError as error:
        raise _cannot_read(path, error) from error


def read_weights(path: Path, progress: Progress | None, stop: threading.Event) -> Weights:
    """Read the heads and the digests of a model; blocks. Raises ModelUnreadable, InvalidValue.

    Ends early, with whatever it has, when `stop` is set: then nobody waits for the answer.
    """
    source = look_at(path)
    try:
        files = hash_files(source, progress, stop)
    except OSError as error:
        raise _cannot_read(path, error) from error
    return Weights(
        source.path,
        source.header,
        digest_of(files, source.entry),
        sum(file.size_bytes for file in files),
        files,
    )


def hash_files(
    source: Source, progress: Progress | None, stop: threading.Event
) -> tuple[ModelFile, ...]:
    """Every file with its digest. Raises OSError."""
    total = sum((source.folder / name).stat().st_size for name in source.names)
    done = 0
    files = []
    for name in source.names:
        hasher, size = hashlib.sha256(), 0
        with (source.folder / name).open("rb", buffering=0) as file:
            while not stop.is_set() and (chunk := file.read(_CHUNK_BYTES)):
                hasher.update(chunk)
                size += len(chunk)
                if progress is not None:
                    progress(done + size, total)
        done += size
        files.append(ModelFile(name=name, sha256=hasher.hexdigest(), size_bytes=size))
    return tuple(files)


async def read_off_loop(path: Path, progress: Progress | None) -> Weights:
    """As `read_weights`, in a thread that ends when the caller is cancelled."""
    stop = threading.Event()
    try:
        return await asyncio.to_thread(read_weights, path, progress, stop)
    finally:
        stop.set()


def _look_at(path: Path) -> Source:
    if path.is_dir():
        found = sorted(one for one in path.glob(f"*{GGUF}") if not one.name.startswith("."))
        names = list_files(path)
        if not found or any(name.endswith(".safetensors") for name in names):
            return Source(path, path, names, read_folder(path, names))
        if len(found) > 1:
            raise NotAModelFolder(f"it has {len(found)} .gguf files; name one of them")
        path = found[0]
    elif not path.is_file():
        raise ModelUnreadable(
            f"The model file {path} is not there.",
            next_step="Give the path of a .gguf file, or of a folder with safetensors.",
        )
    header = read_header(path)
    if header.split_count > 1:
        raise ModelUnreadable(
            f"The model is spread over {header.split_count} files, of which {path} is one.",
            next_step="Merge them with `llama-gguf-split --merge` and give the merged file.",
        )
    return Source(path, path.parent, (path.name,), header)


def _cannot_read(path: Path, error: OSError) -> ModelUnreadable:
    return ModelUnreadable(
        f"Cannot read the model {path}: {error.strerror}.",
        next_step="Check that the appliance's account may read the file and its folders.",
    )
