"""`cic` as a whole: what it lists, what it loads, and how every failure looks."""

import importlib
import importlib.metadata
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from appliance import cli
from appliance.commands.client import AdminClient
from appliance.domain.errors import CrossLogicError
from appliance.wire.admin import SiteStatus
from appliance.wire.command import CommandError, ExitCode
from tests.fakes.admin_site import ledger_row, make_home, served
from tests.fakes.command_line import cic

HEAVY = ("aiohttp", "textual", "uvloop", "sqlite_utils", "cryptography", "httpx", "numpy", "redis")
CIC = [sys.executable, "-m", "appliance.cli"]


def test_help_lists_every_command_with_what_it_does() -> None:
    done = cic("--help")
    assert done.code == ExitCode.OK
    lines = {line.split()[0]: line.split(maxsplit=1)[1:] for line in done.out.splitlines() if line}
    for entry in importlib.metadata.entry_points(group=cli.GROUP):
        assert lines[entry.name], entry.name


def test_nothing_heavy_is_loaded_for_help_or_for_a_plain_command(tmp_path: Path) -> None:
    make_home(tmp_path)
    script = (
        "import sys; from appliance.cli import main;"
        "codes = [main(['--help']), main(['--home', sys.argv[1], 'status'])];"
        f"print(codes, [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.splitlines()[-1].startswith("[0, <ExitCode.UNREACHABLE: 5>] []")


def test_one_broken_program_harms_only_its_own_command(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = importlib.metadata.EntryPoint("gone", "no.such.module:it", cli.GROUP)
    monkeypatch.setitem(cli.cic.entries, "gone", broken)  # type: ignore[attr-defined]
    assert "gone" in cic("--help").out
    done = cic("gone")
    assert done.code == ExitCode.CONFIGURATION
    assert "no" in done.err


def test_the_version_is_that_of_the_distribution() -> None:
    assert cic("--version").out == f"cic {importlib.metadata.version('crosslogic-appliance')}\n"


def test_json_is_taken_before_and_behind_the_subcommand(tmp_path: Path) -> None:
    with served(tmp_path):
        before = cic("--home", tmp_path, "--json", "tenant", "list")
        behind = cic("--home", tmp_path, "tenant", "list", "--json")
        plain = cic("--home", tmp_path, "tenant", "list")
    assert (before.out, before.code) == (behind.out, behind.code) == ("[]\n", 0)
    assert (plain.out, plain.err) == ("", "No tenants yet.\n")


def test_every_command_takes_json_and_help() -> None:
    context = click.Context(cli.cic)

    def walk(command: click.Command, path: str) -> None:
        options = {name for parameter in command.params for name in parameter.opts}
        assert "--json" in options, path
        if isinstance(command, click.Group):
            for name, nested in command.commands.items():
                assert nested.help, f"{path} {name}"
                walk(nested, f"{path} {name}")

    for name in cli.cic.list_commands(context):
        command = cli.cic.get_command(context, name)
        assert command is not None
        assert cic(name, "--help").code == ExitCode.OK
        walk(command, name)


def test_an_unknown_home_names_the_command_that_makes_it(tmp_path: Path) -> None:
    home = tmp_path / "no such"
    for command in (["status"], ["serve"], ["tenant", "list"], ["usage"], ["ledger", "verify"]):
        done = cic("--home", home, *command)
        assert done.code == ExitCode.CONFIGURATION
        assert done.out == ""
        assert done.err == (
            f"cic: There is no site in {home}. Make one with `cic --home '{home}' init`.\n"
        )
    error = cic("--home", home, "--json", "status").error
    assert error["code"] == "unknown_home"


def test_the_home_also_comes_from_the_environment(tmp_path: Path) -> None:
    done = cic("--json", "status", environ={"CIC_HOME": str(tmp_path / "elsewhere")})
    assert str(tmp_path / "elsewhere") in done.error["message"]


def test_a_site_that_does_not_run_says_how_to_start_it(tmp_path: Path) -> None:
    make_home(tmp_path)
    done = cic("--home", tmp_path, "tenant", "list")
    assert done.code == ExitCode.UNREACHABLE
    assert done.err.endswith(f"Start it with `cic --home {tmp_path} serve`.\n")
    assert cic("--home", tmp_path, "--json", "key", "list").error["code"] == "not_running"


def test_a_socket_nobody_listens_on_is_a_site_that_does_not_run(tmp_path: Path) -> None:
    with served(tmp_path) as site:
        site.home.admin_socket.rename(tmp_path / "aside")
        (tmp_path / "aside").touch()
    (tmp_path / "aside").rename(site.home.admin_socket)
    assert cic("--home", tmp_path, "--json", "status").error["code"] == "not_running"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another account")
def test_a_socket_of_somebody_else_is_told_apart_from_a_stopped_site(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents[:3]):  # three when tests run side by side
        folder.chmod(0o755)
    with served(tmp_path) as site:
        site.home.run.chmod(0o755)
        # Once as ourselves, so that all is loaded: the other account may read neither the sources
        # nor the interpreter where they lie in somebody's home.
        script = (
            "import contextlib, io, os, sys; from appliance.cli import main;"
            "arguments = ['--home', sys.argv[1], '--json', 'status']\n"
            "aside = io.TextIOWrapper(io.BytesIO())\n"
            "with contextlib.redirect_stdout(aside): assert main(arguments) == 0\n"
            "os.setgid(54321); os.setuid(54321); sys.exit(main(arguments))"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == ExitCode.UNREACHABLE
    assert json.loads(done.stdout)["error"]["code"] == "permission_denied"


def test_an_appliance_that_hangs_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(tmp_path) as site:

        def slow() -> int:
            time.sleep(0.5)
            return 0

        monkeypatch.setattr(site.records, "records", slow)
        with (
            AdminClient(site.home, timeout_s=0.05) as client,
            pytest.raises(CommandError, match="in time") as caught,
        ):
            client.get("/v1/status", SiteStatus)
    assert caught.value.exit_code == ExitCode.UNREACHABLE


@pytest.mark.parametrize(
    "line",
    [
        "frobnicate",
        "tenant",
        "tenant create",
        "tenant create a --plan gold",
        "key create --tenant a",
        "key create --tenant a --env b --rpm -1",
        "key create --tenant a --env b --tpm many",
        "key create --tenant a --env b --expires soon",
        "deployment create --name x --engine abacus",
        "usage --by colour",
        "usage --since yesterday",
        "region create x --multiplier cheap",
        "region create x --multiplier 0.00001",
        "key rotate x --overlap long",
    ],
)
def test_a_wrong_command_line_is_a_usage_error_in_either_form(line: str, tmp_path: Path) -> None:
    make_home(tmp_path)
    plain = cic("--home", tmp_path, *line.split())
    assert (plain.code, plain.out) == (ExitCode.USAGE, "")
    assert "Usage: cic" in plain.err
    done = cic("--home", tmp_path, *line.split(), "--json")
    assert done.code == ExitCode.USAGE
    if line != "tenant":
        assert done.error["code"] == "usage"


def test_every_code_with_an_exit_code_of_its_own_is_a_code_of_the_product() -> None:
    importlib.import_module("appliance.main")  # so that every class of error exists

    def codes(kind: type[CrossLogicError]) -> set[str]:
        return {kind.code}.union(*(codes(nested) for nested in kind.__subclasses__()))

    assert set(cli._EXIT_CODES) <= codes(CrossLogicError)


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    with served(tmp_path) as site:
        site.records.held = [ledger_row(seq) for seq in range(1, 3_000)]
        command = [*CIC, "--home", str(tmp_path), "ledger", "list"]
        done = subprocess.run(
            ["/bin/sh", "-c", '"$@" | head -n 1', "sh", *command],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    assert json.loads(done.stdout)["seq"] == 1
    assert done.stderr == ""
