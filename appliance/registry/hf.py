"""A folder with a model: config.json, weights as safetensors, and what a tokeniser needs.

Only heads are read, never weights; pickled weights are refused, because to load them is to run
them. Source of the layout of a safetensors file: its length-prefixed JSON header, then the data.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from appliance.registry.gguf import Header

CONFIG: Final = "config.json"
WEIGHTS_INDEX: Final = "model.safetensors.index.json"
FILES_MAX: Final = 10_000
DEPTH_MAX: Final = 4
CONFIG_BYTES_MAX: Final = 16 * 1024 * 1024
TENSORS_BYTES_MAX: Final = 64 * 1024 * 1024  # of a header; the format itself allows 100 MB

_KEPT: Final = frozenset(
    {".safetensors", ".json", ".jsonl", ".txt", ".model", ".jinja", ".tiktoken", ".vocab"}
)
_PICKLED: Final = frozenset({".bin", ".pt", ".pth", ".pkl", ".ckpt"})
_LENGTH: Final = struct.Struct("<Q")
# Where configurations of models with several parts keep the part that makes text.
_TEXT_PARTS: Final = ("text_config", "llm_config", "language_config")
_CONTEXTS: Final = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length")


class NotAModelFolder(ValueError):
    """The text says what is wrong with it, for a person."""


class _Tensor(msgspec.Struct):
    data_offsets: tuple[int, int]


def list_files(folder: Path) -> tuple[str, ...]:
    """Names of a model's files, relative with "/", sorted. Hidden and unknown ones are left out.

    Raises NotAModelFolder, OSError.
    """
    names = sorted(_walk(folder, folder, DEPTH_MAX))
    if len(names) > FILES_MAX:
        raise NotAModelFolder(f"it has more than {FILES_MAX} files")
    return tuple(names)


def read_folder(folder: Path, names: tuple[str, ...]) -> Header:
    """Read the head of a model whose files are `names`. Raises NotAModelFolder, OSError."""
    if CONFIG not in names:
        raise NotAModelFolder(f"it has no {CONFIG}")
    shards = {name for name in names if name.endswith(".safetensors")}
    if not shards:
        pickled = any(one.suffix in _PICKLED for one in folder.iterdir())
        raise NotAModelFolder(
            "its weights are pickled, and to load them is to run what is in them: convert them to"
            " safetensors"
            if pickled
            else "it has no .safetensors files"
        )
    if WEIGHTS_INDEX in names:
        _check_complete(_json(folder / WEIGHTS_INDEX), shards)
    for shard in sorted(shards):
        _check_shard(folder / shard, shard)
    return _header(_json(folder / CONFIG))


def _walk(root: Path, folder: Path, depth: int) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                if depth > 1:
                    yield from _walk(root, Path(entry.path), depth - 1)
            elif Path(entry.name).suffix in _KEPT and entry.is_file():
                yield Path(entry.path).relative_to(root).as_posix()


def _json(path: Path) -> dict[str, Any]:
    if path.stat().st_size > CONFIG_BYTES_MAX:
        raise NotAModelFolder(f"its {path.name} is larger than any that is known")
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NotAModelFolder(f"its {path.name} is not understood: {error}") from error


def _check_complete(index: dict[str, Any], shards: set[str]) -> None:
    mapped = index.get("weight_map")
    if not isinstance(mapped, dict) or not mapped:
        raise NotAModelFolder(f"its {WEIGHTS_INDEX} names no weights")
    missing = sorted({str(shard) for shard in mapped.values()} - shards)
    if missing:
        raise NotAModelFolder(f"{missing[0]} is missing: was it downloaded completely?")


def _check_shard(path: Path, name: str) -> None:
    """The table of tensors must describe exactly the bytes that are there."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(_LENGTH.size)
        if len(start) != _LENGTH.size:
            raise NotAModelFolder(f"{name} is no safetensors file")
        (length,) = _LENGTH.unpack(start)
        if length > min(TENSORS_BYTES_MAX, size - _LENGTH.size):
            raise NotAModelFolder(f"{name} is no safetensors file, or cut off")
        head = file.read(length)
    try:
        tensors = msgspec.json.decode(head, type=dict[str, msgspec.Raw])
        tensors.pop("__metadata__", None)
        ends = [msgspec.json.decode(raw, type=_Tensor).data_offsets[1] for raw in tensors.values()]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NotAModelFolder(f"the table of tensors in {name} is not understood") from error
    if _LENGTH.size + length + max(ends, default=0) != size:
        raise NotAModelFolder(f"{name} is cut off: was it downloaded completely?")


def _header(config: dict[str, Any]) -> Header:
    architecture = config.get("model_type")
    if not isinstance(architecture, str) or not architecture:
        raise NotAModelFolder(f"its {CONFIG} does not say which architecture it has (model_type)")
    parts = [config, *(config[part] for part in _TEXT_PARTS if isinstance(config.get(part), dict))]
    contexts = [part[key] for part in parts for key in _CONTEXTS if isinstance(part.get(key), int)]

    def count(*keys: str) -> int | None:
        found = (part[key] for part in parts for key in keys if isinstance(part.get(key), int))
        return next((value for value in found if value > 0), None)

    heads, width = count("num_attention_heads"), count("hidden_size")
    head_length = count("head_dim") or (None if heads is None or width is None else width // heads)
    return Header(
        architecture=architecture,
        name="",
        context_tokens=next((context for context in contexts if context > 0), None),
        split_count=1,
        layers=count("num_hidden_layers"),
        kv_heads=count("num_key_value_heads") or heads,
        key_length=head_length,
        value_length=head_length,
    )
