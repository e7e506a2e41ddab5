"""Values of any wire type by chance: right in type, and as odd as a real site may send them."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from msgspec import inspect

_SIGNS = "abz09 -_./:\"'[]{}\\éß–…●漢字👩‍👩‍👧́\u202e\u200b\x1b\x07\x00\n\r\t"
_BEGAN = datetime(2026, 11, 23, tzinfo=UTC)


def random_text(chance: random.Random, most: int = 24) -> str:
    if chance.random() < 0.02:
        most *= 40
    return "".join(chance.choice(_SIGNS) for _ in range(chance.randrange(most)))


def random_time(chance: random.Random) -> str:
    at = _BEGAN + timedelta(seconds=chance.randrange(-(10**8), 10**8))
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")


def random_message(kind: Any, chance: random.Random) -> Any:
    """Plain values, as JSON has them."""
    return _value(inspect.type_info(kind), chance, "", 0)


def random_row(kind: type[msgspec.Struct], chance: random.Random) -> dict[str, Any]:
    """All its fields: rows come whole."""
    return {
        field.encode_name: _value(field.type, chance, field.encode_name, 1)
        for field in inspect.type_info(kind).fields  # type: ignore[attr-defined]  # of a struct
    }


def _value(  # noqa: PLR0912 (a case for each kind of type)
    kind: inspect.Type, chance: random.Random, name: str, depth: int
) -> Any:
    match kind:
        case inspect.Metadata(type=inner):
            return _value(inner, chance, name, depth)
        case inspect.NoneType():
            return None
        case inspect.BoolType():
            return chance.random() < 0.5
        case inspect.IntType():
            return _whole(chance, kind.ge)
        case inspect.FloatType():
            return chance.choice((0.0, 0.4, 1.0, 97.5, 1e9, 1e17, -1.5, chance.random() * 1_000))
        case inspect.StrType():
            if name == "at" or name.endswith(("_at", "_until", "since")):
                return random_time(chance)
            return chance.choice((random_text(chance), "", "gemma-2-9b", "gpu-01", "nod_0000"))
        case inspect.LiteralType(values=values):
            return chance.choice(values)
        case inspect.UnionType(types=types):
            return _value(chance.choice(types), chance, name, depth)
        case inspect.ListType(item_type=item) | inspect.VarTupleType(item_type=item):
            most = 1 if depth > 4 else 6
            return [_value(item, chance, name, depth + 1) for _ in range(chance.randrange(most))]
        case inspect.TupleType(item_types=items):
            return [_value(item, chance, name, depth + 1) for item in items]
        case inspect.DictType(key_type=keys, value_type=values):
            return {
                str(_value(keys, chance, "", depth + 1)): _value(values, chance, "", depth + 1)
                for _ in range(chance.randrange(4))
            }
        case inspect.StructType(fields=fields):
            return {
                field.encode_name: _value(field.type, chance, field.encode_name, depth + 1)
                for field in fields
                if field.required or chance.random() < 0.8
            }
        case inspect.AnyType() | inspect.RawType():
            return chance.choice((None, 1, "text", {"a": [1]}, [None]))
        case inspect.DateTimeType():
            return random_time(chance)
        case _:
            raise TypeError(f"{kind} is not made by chance yet")


def _whole(chance: random.Random, least: int | None) -> int:
    number = chance.choice((0, 1, 7, 100, 65_535, 2**33, 2**53, chance.randrange(10_000)))
    return number if least is None else max(least, number)
