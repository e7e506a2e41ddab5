"""A real engine's own counters come into the manifest, and go on after the engine was killed."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.fakes.site import Key, Site, running_site
from tests.fakes.tiny_gguf import write_tiny_gguf

pytest.importorskip("xllamacpp")

MODEL = "tiny"
TOKENS = 8


def chat(site: Site, key: Key) -> None:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": TOKENS,
        "ignore_eos": True,
    }
    status, _, content = site.post("/chat/completions", body, key)
    assert status == 200, content


def engines_in(site: Site) -> tuple[int, int]:
    seq = site.cic("manifest", "seal")["seq"]
    told = site.cic("manifest", "show", str(seq))["header"]["engines"]
    return int(told["prompt_tokens"]), int(told["generated_tokens"])


def test_the_counters_of_a_real_engine_are_sealed_and_never_fall(tmp_path: Path) -> None:
    model = write_tiny_gguf(tmp_path / "tiny.gguf")
    settings = {"CIC_SYNC_MODE": "offline", "CIC_MANIFESTS_WINDOW_S": "3600"}
    with running_site(tmp_path / "site", settings=settings, with_agent=True) as site:
        site.admin("POST", "/v1/models", {"name": MODEL, "path": str(model)})
        body = {"name": MODEL, "engine": "llamacpp", "model": MODEL, "parallel": 1}
        site.admin("POST", "/v1/deployments", body)
        row = site.wait_ready(MODEL, 60)
        key = site.key()
        chat(site, key)

        def counted(floor: int) -> tuple[int, int] | None:
            """Each look needs a record, so that there is something to seal."""
            chat(site, key)
            found = engines_in(site)
            return found if found[1] >= floor else None

        first = site.until(lambda: counted(TOKENS), 30, "the engine's counters in a manifest")
        records = site.ledger()
        assert sum(record["output_tokens"] for record in records) >= TOKENS
        (replica,) = row["replicas"]
        os.kill(replica["pid"], signal.SIGKILL)
        site.until(
            lambda: (
                site.admin("GET", f"/v1/deployments/{MODEL}")["replicas"][0]["pid"]
                not in {None, replica["pid"]}
            ),
            30,
            "another engine",
        )
        site.wait_ready(MODEL, 60)
        second = site.until(
            lambda: counted(first[1] + TOKENS), 30, "the new engine's counters on top"
        )
        assert second > first
        assert json.loads(site.run("--json", "manifest", "verify").stdout)["notes"] == []
