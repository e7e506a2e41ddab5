"""What bursts ask of SkyPilot, asked of the real one: its parser, optimiser and API server."""

import asyncio
import sys
from pathlib import Path

import pytest

from appliance.fleet.burst.offers import rank
from appliance.fleet.burst.sky import Request, SkyPilot
from appliance.fleet.burst.task import Joining, task
from appliance.fleet.errors import CloudRefused, CloudUnavailable
from appliance.registry.bursts import BurstSpec
from tests.integration.burst.conftest import Sky

MICRO = 1_000_000
SPEC = BurstSpec("l4", 1, 1, "prefer", 5 * MICRO)
JOINING = Joining("https://10.0.0.1:8444", "clnt_a.b.c")


async def finished(clouds: SkyPilot, request: str) -> Request:
    """How a request of SkyPilot's ended."""
    async with asyncio.timeout(60):
        while True:
            found = (await clouds.look([request])).requests[request]
            if found.state not in {"pending", "running"}:
                return found
            await asyncio.sleep(0.5)


async def test_every_price_of_every_region_comes_out_of_the_catalogue(sky: Sky) -> None:
    offers = await sky.clouds().offers("l4", 1, ())
    prices = {(o.region, o.spot): o.price_micro for o in offers}
    assert prices == {
        ("US", False): 390_000,
        ("US", True): 210_000,
        ("RO", False): 430_000,
        ("RO", True): 190_000,
    }
    assert {(o.cloud, o.instance_type, o.gpu) for o in offers} == {("RunPod", "1x_L4_SECURE", "L4")}
    both = await sky.clouds().offers("H100", 8, ())
    assert {o.cloud for o in both} == {"RunPod", "Lambda"}
    assert {o.cloud for o in await sky.clouds().offers("H100", 8, ("lambda",))} == {"Lambda"}
    assert await sky.clouds().offers("L4", 2, ()) == []
    assert await sky.clouds().offers("NoSuchGPU", 1, ()) == []


async def test_the_optimiser_takes_what_we_rank_first(sky: Sky) -> None:
    ranking = rank(await sky.clouds().offers("L4", 1, ()), SPEC)
    content = task(
        "cic-test", ranking.candidates, install="true", joining=JOINING, life_s=3_600, disk_gb=100
    )
    chosen = await sky.clouds().choose(content)
    assert (chosen.region, chosen.spot, chosen.price_micro) == ("RO", True, 190_000)

    steady = [offer for offer in ranking.candidates if not offer.spot]
    content = task("cic-test", steady, install="true", joining=JOINING, life_s=60, disk_gb=100)
    chosen = await sky.clouds().choose(content)
    assert (chosen.region, chosen.spot, chosen.price_micro) == ("US", False, 390_000)


async def test_a_task_goes_through_the_api_server_to_the_edge_of_the_cloud(sky: Sky) -> None:
    clouds = sky.clouds()
    ranking = rank(await clouds.offers("L4", 1, ()), SPEC)
    content = task(
        "cic-test", ranking.candidates, install="true", joining=JOINING, life_s=3_600, disk_gb=100
    )
    request = await clouds.launch(content, "cic-test", dry=True)
    assert await finished(clouds, request) == Request("succeeded", "")
    assert (await clouds.look([])).clusters == []


async def test_a_task_that_cannot_be_is_refused_in_words(sky: Sky) -> None:
    with pytest.raises(CloudRefused, match="no_such_field"):
        await sky.clouds().choose({"name": "x", "resources": {"no_such_field": 1}})
    offer = {"infra": "runpod/RO", "instance_type": "64x_L4_SECURE", "accelerators": "L4:64"}
    with pytest.raises(CloudRefused):
        await sky.clouds().choose({"name": "x", "resources": {"ordered": [offer]}, "run": "true"})


async def test_taking_down_what_is_not_there_fails_as_a_request(sky: Sky) -> None:
    clouds = sky.clouds()
    request = await clouds.down("cic-nothing")
    found = await finished(clouds, request)
    assert found.state == "failed"
    assert "cic-nothing" in found.message


async def test_an_interpreter_without_skypilot_says_so(tmp_path: Path) -> None:
    missing = SkyPilot(sys.executable, {"PATH": "", "HOME": str(tmp_path)})
    with pytest.raises(CloudUnavailable, match="No module named 'sky'"):
        await missing.offers("L4", 1, ())
    nobody = SkyPilot(str(tmp_path / "python"), {})
    with pytest.raises(CloudUnavailable, match="cannot be run"):
        await nobody.offers("L4", 1, ())
