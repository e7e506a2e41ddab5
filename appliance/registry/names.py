"""Names people give, and finding the one object they mean."""

import re
from collections.abc import Sequence
from typing import Final, TypeVar

from appliance.domain.ids import PREFIXES
from appliance.registry.errors import Ambiguous, InvalidValue, NotFound

R = TypeVar("R")

NAME_CHARS_MAX: Final = 63
MODEL_NAME_CHARS_MAX: Final = 127
_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MODEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]*")
# Names stand in URLs, where these parts of a path would be taken away on the road.
_NO_PARTS: Final = frozenset({"", ".", ".."})
# A name in the form of an id could stand for two objects.
_ID: Final = re.compile(rf"(?:{'|'.join(PREFIXES.values())})_[0-9a-f]{{24}}")

# The commands of `cic` that list objects of a kind.
_COMMANDS: Final = {
    "tenant": "tenant list",
    "environment": "env list",
    "key": "key list",
    "model": "model list",
    "deployment": "deployment list",
    "node": "node list",
    "region": "region list",
    "burst": "burst status",
    "reservation": "reservation list",
}


def check_name(kind: str, name: str) -> str:
    """`name` itself. Raises InvalidValue when it cannot name a tenant, environment, key or node."""
    if len(name) > NAME_CHARS_MAX or not _PLAIN.fullmatch(name):
        raise InvalidValue(
            f"{name!r} cannot be the name of {_a(kind)}.",
            next_step=f"Use 1 to {NAME_CHARS_MAX} letters, digits, '.', '_' or '-', beginning "
            "with a letter or digit.",
        )
    return _refuse_id(kind, name)


def check_model_name(kind: str, name: str) -> str:
    """As `check_name`, for models and deployments: also `/` and `:`, as in `org/Model-8B:q4`."""
    parts = name.split("/")
    if (
        len(name) > MODEL_NAME_CHARS_MAX
        or not _MODEL.fullmatch(name)
        or not _NO_PARTS.isdisjoint(parts)
    ):
        raise InvalidValue(
            f"{name!r} cannot be the name of {_a(kind)}.",
            next_step=f"Use 1 to {MODEL_NAME_CHARS_MAX} letters, digits, '.', '_', '-', ':' or "
            "single '/' between parts, beginning with a letter or digit.",
        )
    return _refuse_id(kind, name)


def check_count(what: str, value: int, *, lowest: int = 1, highest: int = 10**15) -> int:
    """`value` itself. Raises InvalidValue when it is out of bounds."""
    if not lowest <= value <= highest:
        raise InvalidValue(
            f"{what} cannot be {value}.", next_step=f"Give a number from {lowest} to {highest}."
        )
    return value


def column_of(ref: str) -> str:
    """`id` or `name`: the column that a reference is to be looked up in."""
    return "id" if _ID.fullmatch(ref) else "name"


def only(rows: Sequence[R], kind: str, ref: str, *, within: str = "") -> R:
    """The single row that `ref` stands for. `within` names the nouns that would narrow it."""
    if not rows:
        command = _COMMANDS.get(kind)
        raise NotFound(
            f"There is no {kind} {ref!r}.",
            next_step="" if command is None else f"See `cic {command}`.",
        )
    if len(rows) > 1:
        raise Ambiguous(
            f"{ref!r} stands for {len(rows)} objects of the kind {kind}.",
            next_step=f"Say which by {within}, or use the id.",
        )
    return rows[0]


def _refuse_id(kind: str, name: str) -> str:
    if _ID.fullmatch(name):
        raise InvalidValue(
            f"{name!r} has the form of an id and cannot be the name of {_a(kind)}.",
            next_step="Choose a name of your own.",
        )
    return name


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
