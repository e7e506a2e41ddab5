"""docs/UPGRADE.md says what upgrades do: their steps, options, outcomes and figures."""

import re

import pytest

from installer.options import parser
from installer.retention import KEPT
from installer.space import BACKUP_COPIES, SPARE, TRIAL_COPIES
from installer.upgrade_steps import ACTS
from tests.architecture.tree import ROOT

PAGE = (ROOT / "docs" / "UPGRADE.md").read_text()


@pytest.mark.parametrize("command", ["upgrade", "rollback", "versions", "history"])
def test_every_option_stands_with_its_commands(command: str) -> None:
    words = parser()._subparsers
    assert words is not None
    choices = words._group_actions[0].choices
    assert isinstance(choices, dict)
    rows = dict(
        re.findall(r"(?m)^\| `(--[a-z-]+)[^|]*\| ([^|]*) \|", PAGE.partition("## Options")[2])
    )
    has = {option for one in choices[command]._actions for option in one.option_strings}
    for option, commands in rows.items():
        told = commands == "all four" or f"`{command}" in commands
        assert told == (option in has), option
    assert {one for one in has if one.startswith("--")} - {"--help"} <= rows.keys()


def test_every_step_and_outcome_stands() -> None:
    for step in ACTS:
        assert f"`{step}`" in PAGE
    source = (ROOT / "installer" / "upgrade_run.py").read_text()
    outcomes = set(re.findall(r'"outcome": "([a-z ]+)"', source))
    assert outcomes == {"finished", "failed", "rolled back", "undone", "not taken back"}
    for outcome in outcomes:
        assert f"| `{outcome}` |" in PAGE


def test_the_figures_are_those_of_the_program() -> None:
    assert f"{TRIAL_COPIES} times registry and ledger, for the trial" in PAGE
    assert f"{BACKUP_COPIES} times registry and ledger" in PAGE
    assert f"{SPARE >> 20} MiB stay free" in PAGE
    assert KEPT == 3
    assert "the last three" in PAGE
