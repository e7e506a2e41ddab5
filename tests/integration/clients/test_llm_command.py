"""`llm`, the command, with the endpoint in extra-openai-models.yaml as its manual says."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.site import Key, Site

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("llm") is None, reason="the package llm is not installed"
)


@pytest.fixture
def folder(tmp_path: Path, site: Site) -> Path:
    (tmp_path / "extra-openai-models.yaml").write_text(
        "".join(
            f"- model_id: site-{name}\n  model_name: {name}\n  api_base: {site.base_url}\n"
            f"  api_key_name: site\n  can_stream: true\n"
            for name in ("fault", "tiny")
        )
    )
    return tmp_path


def llm(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llm", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "LLM_USER_PATH": str(folder), "LLM_LOAD_PLUGINS": ""},
    )


@pytest.mark.parametrize("model", ["fault", "tiny"])
@pytest.mark.parametrize("more", [(), ("--no-stream",)])
def test_a_prompt(folder: Path, site: Site, key: Key, model: str, more: tuple[str, ...]) -> None:
    before = len(site.ledger())
    prompt = ("prompt", "Say something.", "-m", f"site-{model}", "-o", "max_tokens", "5")
    done = llm(folder, *prompt, "--key", key.secret, *more)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    record = site.ledger()[before]
    assert (record["status"], record["model"], record["key"]) == ("ok", model, key.name)


def test_a_wrong_key_is_explained(folder: Path) -> None:
    done = llm(folder, "prompt", "x", "-m", "site-fault", "--key", "clsk_live_wrong")
    assert done.returncode != 0
    assert "401" in done.stderr
    assert "API key" in done.stderr
