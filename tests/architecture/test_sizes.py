"""A module is one noun and a function fits a screen; what is longer says why."""

import ast

from tests.architecture.tree import ROOT, parse, product_modules

MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70

# Path -> why this one noun takes more lines.
LONG_MODULES = {
    "appliance/gateway/exchange.py": "one request: every way to its single end is in one place",
}


def test_a_module_stays_within_its_lines() -> None:
    lines = {
        str(file.relative_to(ROOT)): file.read_text(encoding="utf-8").count("\n")
        for file in product_modules()
    }
    long = {name: count for name, count in lines.items() if count > MODULE_LINES_MAX}
    assert long.keys() <= LONG_MODULES.keys(), long


def test_a_function_fits_a_screen() -> None:
    long = [
        f"{file.relative_to(ROOT)}:{node.lineno} {node.name}"
        for file in product_modules()
        for node in ast.walk(parse(file))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert long == []


def test_modules_are_named_for_nouns() -> None:
    nameless = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "base"}
    named = [
        str(file.relative_to(ROOT))
        for file in product_modules()
        if nameless & {file.stem, *file.relative_to(ROOT).parts[:-1]}
    ]
    assert named == []
