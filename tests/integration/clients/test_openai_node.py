"""openai-node, where node is on the machine."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.fakes.site import Key, Site

ROOT = Path(__file__).resolve().parents[3]
MODULES = ROOT / ".venv-node" / "node_modules"
SCRIPT = Path(__file__).with_name("openai_client.mjs")
NODE = shutil.which("node")

pytestmark = pytest.mark.skipif(
    NODE is None or not (MODULES / "openai").exists(),
    reason="no node, or no openai package in .venv-node: `make test` makes it where npm is",
)


@pytest.mark.parametrize(("model", "vectors"), [("fault", "fault"), ("tiny", "tiny-vectors")])
def test_openai_node(site: Site, key: Key, tmp_path: Path, model: str, vectors: str) -> None:
    # node looks for packages beside the script.
    (tmp_path / "node_modules").symlink_to(MODULES)
    script = tmp_path / SCRIPT.name
    shutil.copy(SCRIPT, script)
    asked = {"base_url": site.base_url, "key": key.secret, "model": model, "vectors": vectors}
    assert NODE
    done = subprocess.run(
        [NODE, str(script)],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout)
    assert seen["chat"]["text"]
    assert seen["stream"]["text"]
    assert len(seen["stream"]["usages"]) == 1
    assert seen["silent"] == 0
    assert len(seen["vectors"]) == 2
    assert seen["vectors"][0] in {8, 64}
    assert seen["response"]["text"]
    assert {"fault", "tiny", "tiny-vectors"} <= set(seen["models"])
    assert seen["errors"] == {
        "key": ["AuthenticationError", 401, "invalid_api_key"],
        "model": ["NotFoundError", 404, "model_not_found"],
    }
    record = site.record(seen["requestId"])
    assert record["output_tokens"] == seen["chat"]["usage"]["completion_tokens"]
