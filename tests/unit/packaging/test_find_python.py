"""packaging/find-python: which Python is taken, and what is said when there is none."""

import subprocess
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT

SCRIPT = ROOT / "packaging" / "find-python"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A PATH of our own: nothing but a shell to run the script with."""
    (tmp_path / "sh").symlink_to("/bin/sh")
    return tmp_path


def put(folder: Path, name: str, version: str, *, venv: bool = True) -> str:
    """A program that answers as a Python of that version does."""
    program = folder / name
    program.write_text(
        f"""#!/bin/sh
        case $2 in
        *ensurepip*) exit {0 if venv else 1} ;;
        *version_info*) echo {version} ;;
        *executable*) echo {program} ;;
        esac
        """
    )
    program.chmod(0o755)
    return str(program)


def find(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", str(SCRIPT), *arguments],
        env={"PATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_a_suitable_python_is_named_by_its_path(folder: Path, version: str) -> None:
    program = put(folder, "my-python", version)
    found = find(folder, program)
    assert (found.returncode, found.stdout.strip()) == (0, program)


@pytest.mark.parametrize("version", ["3.9", "3.10", "3.14"])
def test_another_version_is_refused_with_one_line_to_type(folder: Path, version: str) -> None:
    found = find(folder, put(folder, "my-python", version))
    assert found.returncode == 1
    assert found.stdout == ""
    assert f"is Python {version}" in found.stderr
    assert [line for line in found.stderr.splitlines() if line.startswith("Fix: ")] != []


def test_a_python_without_venv_names_the_package_that_brings_it(folder: Path) -> None:
    found = find(folder, put(folder, "my-python", "3.12", venv=False))
    assert found.returncode == 1
    assert "Fix: sudo apt-get install -y python3.12-venv" in found.stderr.splitlines()


def test_a_python_that_is_not_there_is_refused(folder: Path) -> None:
    found = find(folder, str(folder / "nowhere"))
    assert found.returncode == 1
    assert "PYTHON=/path/to/" in found.stderr
