"""What a version checks of itself before a site is switched to it: `python -m appliance.self_test`.

The installer of the version before runs it from the unpacked folder of this one, so its options
and its answer are a contract between versions:

--config FILE    the site's settings, which have to be understood; not there: the defaults
--registry FILE  a copy of registry.db, which is brought to this version's schema
--ledger FILE    a copy of ledger.db, likewise

One JSON object is printed. Sound, exit code 0: `version`, `modules` (how many were imported) and
`contracts`: steps of the schema, just applied, after which an earlier version cannot go on.
Otherwise, exit code 1: `error` with `check` (import, settings, registry or ledger) and `message`.
"""

import argparse
import importlib
import json
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import appliance.metering.schema
import appliance.registry.schema
from appliance.branding import named_brand
from appliance.domain.errors import CrossLogicError
from appliance.settings import load
from appliance.storage.database import Migration, migrate

PACKAGES: Final = ("appliance", "agent", "console", "installer")
SCHEMAS: Final = {
    "registry": appliance.registry.schema.MIGRATIONS,
    "ledger": appliance.metering.schema.MIGRATIONS,
}


class Unsound(Exception):
    """`check` did not go well."""

    def __init__(self, check: str, message: str) -> None:
        super().__init__(message)
        self.check = check
        self.message = message


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the answer and returns the exit code."""
    asked = _parser().parse_args(arguments)
    try:
        answer = self_test(PACKAGES, asked.config, {n: getattr(asked, n) for n in SCHEMAS})
    except Unsound as unsound:
        print(json.dumps({"error": {"check": unsound.check, "message": unsound.message}}))  # noqa: T201
        return 1
    print(json.dumps(answer))  # noqa: T201 (the answer of this program)
    return 0


def self_test(
    packages: Sequence[str], config: Path | None, copies: dict[str, Path | None]
) -> dict[str, Any]:
    """The answer of a version that is sound. Raises Unsound."""
    modules = import_all(packages)
    if config is not None:
        _check("settings", lambda: named_brand(load(config, {})))
    contracts: list[str] = []
    for name, path in copies.items():
        if path is not None:
            contracts += _check(name, partial(_bring_to_schema, path, SCHEMAS[name]))
    return {"version": version("crosslogic-appliance"), "modules": modules, "contracts": contracts}


def import_all(packages: Sequence[str]) -> int:
    """Imports every module, as no start does; returns how many. Raises Unsound for the first."""
    count = 0
    for name in _modules(packages):
        try:
            importlib.import_module(name)
        # A module may fail with anything at its import, also with an exit.
        except (Exception, SystemExit) as error:
            raise Unsound("import", f"{name}: {type(error).__name__}: {error}") from error
        count += 1
    return count


def _modules(packages: Sequence[str]) -> Iterator[str]:
    for package in packages:
        yield package
        for folder in _import(package).__path__:
            for file in sorted(Path(folder).rglob("*.py")):
                parts = file.relative_to(folder).with_suffix("").parts
                if parts[-1] not in {"__main__", "__init__"}:
                    yield ".".join((package, *parts))


def _import(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except (Exception, SystemExit) as error:
        raise Unsound("import", f"{package}: {type(error).__name__}: {error}") from error


def _check(name: str, run: Callable[[], Any]) -> Any:
    try:
        return run()
    except (CrossLogicError, sqlite3.Error, OSError) as error:
        raise Unsound(name, str(error)) from error


def _bring_to_schema(path: Path, migrations: Sequence[Migration]) -> list[str]:
    """Names of the steps that were applied now and do more than expand."""
    before = _applied(path)
    migrate(path, migrations)
    return [step.name for step in migrations if step.name not in before and not step.expands]


def _applied(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as database:
        try:
            return {str(row[0]) for row in database.execute("SELECT name FROM _migrations")}
        except sqlite3.OperationalError:
            return set()  # a database that has no schema yet


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m appliance.self_test", description=__doc__)
    for option in ("--config", "--registry", "--ledger"):
        parser.add_argument(option, type=Path)
    return parser


if __name__ == "__main__":
    sys.exit(main())
