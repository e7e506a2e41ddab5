"""What can be done to what is selected, and the command line that does it.

An action is carried out by running that very command line, so what a dialog shows is what is done.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from appliance.wire.access import AccessRole, reaches

Values = Mapping[str, str]  # of a form, by the names of its fields


@dataclass(frozen=True, slots=True)
class Field:
    """One question of a form. A toggle's value is "yes" or ""; an unanswered one's is ""."""

    name: str
    label: str
    kind: Literal["text", "int", "choice", "toggle", "secret", "path"] = "text"
    choices: tuple[str, ...] = ()
    default: str = ""
    required: bool = False
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Action:
    """`argv` makes the arguments behind `cic --home H` of what the form was answered."""

    key: str  # a capital letter
    title: str
    role: AccessRole
    argv: Callable[[Values], Sequence[str]]
    danger: Literal["none", "confirm", "typed"] = "none"
    impact: str = ""  # what it will do, in a sentence, with figures
    type_this: str = ""  # typed: what is to be typed, usually the name of what is lost
    fields: tuple[Field, ...] = ()
    shown_once: str = ""  # field of the JSON answer that is shown this once
    stdin: str = ""  # name of the form's field that the command reads from its input
    slow: bool = False  # its progress is shown until it ends
    done: str = ""  # said when it succeeded; "": the answer is shown


def plain(*arguments: str) -> Callable[[Values], Sequence[str]]:
    """The arguments of an action without a form."""
    return lambda _values: arguments


def options(values: Values, *names: str) -> list[str]:
    """`--name value` for each of these that was answered."""
    return [part for name in names if values.get(name) for part in (f"--{name}", values[name])]


def permitted(actions: Sequence[Action], role: AccessRole) -> tuple[Action, ...]:
    """Those that an account of this role may do; the others are not offered."""
    return tuple(action for action in actions if reaches(role, action.role))


def answered(fields: Sequence[Field], values: Values) -> str:
    """What is wrong with a form as it stands; "" when it can be sent."""
    for field in fields:
        value = values.get(field.name, "").strip()
        if not value:
            if field.required:
                return f"{field.label} is needed."
            continue
        if field.kind == "int" and not value.lstrip("-").isdigit():
            return f"{field.label} is a whole number, not {value!r}."
        if field.kind == "choice" and value not in field.choices:
            return f"{field.label} is one of {', '.join(field.choices)}."
    return ""
