"""The disk recorder, compiled once."""

import shutil
import sys
from pathlib import Path

import pytest

from tests.integration.crash.power import build_recorder


@pytest.fixture(scope="session")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("the disk recorder needs Linux and a C compiler")
    return build_recorder(compiler, tmp_path_factory.mktemp("recorder"))
