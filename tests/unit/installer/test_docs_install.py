"""docs/INSTALL.md says what the installer does: fields, options, error codes, exit codes."""

import re

from installer import errors
from installer.answers import FIELDS, as_toml
from installer.options import parser
from tests.architecture.tree import ROOT

PAGE = (ROOT / "docs" / "INSTALL.md").read_text()


def test_every_field_stands_with_its_default_and_meaning() -> None:
    for one in FIELDS:
        assert f"| `{one.name}` | `{as_toml(one.default)}` | {one.meaning} |" in PAGE


def test_every_error_code_stands_with_its_exit_code() -> None:
    found = {
        kind.code: kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.InstallerError)
    }
    told = {code: int(number) for code, number in re.findall(r"\| `(\w+)` \| (\d) \|", PAGE)}
    assert told == found


def test_every_option_of_install_stands() -> None:
    words = parser()._subparsers
    assert words is not None
    choices = words._group_actions[0].choices
    assert isinstance(choices, dict)
    for action in choices["install"]._actions:
        for option in action.option_strings:
            if option.startswith("--") and option != "--help":
                assert f"`{option}" in PAGE, option
