"""One site for all clients: a fault-injecting engine, and a real llama.cpp with tiny models."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.fakes.engine import FaultEngine, engine_in_thread
from tests.fakes.engine_answers import figures
from tests.fakes.site import Key, Site, running_site
from tests.fakes.tiny_gguf import write_tiny_gguf

FAULT = "fault"  # the fault-injecting engine
TINY = "tiny"  # llama.cpp with random weights
TINY_VECTORS = "tiny-vectors"  # the same, for embeddings


@pytest.fixture(scope="session")
def engine() -> Iterator[FaultEngine]:
    with engine_in_thread() as running:
        yield running


@pytest.fixture(scope="session")
def site(engine: FaultEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    settings = {
        "CIC_TIMEOUTS_FIRST_TOKEN_S": "10",
        "CIC_TIMEOUTS_TOKEN_GAP_S": "2",
        "CIC_SCHEDULER_EJECT_AFTER_FAILURES": "1000000",  # faults here are never the replica's end
    }
    models = tmp_path_factory.mktemp("models")
    with running_site(settings=settings, with_agent=True) as running:
        llamacpp(running, TINY, write_tiny_gguf(models / "tiny.gguf"))
        vectors = write_tiny_gguf(models / "vectors.gguf", embedding=True)
        llamacpp(running, TINY_VECTORS, vectors, embedding=True)
        running.deployment(FAULT, engine.url)
        running.wait_ready(TINY, 60)
        running.wait_ready(TINY_VECTORS, 60)
        yield running


def llamacpp(site: Site, name: str, model: Path, **more: object) -> None:
    body = {"name": name, "engine": "llamacpp", "model": str(model), "context_tokens": 512}
    site.admin("POST", "/v1/deployments", {**body, "parallel": 2, **more})


@pytest.fixture(scope="session")
def key(site: Site) -> Key:
    return site.key()


@pytest.fixture(autouse=True)
def clean_engine(engine: FaultEngine) -> None:
    engine.reset()


@dataclass(frozen=True, slots=True)
class Metered:
    """Compares what a client was told with what the ledger holds."""

    site: Site
    key: Key

    def ok(self, request_id: str, input_tokens: int, output_tokens: int) -> dict[str, Any]:
        record = self.site.record(request_id)
        assert record["status"] == "ok"
        assert record["tenant"] == self.key.tenant
        assert record["environment"] == self.key.environment
        assert record["key"] == self.key.name
        assert (record["input_tokens"], record["output_tokens"]) == (input_tokens, output_tokens)
        assert record["measured"] == "engine"
        return record

    def honest(self, request_id: str, operation: str, body: dict[str, Any]) -> dict[str, Any]:
        """What the fault engine must have reported for this body."""
        tally = figures(operation, body)
        record = self.ok(request_id, tally.input, tally.output)
        assert record["cached_tokens"] == tally.cached
        assert record["operation"] == operation
        return record


@pytest.fixture
def metered(site: Site, key: Key) -> Metered:
    return Metered(site, key)


@pytest.fixture
def client(site: Site, key: Key) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=site.base_url, api_key=key.secret, max_retries=0, timeout=30
    ) as made:
        yield made


@pytest.fixture
def request_id(site: Site) -> str:
    return site.new_request_id()


@pytest.fixture
def counting_client(
    site: Site,
) -> Iterator[Callable[..., tuple[openai.OpenAI, list[str]]]]:
    """Clients whose every HTTP request, retries included, is noted."""
    made: list[openai.OpenAI] = []

    def make(secret: str, **more: Any) -> tuple[openai.OpenAI, list[str]]:
        sent: list[str] = []
        http = openai.DefaultHttpxClient(
            event_hooks={"request": [lambda request: sent.append(str(request.url))]}
        )
        one = openai.OpenAI(base_url=site.base_url, api_key=secret, http_client=http, **more)
        made.append(one)
        return one, sent

    yield make
    for one in made:
        one.close()
