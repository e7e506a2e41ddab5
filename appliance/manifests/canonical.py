"""The one way a document is written, and the strict way it is read.

- Written: compact JSON as msgspec makes it, fields in the order of the class.
- Read: the bytes must be exactly what would be written. Beside that, fields that begin with `x_`
  may stand anywhere and are ignored, so that something may be added later.
- Refused: fields given twice, other unknown fields, floats, integers beyond 64 bits, white space,
  control characters but for the newlines of a PEM (no name needs them, and some databases cannot
  keep them), bad UTF-8, and what is nested too deep.

What is hashed and verified are always the bytes received, never a second writing of them.
"""

import json
import re
from typing import Any, Final, NoReturn, TypeVar

import msgspec

from appliance.manifests.errors import BadDocument

T = TypeVar("T")

DEPTH_MAX: Final = 16
INTEGER_MAX: Final = 2**63 - 1

_encoder = msgspec.json.Encoder()
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")  # a PEM has newlines


def encode(document: object) -> bytes:
    """The bytes of a document, ready to be signed."""
    return _encoder.encode(document)


class Reader:
    """Reads documents of one type; keep it where many are read."""

    __slots__ = ("_decoder", "_type")

    def __init__(self, kind: type[Any]) -> None:
        self._type = kind
        self._decoder = msgspec.json.Decoder(kind)

    def read(self, raw: bytes) -> Any:
        """The document. Raises BadDocument."""
        try:
            document = self._decoder.decode(raw)
            # A backslash may hide a control character: those few are looked at closely.
            if _encoder.encode(document) == raw and b"\\" not in raw and b"\x7f" not in raw:
                return document
        except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
            pass  # read again below, where it is said what is wrong
        return self._closely(raw)

    def _closely(self, raw: bytes) -> Any:
        tree = strict_tree(raw)
        plain = _without_extensions(tree)
        try:
            document = msgspec.convert(plain, self._type)
        except (msgspec.MsgspecError, ValueError) as error:
            raise BadDocument(f"This is no {self._type.__name__}: {error}.") from error
        written, named = encode(document), encode(plain)
        if written != named:
            raise BadDocument(
                f"This is no {self._type.__name__}: it has fields that are unknown or out of order."
            )
        return document


def decode(raw: bytes, kind: type[T]) -> T:
    """The document of this type that the bytes hold. Raises BadDocument."""
    document: T = Reader(kind).read(raw)
    return document


def strict_tree(raw: bytes) -> Any:
    """The JSON value that the bytes hold, as plain dicts and lists. Raises BadDocument."""
    try:
        tree = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_float=_no_float,
            parse_constant=_no_float,
        )
        _check(tree, DEPTH_MAX)
        written = encode(tree)
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        # UnicodeDecodeError and JSONDecodeError are ValueErrors.
        raise BadDocument(f"This is no document: {error}.") from error
    if written != raw:
        raise BadDocument("This document is not written in the one way that is signed.")
    return tree


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field is given twice")
    return fields


def _no_float(text: str) -> NoReturn:
    raise ValueError(f"{text[:20]} is no whole number")


def _check(value: Any, depth: int) -> None:
    if depth == 0:
        raise ValueError("it is nested too deep")
    match value:
        case dict():
            for name, inner in value.items():
                _check(name, depth)
                _check(inner, depth - 1)
        case list():
            for inner in value:
                _check(inner, depth - 1)
        case str() if _CONTROL.search(value):
            raise ValueError("a text holds a control character")
        case int() if not -INTEGER_MAX <= value <= INTEGER_MAX:
            raise ValueError("a number is too large")


def _without_extensions(value: Any) -> Any:
    match value:
        case dict():
            return {
                name: _without_extensions(inner)
                for name, inner in value.items()
                if not name.startswith("x_")
            }
        case list():
            return [_without_extensions(inner) for inner in value]
    return value
