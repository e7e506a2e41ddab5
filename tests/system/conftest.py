"""The bundles of dist/, and machines of two ages to install them into."""

import tomllib
from pathlib import Path

import pytest

from tests.system.machines import why_not

ROOT = Path(__file__).resolve().parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
NAME = f"crosslogic-appliance-{VERSION}-linux-x86_64"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = [item for item in items if "tests/system/" in str(item.path)]
    reason = why_not()
    if not reason and not (ROOT / "dist" / f"{NAME}.tar.gz").exists():
        reason = "make bundle"
    for item in here:
        item.add_marker(pytest.mark.serial)
        item.add_marker(pytest.mark.timeout(600))
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))
