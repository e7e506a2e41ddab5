"""The pages say what the code does: settings, error codes, commands, links."""

import importlib
import re
import shlex
from importlib.metadata import entry_points
from pathlib import Path

import click
import msgspec
import pytest

from appliance.domain.errors import CrossLogicError
from appliance.gateway.errors import ClientLeft, GatewayError
from appliance.settings import ENVIRONMENT_PREFIX, Settings
from appliance.wire.command import ExitCode
from appliance.wire.setting_meanings import MEANINGS
from tests.architecture.tree import PROGRAMS, ROOT, module_name, product_modules

DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.rglob("*.md")])


def _shown(default: object) -> str:
    """A default as the settings page writes it."""
    if default is None or default == ():
        return "none"
    if isinstance(default, float) and default.is_integer():
        return f"{int(default):,}"
    return f"{default:,}" if isinstance(default, int) else str(default)


def test_the_settings_page_lists_every_setting_with_its_variable_and_default() -> None:
    page = (DOCS / "SETTINGS.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `(\w+)` \| `(\w+)` \| `([^`]*)` \|", page, re.MULTILINE))
    expected = set()
    for section in msgspec.structs.fields(Settings):
        for field in msgspec.structs.fields(section.type):
            variable = f"{ENVIRONMENT_PREFIX}{section.name}_{field.name}".upper()
            expected.add((field.name, variable, _shown(field.default)))
    assert listed == expected


def test_the_settings_page_and_the_program_say_the_same_of_each_setting() -> None:
    page = (DOCS / "SETTINGS.md").read_text(encoding="utf-8")
    told: dict[str, str] = {}
    section = ""
    for line in page.splitlines():
        section = line[4:-1] if line.startswith("## [") else section
        row = re.match(r"\| `(\w+)` \| `\w+` \| `[^`]*` \| (.*) \|$", line)
        if row:
            told[f"{section}.{row[1]}"] = row[2]
    # appliance/wire/setting_meanings.py: what the console and `cic settings` say of each.
    assert told == MEANINGS


def _subclasses(cls: type[CrossLogicError]) -> set[type[CrossLogicError]]:
    return {cls}.union(*(_subclasses(sub) for sub in cls.__subclasses__()))


def _raised() -> list[type[CrossLogicError]]:
    """Every error class of the product. A program's entry module is not imported: it runs."""
    for file in product_modules():
        if file.name not in {"__main__.py", "llamacpp_server.py"}:
            importlib.import_module(module_name(file))
    return [error for error in _subclasses(CrossLogicError) if not _is_of_a_test(error)]


def _is_of_a_test(error: type[CrossLogicError]) -> bool:
    return error.__module__.partition(".")[0] not in PROGRAMS


def _codes_of(page: str, column: int) -> set[str]:
    """What stands in backticks in one column of the tables under a heading on errors."""
    text = (DOCS / page).read_text(encoding="utf-8")
    section = re.split(r"^## ", text.partition("\n## Error")[2], flags=re.MULTILINE)[0]
    rows = (line.split("|") for line in section.splitlines() if line.startswith("|"))
    return {code for row in rows for code in re.findall(r"`(\w+)`", row[column])}


def test_the_api_page_lists_the_codes_of_the_endpoint_with_their_status() -> None:
    errors = [error for error in _raised() if issubclass(error, GatewayError)]
    # A base has no code of its own, or one that is never sent.
    sent = {error for error in errors if "code" in vars(error)} - {GatewayError, ClientLeft}
    assert _codes_of("API.md", 2) == {error.code for error in sent}
    rows = (DOCS / "API.md").read_text(encoding="utf-8").splitlines()
    for error in sent:
        assert any(
            row.startswith(f"| {error.status} | ") and f"`{error.code}`" in row for row in rows
        )


def test_the_command_line_page_lists_all_other_codes() -> None:
    codes = {error.code for error in _raised() if not issubclass(error, GatewayError)}
    assert codes - _codes_of("CLI.md", 1) == set()


def test_the_command_line_page_lists_commands_and_exit_codes() -> None:
    page = (DOCS / "CLI.md").read_text(encoding="utf-8")
    commands = {point.name for point in entry_points(group="crosslogic.commands")}
    first_table = page.partition("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z-]+)` \|", first_table, re.MULTILINE)) == commands
    exits = re.findall(r"^\| (\d+) \| ([A-Z_]+) \|", page, re.MULTILINE)
    assert {name: int(code) for code, name in exits} == dict(ExitCode.__members__)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    broken = [
        target
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert broken == []


def test_the_architecture_names_files_that_exist() -> None:
    text = (DOCS / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert text.count("\n") < 300
    known = {str(file.relative_to(ROOT)) for file in product_modules()}
    named = set(re.findall(r"`((?:[\w-]+/)*\w+\.py)`", text))
    assert {name for name in named if not _exists(name, known)} == set()
    folders = set(re.findall(r"`((?:tests|docs|packaging)/[\w/]*)`", text))
    assert {name for name in folders if not (ROOT / name).is_dir()} == set()


def _exists(name: str, known: set[str]) -> bool:
    """As the page writes files: whole, from their program, or, inside a package, by name alone."""
    return (ROOT / name).is_file() or any(path.endswith(f"/{name}") for path in known)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_the_pages_exist_with_their_options(page: Path) -> None:
    commands = {point.name: point for point in entry_points(group="crosslogic.commands")}
    wrong = []
    for line in _typed(page.read_text(encoding="utf-8")):
        words = shlex.split(line, comments=True)[1:]
        while words[:1] in (["--home"], ["--json"]):
            words = words[2 if words[0] == "--home" else 1 :]
        if not words or words[0].startswith("-"):
            continue
        if words[0] not in commands:
            wrong.append(line)
            continue
        command = commands[words[0]].load()
        rest = words[1:]
        while isinstance(command, click.Group):
            if command.invoke_without_command and (not rest or rest[0].startswith("-")):
                break
            command = command.get_command(click.Context(command), rest[0]) if rest else None
            rest = rest[1:]
        if command is None or _unknown(command, rest):
            wrong.append(line)
    assert wrong == []


def _typed(text: str) -> list[str]:
    """The `cic …` lines of the indented and fenced blocks that a person is to type."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = (line.strip() for block in blocks for line in block.splitlines())
    return [line for line in lines if re.match(r"(\.venv/bin/)?cic (?!\w+\|)", line)]


def _unknown(command: click.Command, words: list[str]) -> list[str]:
    known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    return [
        w for w in words if w.startswith("--") and w.partition("=")[0] not in {*known, "--help"}
    ]
