"""What is installed is what was declared: entry points, locks, licences."""

import importlib
import re
from importlib.metadata import PackageNotFoundError, metadata

import click
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.architecture.tree import ROOT, pyproject

LOCKS = ROOT / "packaging" / "requirements"
_PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^ ;\\]+)", re.MULTILINE)


def pins(lock: str) -> list[tuple[str, str]]:
    """(canonical name, version) of each entry of a lock; a name may come once per marker."""
    text = (LOCKS / lock).read_text(encoding="utf-8")
    return [(canonicalize_name(m["name"]), m["version"]) for m in _PIN.finditer(text)]


def test_entry_points_lead_to_commands() -> None:
    project = pyproject()["project"]
    targets = [*project["scripts"].values()]
    for name, target in project["entry-points"]["crosslogic.commands"].items():
        module, _, attribute = target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command), target
        assert command.name == name
    for target in targets:
        module, _, attribute = target.partition(":")
        assert callable(getattr(importlib.import_module(module), attribute))


def test_the_runtime_lock_covers_what_the_project_declares() -> None:
    project = pyproject()["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["llamacpp"]]
    declared += pyproject()["build-system"]["requires"]
    locked = dict(pins("runtime.txt"))
    for requirement in map(Requirement, declared):
        version = locked.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not locked: make lock"
        assert requirement.specifier.contains(version), (
            f"{requirement}, locked {version}: make lock"
        )


def test_the_locks_agree_where_they_share_an_environment() -> None:
    runtime = dict(pins("runtime.txt"))
    different = {
        name: (version, runtime[name])
        for name, version in pins("test.txt")
        if name in runtime and runtime[name] != version
    }
    assert different == {}


@pytest.mark.parametrize("lock", sorted(file.name for file in LOCKS.glob("*.txt")))
def test_every_locked_file_has_its_hash_and_no_address(lock: str) -> None:
    text = (LOCKS / lock).read_text(encoding="utf-8")
    entries = re.split(r"\n(?=[A-Za-z0-9])", text.partition("\n")[2])
    assert len(entries) == len(pins(lock)) > 0
    assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert not re.search(r"://|--index|--find-links| @ ", text)


def test_no_runtime_dependency_asks_for_more_than_attribution() -> None:
    """GPL and AGPL would reach the product; file-level copyleft such as MPL does not."""
    checked = 0
    for name, _ in pins("runtime.txt"):
        try:
            declared = metadata(name)
        except PackageNotFoundError:
            continue  # a marker leaves it out on this Python
        licence = " ".join(
            [
                declared.get("License-Expression") or "",
                (declared.get("License") or "").partition("\n")[0],
                *(c for c in declared.get_all("Classifier") or [] if c.startswith("License")),
            ]
        )
        assert licence.strip(), f"{name} declares no licence"
        assert not re.search(r"\bA?GPL|Affero|GNU General Public", licence), f"{name}: {licence}"
        checked += 1
    assert checked > 40
