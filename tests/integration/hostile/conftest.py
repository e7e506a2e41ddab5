"""One site with short deadlines, told to outlive whatever comes."""

from collections.abc import Callable, Iterator

import pytest

from tests.fakes.engine import FaultEngine, engine_in_thread
from tests.fakes.raw_client import RawClient
from tests.fakes.site import Key, Site, running_site

MEMORY_BYTES_MAX = 200 * 1024 * 1024
HEAD_S = 1.0
BODY_S = 1.5
KEEPALIVE_S = 2.0
WRITE_S = 3.0


@pytest.fixture(scope="session")
def engine() -> Iterator[FaultEngine]:
    with engine_in_thread() as running:
        yield running


@pytest.fixture(scope="session")
def site(engine: FaultEngine) -> Iterator[Site]:
    settings = {
        "CIC_TIMEOUTS_HEAD_S": str(HEAD_S),
        "CIC_TIMEOUTS_BODY_S": str(BODY_S),
        "CIC_TIMEOUTS_KEEPALIVE_S": str(KEEPALIVE_S),
        "CIC_TIMEOUTS_WRITE_S": str(WRITE_S),
    }
    with running_site(settings=settings) as running:
        running.deployment("fault", engine.url)
        yield running


@pytest.fixture(scope="session")
def key(site: Site) -> Key:
    return site.key()


@pytest.fixture
def connect(site: Site) -> Iterator[Callable[[], RawClient]]:
    made: list[RawClient] = []

    def one() -> RawClient:
        made.append(RawClient(site.address))
        return made[-1]

    yield one
    for client in made:
        client.close()


@pytest.fixture(autouse=True)
def unharmed(site: Site, key: Key) -> Iterator[None]:
    """After every abuse: an honest request is answered, and memory is within its bounds."""
    yield
    body = {"model": "fault", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    status, _, answer = site.post("/chat/completions", body, key)
    assert status == 200, answer
    assert site.memory_bytes() < MEMORY_BYTES_MAX
