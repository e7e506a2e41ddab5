"""A site in front of an engine that is a process of its own: three processes, as in the field."""

from collections.abc import Iterator

import pytest

from tests.fakes.engine import EngineProcess, engine_as_process
from tests.fakes.site import Key, Site, running_site


@pytest.fixture(scope="session")
def engine() -> Iterator[EngineProcess]:
    with engine_as_process() as running:
        yield running


@pytest.fixture(scope="session")
def site(engine: EngineProcess) -> Iterator[Site]:
    settings = {"CIC_SCHEDULER_EJECT_AFTER_FAILURES": "1000000", "CIC_TIMEOUTS_DRAIN_S": "5"}
    with running_site(settings=settings) as running:
        running.deployment("fault", engine.url)
        yield running


@pytest.fixture(scope="session")
def key(site: Site) -> Key:
    return site.key()


@pytest.fixture(autouse=True)
def clean_engine(engine: EngineProcess) -> None:
    engine.control("reset")
