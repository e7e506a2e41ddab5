"""The text of `?`: made from the bindings and from the actions that fit now."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from textual.binding import Binding

from console.actions import Action, permitted

if TYPE_CHECKING:
    from textual.dom import DOMNode

    from console.app import ConsoleApp

_KEY_NAMES = {
    "escape": "Esc",
    "enter": "Enter",
    "slash": "/",
    "colon": ":",
    "question_mark": "?",
    "exclamation_mark": "!",
    "pageup": "PgUp",
    "pagedown": "PgDn",
    "up": "Up",
    "down": "Down",
    "home": "Home",
    "end": "End",
    "space": "Space",
    "left": "Left",
    "right": "Right",
}


def help_text(app: ConsoleApp) -> str:
    """Actions on what is selected with their command lines, then the keys from the inside out."""
    lines: list[str] = []
    top = app.top
    if top is not None:
        actions = permitted(top.actions(), app.role)
        if actions:
            lines.append("ON WHAT IS SELECTED")
        for action in actions:
            lines.append(f"  {action.key:<8} {action.title}")
            lines.append(f"           {_twin(action)}")
        if actions:
            lines.append("")
    if top is not None:
        focused = app.screen_stack[0].focused
        inside = [top] if focused is None else [*focused.ancestors_with_self]
        for node in inside:
            lines += _section(node)
            if node is top:
                break
    lines += _section(app)
    return "\n".join(lines)


def _twin(action: Action) -> str:
    values = {field.name: field.default or field.name.upper() for field in action.fields}
    try:
        return shlex.join(("cic", *action.argv(values)))
    except ValueError:
        return ""


def _section(node: DOMNode) -> list[str]:
    rows = []
    for binding in Binding.make_bindings(type(node).BINDINGS):
        if binding.description and binding.show:
            key = binding.key_display or _KEY_NAMES.get(binding.key, binding.key)
            if (key, binding.description) not in rows:  # `q` and `Q`
                rows.append((key, binding.description))
    merged: dict[str, list[str]] = {}
    for key, description in rows:
        merged.setdefault(description, []).append(key)
    return [f"  {' '.join(keys):<8} {description}" for description, keys in merged.items()]
