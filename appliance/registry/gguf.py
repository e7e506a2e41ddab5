"""The header of a GGUF file: its architecture, its context, and whether the file is whole.

Only the metadata and the table of tensors are read, never the weights. The file may be hostile:
every length is checked against what is left of the file before it is used, every count is capped.
Source of the layout: the GGUF specification in ggml's docs/gguf.md.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

MAGIC: Final = b"GGUF"
VERSIONS: Final = frozenset({2, 3})
PAIRS_MAX: Final = 100_000
TENSORS_MAX: Final = 1_000_000
DIMENSIONS_MAX: Final = 8
ARRAY_DEPTH_MAX: Final = 4
STRING_KEPT_BYTES_MAX: Final = 65_536  # longer ones (chat templates, vocabularies) are skipped over
ITEMS_MAX: Final = 8_000_000  # strings and lists in all lists; large vocabularies have a million

_KEYS: Final = frozenset({"general.architecture", "general.name", "split.count"})
_CONTEXT_SUFFIX: Final = ".context_length"
_LAYERS_SUFFIX: Final = ".block_count"
_WIDTH_SUFFIX: Final = ".embedding_length"
_HEADS_SUFFIX: Final = ".attention.head_count"
_KV_HEADS_SUFFIX: Final = ".attention.head_count_kv"
_KEY_SUFFIX: Final = ".attention.key_length"
_VALUE_SUFFIX: Final = ".attention.value_length"
_SUFFIXES: Final = (
    _CONTEXT_SUFFIX,
    _LAYERS_SUFFIX,
    _WIDTH_SUFFIX,
    _HEADS_SUFFIX,
    _KV_HEADS_SUFFIX,
    _KEY_SUFFIX,
    _VALUE_SUFFIX,
)
_KEY_CHARS_MAX: Final = 128
_STRING: Final = 8
_ARRAY: Final = 9
# Struct formats of the scalar types by their number; 7 is a bool in one byte.
_SCALARS: Final = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_COUNT: Final = struct.Struct("<Q")
_NUMBER: Final = struct.Struct("<I")

Scalar = int | float | bool | str


class NotGGUF(ValueError):
    """The file is no whole GGUF file; the text says what is wrong with it, for a person."""


@dataclass(frozen=True, slots=True)
class Header:
    architecture: str
    name: str  # "" when the file has none
    context_tokens: int | None
    split_count: int  # files the model is spread over; 1: this one is all
    # What its KV cache needs; None where the file does not say, or says it layer by layer.
    layers: int | None = None
    kv_heads: int | None = None
    key_length: int | None = None  # of one head
    value_length: int | None = None


def read_header(path: Path) -> Header:
    """Read the head of the file at `path`. Raises NotGGUF, OSError."""
    with path.open("rb") as file:
        file.seek(0, 2)
        reader = _Reader(file, file.tell())
        file.seek(0)
        tensors, pairs = _read_start(reader)
        facts = _read_pairs(reader, pairs)
        _check_tensors(reader, tensors)
    architecture = facts.get("general.architecture")
    if not isinstance(architecture, str) or not architecture:
        raise NotGGUF("it does not say which architecture it has")

    def count(suffix: str) -> int | None:
        value = facts.get(f"{architecture}{suffix}")
        return value if isinstance(value, int) and value > 0 else None

    heads, width = count(_HEADS_SUFFIX), count(_WIDTH_SUFFIX)
    head_length = None if heads is None or width is None else width // heads
    split_count = facts.get("split.count", 1)
    name = facts.get("general.name", "")
    return Header(
        architecture=architecture,
        name=name if isinstance(name, str) else "",
        context_tokens=count(_CONTEXT_SUFFIX),
        split_count=split_count if isinstance(split_count, int) else 1,
        layers=count(_LAYERS_SUFFIX),
        kv_heads=count(_KV_HEADS_SUFFIX) or heads,
        key_length=count(_KEY_SUFFIX) or head_length,
        value_length=count(_VALUE_SUFFIX) or head_length,
    )


class _Reader:
    """Reads forward through a file of known size, never past its end."""

    __slots__ = ("_file", "_items_left", "_left")

    def __init__(self, file: BinaryIO, size_bytes: int) -> None:
        self._file = file
        self._left = size_bytes
        self._items_left = ITEMS_MAX

    @property
    def left(self) -> int:
        return self._left

    def take(self, count: int) -> bytes:
        self._spend(count)
        data = self._file.read(count)
        if len(data) != count:
            raise NotGGUF("it changed while it was read")
        return data

    def skip(self, count: int) -> None:
        self._spend(count)
        self._file.seek(count, 1)

    def number(self) -> int:
        value: int = _NUMBER.unpack(self.take(4))[0]
        return value

    def count(self) -> int:
        value: int = _COUNT.unpack(self.take(8))[0]
        return value

    def string(self) -> str:
        length = self.count()
        if length > STRING_KEPT_BYTES_MAX:
            self.skip(length)
            return ""
        return self.take(length).decode("utf-8", "replace")

    def skip_string(self) -> None:
        self.skip(self.count())

    def spend_items(self, count: int) -> None:
        """Allow for `count` steps of a loop. The file's size bounds none: holes make it long."""
        self._items_left -= count
        if self._items_left < 0:
            raise NotGGUF("its lists are longer than any vocabulary")

    def _spend(self, count: int) -> None:
        if count > self._left:
            raise NotGGUF("it ends in the middle: was it copied or downloaded completely?")
        self._left -= count


def _read_start(reader: _Reader) -> tuple[int, int]:
    """Counts of tensors and of metadata pairs."""
    if reader.left < len(MAGIC) or reader.take(len(MAGIC)) != MAGIC:
        raise NotGGUF("it does not begin as a GGUF file does")
    version = reader.number()
    if version not in VERSIONS:
        raise NotGGUF(f"its version {version} is not one of {sorted(VERSIONS)}")
    tensors, pairs = reader.count(), reader.count()
    if tensors > TENSORS_MAX or pairs > PAIRS_MAX:
        raise NotGGUF("its counts are beyond reason")
    return tensors, pairs


def _read_pairs(reader: _Reader, count: int) -> dict[str, Scalar]:
    facts: dict[str, Scalar] = {}
    for _ in range(count):
        key = reader.string()
        kind = reader.number()
        if kind == _ARRAY:
            _skip_array(reader, depth=1)
            continue
        value: Scalar
        if kind == _STRING:
            value = reader.string()
        else:
            scalar = _scalar(kind)
            value = scalar.unpack(reader.take(scalar.size))[0]
        if _wanted(key):
            facts[key] = value
    return facts


def _wanted(key: str) -> bool:
    """Keeping only what is asked for bounds the memory: a file may hold gigabytes of pairs."""
    return key in _KEYS or (key.endswith(_SUFFIXES) and len(key) <= _KEY_CHARS_MAX)


def _skip_array(reader: _Reader, depth: int) -> None:
    if depth > ARRAY_DEPTH_MAX:
        raise NotGGUF("its lists are nested beyond reason")
    kind, count = reader.number(), reader.count()
    if kind == _ARRAY:
        reader.spend_items(count)
        for _ in range(count):
            _skip_array(reader, depth + 1)
    elif kind == _STRING:
        reader.spend_items(count)
        for _ in range(count):
            reader.skip_string()
    else:
        reader.skip(_scalar(kind).size * count)


def _check_tensors(reader: _Reader, count: int) -> None:
    """The table of tensors must fit, and the last of them must begin inside the file."""
    last_offset = -1
    for _ in range(count):
        reader.skip_string()
        dimensions = reader.number()
        if dimensions > DIMENSIONS_MAX:
            raise NotGGUF("a tensor has more dimensions than can be")
        reader.skip(8 * dimensions + 4)
        last_offset = max(last_offset, reader.count())
    if last_offset >= reader.left:
        raise NotGGUF("its weights are cut off: was it copied or downloaded completely?")


def _scalar(kind: int) -> struct.Struct:
    try:
        return _SCALARS[kind]
    except KeyError:
        raise NotGGUF(f"it holds a value of the unknown type {kind}") from None
