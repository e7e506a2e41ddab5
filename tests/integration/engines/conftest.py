"""A site with short deadlines in front of an engine that does everything wrong."""

from collections.abc import Iterator

import pytest

from tests.fakes.engine import FaultEngine, engine_in_thread
from tests.fakes.outcome import Asker
from tests.fakes.site import Key, Site, running_site

FIRST_TOKEN_S = 1.0
TOKEN_GAP_S = 0.8


@pytest.fixture(scope="session")
def engine() -> Iterator[FaultEngine]:
    with engine_in_thread() as running:
        yield running


@pytest.fixture(scope="session")
def site(engine: FaultEngine) -> Iterator[Site]:
    settings = {
        "CIC_TIMEOUTS_CONNECT_S": "0.5",
        "CIC_TIMEOUTS_FIRST_TOKEN_S": str(FIRST_TOKEN_S),
        "CIC_TIMEOUTS_TOKEN_GAP_S": str(TOKEN_GAP_S),
        "CIC_TIMEOUTS_TOTAL_S": "20",
        # What ejection does is looked at elsewhere; here every fault shall meet the replica.
        "CIC_SCHEDULER_EJECT_AFTER_FAILURES": "1000000",
    }
    with running_site(settings=settings) as running:
        running.deployment("fault", engine.url)
        yield running


@pytest.fixture(scope="session")
def key(site: Site) -> Key:
    return site.key()


@pytest.fixture
def ask(site: Site, key: Key, engine: FaultEngine) -> Asker:
    engine.reset()
    return Asker(site, key)
