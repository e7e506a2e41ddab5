"""A burst with machines that really join: over TLS with a token of their own, taken away, replaced.

The cloud is this host (tests/fakes/sky_cloud.py); everything else is the product: the task's
script, `cic agent join`, the node API, doors, engines and `cic burst`.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.metadata import metadata_service
from tests.fakes.site import Site, running_site
from tests.fakes.tiny_gguf import write_tiny_gguf

PROGRAM = Path(__file__).parents[2] / "fakes" / "sky_cloud.py"
WAIT_S = 60.0


async def call(site: Site, method: str, path: str, body: object = None) -> Any:
    return await asyncio.to_thread(site.admin, method, path, body)


async def burst_until(site: Site, states: list[str]) -> dict[str, Any]:
    """The burst, once its machines are in those states."""
    seen: Any = None
    try:
        async with asyncio.timeout(WAIT_S):
            while True:
                (seen,) = await call(site, "GET", "/v1/bursts")
                if [member["state"] for member in seen["members"]] == states:
                    return dict(seen)
                await asyncio.sleep(0.1)
    except TimeoutError:
        logs = [path.read_text()[-2_000:] for path in site.folder.parent.rglob("mem*/log")]
        logs += [path.read_text()[-2_000:] for path in site.folder.parent.rglob("cic-*/log")]
        pytest.fail(f"still {seen}\n{logs}")


def interpreter(folder: Path) -> Path:
    """A `python` that is the fake cloud, in the suite's own interpreter."""
    program = folder / "python"
    program.write_text(f"#!{sys.executable}\n{PROGRAM.read_text()}")
    program.chmod(0o755)
    return program


async def test_machines_join_serve_are_replaced_and_given_back(tmp_path: Path) -> None:
    cloud = tmp_path / "cloud"
    cloud.mkdir()
    settings = {
        "CIC_BURST_PROVIDER": "skypilot",
        "CIC_BURST_PYTHON": str(interpreter(tmp_path)),
        "CIC_BURST_INSTALL": "true",
        "CIC_BURST_POLL_S": "0.3",
        "CIC_NODES_ADVERTISE": "127.0.0.1",
        "FAKE_CLOUD": str(cloud),
    }
    async with metadata_service() as metadata:
        watch = {"CIC_PREEMPTION": "gcp", "CIC_AGENT_METADATA_URL": metadata.url}
        (cloud / "env.json").write_text(json.dumps(watch))
        with running_site(tmp_path / "site", settings=settings) as site:
            wanted = ("--gpu", "L4", "--budget", "5")
            planned = await asyncio.to_thread(site.cic, "burst", "plan", *wanted)
            assert [(o["region"], o["spot"]) for o in planned["offers"]] == [
                ("RO", True),
                ("US", False),
            ]
            assert planned["chosen"]["price"] == "0.19"
            up = await asyncio.to_thread(site.cic, "burst", "up", "more", *wanted)
            assert up["state"] == "starting"
            await burst_until(site, ["running"])

            model = write_tiny_gguf(tmp_path / "tiny.gguf")
            await call(
                *(site, "POST", "/v1/deployments"),
                {"name": "m", "engine": "llamacpp", "model": str(model), "context_tokens": 512},
            )
            row = await asyncio.to_thread(site.wait_ready, "m", WAIT_S)
            assert [replica["node"] for replica in row["replicas"]] == ["burst-more-0-0"]
            key = await asyncio.to_thread(site.key)
            body = {
                "model": "m",
                "messages": [{"role": "user", "content": "hello"}],
                "max_tokens": 4,
            }
            post = (site.post, "/chat/completions", body, key)
            status, *_ = await asyncio.to_thread(*post)
            assert status == 200

            (cloud / "env.json").write_text("{}")  # the next machine stays
            metadata.gcp_preempted = "TRUE"
            taken = await burst_until(site, ["gone", "running"])
            assert taken["members"][0]["reason"] == "its cloud takes it away"
            row = await asyncio.to_thread(site.wait_ready, "m", WAIT_S)
            assert [replica["node"] for replica in row["replicas"]] == ["burst-more-0-1"]
            status, *_ = await asyncio.to_thread(*post)
            assert status == 200
            names = {node["name"] for node in await call(site, "GET", "/v1/nodes")}
            assert names == {"burst-more-0-1"}

            await asyncio.to_thread(site.cic, "burst", "down", "more")
            ended = await burst_until(site, ["gone", "gone"])
            assert float(ended["spent"]) < 1
            assert await call(site, "GET", "/v1/nodes") == []
            assert all(machine.suffix == ".gone" for machine in cloud.glob("cic-*"))
            secrets = [path.read_text() for path in site.home.rglob("*.log")]
            assert not any("clnt_" in text for text in [*secrets, site.printed()])
