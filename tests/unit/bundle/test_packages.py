"""The .deb and the .rpm: what their scripts do, and that a build can be repeated."""

import subprocess
import sys
import tarfile
import tomllib
from hashlib import sha256
from pathlib import Path
from types import ModuleType

import pytest

from installer.layout import AGENT_ACCOUNT, GATEWAY_ACCOUNT, Layout

ROOT = Path(__file__).resolve().parents[3]
SCRIPTS = sorted((ROOT / "packaging/packages").glob("*.sh"))
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    import importlib.util  # noqa: PLC0415 (two modules of packaging/ are called build)

    spec = importlib.util.spec_from_file_location(
        "packages_build", ROOT / "packaging/packages/build.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "packages_build", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_for_any_posix_shell(script: Path) -> None:
    subprocess.run(["sh", "-n", script], check=True)
    assert script.read_text().startswith("#!/bin/sh\n")


def test_a_purge_leaves_nothing_that_the_installer_makes() -> None:
    layout = Layout()
    text = (ROOT / "packaging/packages/after-purge.sh").read_text()
    words = text.replace("\\\n", " ").split()
    folders = [layout.config, layout.home, layout.agent_home, layout.logs, layout.run]
    for folder in [*folders, layout.records, layout.versions]:
        assert str(folder) in words
    assert f"for account in {GATEWAY_ACCOUNT} {AGENT_ACCOUNT};" in text


@pytest.mark.parametrize("word", ["upgrade", "1", "failed-upgrade", ""])
def test_nothing_is_removed_when_a_newer_package_comes(word: str, tmp_path: Path) -> None:
    script = (ROOT / "packaging/packages/before-remove.sh").read_text()
    marked = tmp_path / "before-remove.sh"
    marked.write_text(script.replace("exec /usr", f"touch {tmp_path}/removed #"))
    marked.write_text(marked.read_text().replace("[ -d ", "true || [ -d "))
    marked.write_text(marked.read_text().replace("[ -x ", "true || [ -x "))
    subprocess.run(["sh", marked, *([word] if word else [])], check=True)
    assert not (tmp_path / "removed").exists()
    subprocess.run(["sh", marked, "remove"], check=True)
    assert (tmp_path / "removed").exists()


def test_the_same_bundle_makes_the_same_packages(build: ModuleType, tmp_path: Path) -> None:
    if not (ROOT / ".venv-bundle/bin/nfpm").exists():
        pytest.skip("packaging/setup bundle")
    name = f"crosslogic-appliance-{VERSION}-linux-x86_64"
    bundle = tmp_path / name
    (bundle / "tree/bin").mkdir(parents=True)
    (bundle / "install.sh").write_text("#!/bin/sh\n")
    (bundle / "install.sh").chmod(0o755)
    (bundle / "tree/bin/cic").write_text("#!/bin/sh\n")
    with tarfile.open(tmp_path / f"{name}.tar.gz", "w:gz") as tar:
        tar.add(bundle, name)
    seen = []
    for _ in range(2):
        assert build.main(tmp_path) == 0
        made = sorted([*tmp_path.glob("*.deb"), *tmp_path.glob("*.rpm")])
        seen.append([sha256(file.read_bytes()).hexdigest() for file in made])
    assert len(seen[0]) == 2
    assert seen[0] == seen[1]


def test_without_a_bundle_it_says_what_to_do(
    build: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build.main(tmp_path) == 1
    assert "Fix: make bundle" in capsys.readouterr().err
