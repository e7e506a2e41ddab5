"""Privacy with a real llama.cpp: what it prints about a request must not reach its log on disk."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.site import Key, Site, running_site
from tests.fakes.tiny_gguf import write_tiny_gguf

CANARY = "canaryengine81c6f2"

SCHEMA = {"type": "object", "properties": {CANARY: {"enum": [CANARY]}}, "required": [CANARY]}
FORMAT = {"type": "json_schema", "json_schema": {"name": CANARY, "schema": SCHEMA}}
TOOL = {"type": "function", "function": {"name": CANARY, "parameters": SCHEMA}}
WORD = {"role": "user", "content": CANARY}

# Each in the hope that the engine has something to say about it.
ODDITIES: dict[str, dict[str, Any]] = {
    "nothing odd": {},
    "a stream": {"stream": True},
    "a grammar": {"grammar": f'root ::= "{CANARY}"'},
    "a broken grammar": {"grammar": f"root ::= {CANARY} ::= ("},
    "a grammar without end": {"grammar": f'root ::= root "{CANARY}"'},
    "a schema": {"response_format": FORMAT},
    "a schema with a broken reference": {"json_schema": {"$ref": CANARY}},
    "a pattern": {"json_schema": {"type": "string", "pattern": f"^({CANARY}$"}},
    "tools": {"tools": [TOOL], "tool_choice": "required"},
    "a stop": {"stop": [CANARY]},
    "biases": {"logit_bias": {CANARY: 5}},
    "arguments of the template": {"chat_template_kwargs": {CANARY: CANARY}},
    "too long": {"messages": [{"role": "user", "content": f"{CANARY} " * 500}]},
    "an unknown role": {"messages": [{"role": CANARY, "content": CANARY}]},
    "an image": {
        "messages": [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": CANARY}}]}
        ]
    },
    "an unknown adapter": {"lora": [{"id": CANARY, "scale": 1}]},
    "an unknown sampler": {"samplers": [CANARY], "temperature": CANARY},
    "an unknown field": {CANARY: CANARY},
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    model = write_tiny_gguf(tmp_path_factory.mktemp("models") / "tiny.gguf")
    settings = {
        "CIC_LOG_LEVEL": "debug",
        "CIC_SCHEDULER_EJECT_AFTER_FAILURES": "1000000",
        "CIC_TIMEOUTS_FIRST_TOKEN_S": "10",
    }
    with running_site(settings=settings, with_agent=True) as running:
        body = {"name": "tiny", "engine": "llamacpp", "model": str(model), "context_tokens": 512}
        running.admin("POST", "/v1/deployments", body)
        running.wait_ready("tiny", 60)
        yield running


@pytest.fixture(scope="module")
def key(site: Site) -> Key:
    return site.key()


def leaks(site: Site, canary: str = CANARY) -> list[str]:
    """Where it lies, in all that the appliance, its agent and its engines wrote."""
    files = [path for path in site.folder.rglob("*") if path.is_file()]
    assert any("engines" in path.parts for path in files)  # the engine's own log is among them
    return [str(path) for path in files if canary.encode() in path.read_bytes()]


@pytest.mark.parametrize("oddity", ODDITIES)
def test_what_the_engine_says_is_not_kept(site: Site, key: Key, oddity: str) -> None:
    # One of its own for each, so that a leak is found where it happened.
    canary = f"{CANARY}x{list(ODDITIES).index(oddity)}x"
    body = {"model": "tiny", "messages": [WORD], "max_tokens": 4, **ODDITIES[oddity]}
    body = json.loads(json.dumps(body).replace(CANARY, canary))
    status, _, _ = site.post("/chat/completions", body, key)
    assert status in {200, 400, 500, 502}
    assert not leaks(site, canary)


def test_nothing_is_left_when_the_engine_stops(site: Site, key: Key) -> None:
    site.admin("DELETE", "/v1/deployments/tiny")
    site.until(lambda: site.get("/models/tiny", key)[0] == 404, 10, "the deployment to go")
    assert not leaks(site)
