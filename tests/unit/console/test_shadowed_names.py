"""No widget of the console takes a name that Textual uses itself.

Textual's classes have hundreds of private names (`_closed`, `_running`, …); one taken by accident
does not fail, it hangs.
"""

import ast
import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from textual.message_pump import MessagePump

import console

# Overridden on purpose: what Textual documents for that.
MEANT = {
    *("compose", "render", "render_line", "render_lines", "on_mount", "on_unmount", "on_key"),
    *("on_resize", "on_click", "on_event", "get_content_height", "get_content_width"),
    *("get_line_filters", "can_focus", "BINDINGS", "CSS", "DEFAULT_CSS", "theme", "title"),
    *("virtual_size", "ENABLE_COMMAND_PALETTE", "DEFAULT_CLASSES", "validate", "notify_look"),
    *("AUTO_FOCUS", "check_action", "on_paste", "on_focus", "on_blur", "on_show", "on_hide"),
    *(
        "border_title",
        "border_subtitle",
        "tooltip",
        "display",
        "action_back",
        "can_focus_children",
        "styles",
    ),
    *("on_mouse_move", "on_leave", "copy_to_clipboard", "key_escape", "watch_scroll_y"),
}

# Overridden to change what Textual itself does there; its docstring says why.
MENDED = {"LogText": {"_update_size"}}


def classes() -> Iterator[type]:
    for found in pkgutil.walk_packages(console.__path__, "console."):
        module = importlib.import_module(found.name)
        for each in vars(module).values():
            if (
                isinstance(each, type)
                and each.__module__ == module.__name__
                and issubclass(each, MessagePump)
            ):
                yield each


@cache
def names_of(textual_class: type) -> frozenset[str]:
    """Its own members, and what its methods give to `self`."""
    source = inspect.getsource(textual_class)
    given = re.findall(r"^\s+self\.(\w+)(?:: [^=\n]+)? = ", source, re.MULTILINE)
    return frozenset({*vars(textual_class), *given})


def given_names(own: type) -> set[str]:
    """What a class of the console defines or gives to `self`."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(own)))
    body = tree.body[0]
    assert isinstance(body, ast.ClassDef)
    defined = {
        each.name for each in body.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    for each in body.body:
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
            defined.add(each.target.id)
    stored = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }
    return stored | defined


@pytest.mark.parametrize(
    "own", list(classes()), ids=lambda each: f"{each.__module__}.{each.__name__}"
)
def test_takes_no_name_of_textual(own: type) -> None:
    theirs: set[str] = set()
    for base in own.__mro__[1:]:
        if base.__module__.startswith("textual."):
            theirs |= names_of(base)
    meant = MEANT | MENDED.get(own.__name__, set())
    taken = {
        name for name in given_names(own) & theirs if not (name.startswith("__") or name in meant)
    }
    assert taken == set(), f"{Path(inspect.getfile(own)).name}: {taken}"
