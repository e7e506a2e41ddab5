"""One site in front of two engines: a real llama.cpp with a tiny model, and the fake one."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlunsplit

import pytest

from tests.fakes.engine import EngineProcess, engine_as_process
from tests.fakes.site import Site, running_site
from tests.fakes.tiny_gguf import write_tiny_gguf

ROOT = Path(__file__).parents[3]
CONTEXT_TOKENS = 512


@pytest.fixture(scope="session")
def fault_engine() -> Iterator[EngineProcess]:
    with engine_as_process() as running:
        yield running


@pytest.fixture(scope="session")
def llamacpp_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A llama.cpp of its own, so that these tests need no agent."""
    folder = tmp_path_factory.mktemp("llamacpp")
    model = write_tiny_gguf(folder / "tiny.gguf")
    with (folder / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "agent.engines.llamacpp_server"),
                *("--model", str(model), "--alias", "tiny"),
                *("--context", str(CONTEXT_TOKENS), "--parallel", "4"),
            ],
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=ROOT,
        )
    try:
        assert process.stdout
        ready = json.loads(process.stdout.readline())
        yield urlunsplit(("http", f"{ready['host']}:{ready['port']}", "", "", ""))
    finally:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()


@pytest.fixture(scope="session")
def limited_site(fault_engine: EngineProcess, llamacpp_url: str) -> Iterator[Site]:
    with running_site() as site:
        site.deployment("fault", fault_engine.url)
        site.deployment("tiny", llamacpp_url, context_tokens=CONTEXT_TOKENS)
        yield site
