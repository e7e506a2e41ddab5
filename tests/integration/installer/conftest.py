"""A sealed stand-in bundle, made once, and roots to install it into."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.architecture.tree import ROOT
from tests.fakes.stand_in_bundle import make_bundle, make_root


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class Installation:
    """A root, and the installer's command line for it."""

    root: Path
    bundle: Path

    def run(self, *words: str, program: Path | None = None) -> Done:
        """The installer of a bundle's folder by install.sh, or `program`."""
        first = program or self.bundle / "install.sh"
        return run_program([str(first), *words, "--prefix", str(self.root)])

    def killed_at(self, number: int | str, count_file: Path, *words: str) -> Done:
        """The installer's own code in this environment's Python, killed before a change.

        `number`: of the change; STEP+N: of the change since that step began.
        """
        killer = ROOT / "tests/fakes/killed_installer.py"
        command = [sys.executable, str(killer), str(number), str(self.root), str(count_file)]
        return run_program(
            [*command, *words, "--prefix", str(self.root)],
            CROSSLOGIC_BUNDLE=str(self.bundle),
            PYTHONPATH=str(ROOT),
        )

    def installed(self, *words: str) -> Done:
        """The `cic-installer` of the version in use."""
        return self.run(*words, program=self.root / "opt/crosslogic/current/bin/cic-installer")

    @property
    def current(self) -> str:
        return str((self.root / "opt/crosslogic/current").readlink())

    @property
    def history(self) -> list[dict[str, Any]]:
        return [
            json.loads(line) for line in (self.records / "history.jsonl").read_text().splitlines()
        ]

    @property
    def records(self) -> Path:
        return self.root / "var/lib/crosslogic-installer"

    @property
    def manifest(self) -> Any:
        return json.loads((self.records / "install-manifest.json").read_bytes())

    def cic(self, *words: str) -> Any:
        program = self.root / "opt/crosslogic/current/bin/cic"
        home = self.root / "var/lib/crosslogic"
        done = run_program([str(program), "--home", str(home), "--json", *words])
        assert done.code == 0, done
        return done.json


def run_program(command: list[str], **variables: str) -> Done:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **variables},
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def installation(tmp_path: Path, bundle: Path) -> Installation:
    return Installation(make_root(tmp_path / "r"), bundle)


@pytest.fixture
def answers(tmp_path: Path) -> Callable[[str], str]:
    """An answers file with this text; the endpoint takes any free port of the loopback."""

    def write(text: str = "") -> str:
        file = tmp_path / "answers.toml"
        file.write_text(f'{text}\n[endpoint]\nlisten = "127.0.0.1:0"\ntls = "off"\n')
        return str(file)

    return write


@pytest.fixture(scope="session")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of the next version."""
    return make_bundle(tmp_path_factory.mktemp("newer"), "0.2.0")


@pytest.fixture(scope="session")
def _installed_root(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    root = make_root(folder / "r")
    (folder / "answers.toml").write_text(
        'start = false\n[endpoint]\nlisten = "127.0.0.1:0"\ntls = "off"\n'
    )
    done = Installation(root, bundle).run("--answers", str(folder / "answers.toml"))
    assert done.code == 0, done.err
    return root


@pytest.fixture
def site(tmp_path: Path, bundle: Path, _installed_root: Path) -> Installation:
    """Version 0.1.0 with its site below a root, which no systemd manages."""
    shutil.copytree(_installed_root, tmp_path / "s", symlinks=True)
    return Installation(tmp_path / "s", bundle)
