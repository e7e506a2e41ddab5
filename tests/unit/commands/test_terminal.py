"""At a terminal: questions before deletions, colours unless they are not wanted."""

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.wire.command import ExitCode
from tests.fakes.admin_site import AdminSite, served
from tests.fakes.command_line import cic

CIC = [sys.executable, "-m", "appliance.cli"]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[AdminSite]:
    with served(tmp_path) as site:
        assert cic("--home", tmp_path, "tenant", "create", "acme").code == ExitCode.OK
        yield site


def at_terminal(
    site: AdminSite, *arguments: str, typed: str = "", environ: dict[str, str] | None = None
) -> tuple[int, str]:
    """Run `cic` with a terminal on all three streams; its exit code and what it showed."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*CIC, "--home", str(site.home.config), *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={"PATH": os.environ["PATH"], "TERM": "xterm", "COLUMNS": "100", **(environ or {})},
    )
    os.close(theirs)
    os.write(ours, typed.encode())
    shown = b""
    while True:
        try:
            piece = os.read(ours, 65_536)
        except OSError:  # EIO: the other side is closed
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    return process.wait(20), shown.decode()


def tenants(site: AdminSite) -> list[str]:
    return [row["name"] for row in site.client.get("/v1/tenants").json()]


def test_a_deletion_is_asked_for_and_done_on_yes(site: AdminSite) -> None:
    code, shown = at_terminal(site, "tenant", "delete", "acme", typed="y\n")
    assert (code, tenants(site)) == (ExitCode.OK, [])
    assert "Delete the tenant acme? [y/N]" in shown


def test_anything_but_yes_leaves_it(site: AdminSite) -> None:
    for typed in ("n\n", "\n"):
        code, shown = at_terminal(site, "tenant", "delete", "acme", typed=typed)
        assert (code, tenants(site)) == (ExitCode.FAILED, ["acme"])
        assert "Nothing was deleted." in shown


def test_ctrl_c_at_the_question_is_an_interruption(site: AdminSite) -> None:
    code, shown = at_terminal(site, "tenant", "delete", "acme", typed="\x04")
    assert (code, tenants(site)) == (ExitCode.INTERRUPTED, ["acme"])
    assert "Interrupted." in shown
    assert "Traceback" not in shown


def test_states_are_coloured_unless_colours_are_not_wanted(site: AdminSite) -> None:
    _, coloured = at_terminal(site, "tenant", "list")
    assert "\x1b[32mactive" in coloured
    _, plain = at_terminal(site, "tenant", "list", environ={"NO_COLOR": "1"})
    assert "\x1b[3" not in plain
    assert "active" in plain
