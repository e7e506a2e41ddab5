"""litellm as a client, in its own environment: it pins another openai than the other clients."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.fakes.site import Key, Site

ROOT = Path(__file__).resolve().parents[3]
PYTHON = ROOT / ".venv-litellm" / "bin" / "python"
SCRIPT = Path(__file__).with_name("litellm_client.py")

pytestmark = pytest.mark.skipif(
    not PYTHON.exists(), reason="no .venv-litellm here: `make test` makes it"
)


@pytest.mark.parametrize(("model", "vectors"), [("fault", "fault"), ("tiny", "tiny-vectors")])
def test_litellm(site: Site, key: Key, model: str, vectors: str) -> None:
    asked = {"base_url": site.base_url, "key": key.secret, "model": model, "vectors": vectors}
    earlier = len(site.ledger())  # other tests of this site used the key before
    done = subprocess.run(
        [str(PYTHON), str(SCRIPT)],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env={"LITELLM_LOCAL_MODEL_COST_MAP": "True", "PATH": "/usr/bin:/bin", "NO_PROXY": "*"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["chat"]["text"]
    assert seen["stream"]["text"]
    assert 0 < seen["chat"]["output"] <= 6
    assert 0 < seen["stream"]["output"] <= 6
    assert seen["async"]
    assert seen["vectors"] == 2
    assert seen["errors"] == {"key": "AuthenticationError", "model": "NotFoundError"}
    record = next(
        row for row in site.ledger(earlier) if row["key"] == key.name and row["model"] == model
    )
    assert record["status"] == "ok"
