"""What the tests of the registry share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.registry.registry import Registry
from tests.fakes.registry import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "registry.db")
    yield site
    site.close()


@pytest.fixture
def registry(site: Site) -> Registry:
    return site.registry
