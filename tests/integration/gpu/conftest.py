"""A real site whose node has the GPUs that the test says, and everything reads them as they are."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.nvml_library import FakeGpus, build_library
from tests.fakes.site import Site


@pytest.fixture(scope="session")
def nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def gpus(nvml: Path, tmp_path: Path) -> FakeGpus:
    return FakeGpus(nvml, tmp_path)


@pytest.fixture
def site(gpus: FakeGpus, tmp_path: Path) -> Iterator[Site]:
    """Not started: a test says first which GPUs there are."""
    site = Site(tmp_path, settings=gpus.environ, with_agent=True)
    site.init()
    yield site
    site.kill()
