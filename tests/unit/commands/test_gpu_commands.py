"""`cic gpu` and the health in `cic node show`, for people and for programs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from appliance.admin.ports import NodeLive
from appliance.domain.ids import NodeId
from appliance.wire.command import ExitCode
from appliance.wire.gpu import (
    Driver,
    GpuFault,
    GpuHistory,
    GpuPoint,
    GpuRing,
    GpuSeries,
    HealthPart,
    NodeHealth,
)
from tests.fakes.admin_site import AdminSite, served
from tests.fakes.command_line import Done, cic
from tests.fakes.gpus import DRIVER, gpu

FAULT = GpuFault(
    code="NVLINK_DOWN",
    severity="warning",
    message="GPU 1 (H100): NVLinks are down: 2 of 4: 1, 3.",
    next_step="Drain the node.",
    since_ns=1,
    gpu_uuid="GPU-1",
)
HEALTH = NodeHealth(
    score=60,
    state="degraded",
    parts=(
        HealthPart(name="network", score=60, reason="NVLinks."),
        HealthPart(name="faults", score=100),
    ),
    faults=(FAULT,),
)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[AdminSite]:
    with served(tmp_path) as site:
        yield site


@pytest.fixture
def node(site: AdminSite) -> NodeId:
    """A node with two GPUs, one of which does not tell its power."""
    made: dict[str, Any] = run(site, "--json", "node", "create", "n1").json
    node_id = NodeId(made["id"])
    site.live.nodes[node_id] = NodeLive(
        "ready",
        gpu_figures=(gpu(0, power=312.4, utilisation=87), gpu(1, xids=(79,))),
        driver=DRIVER,
        health=HEALTH,
    )
    return node_id


def run(site: AdminSite, *arguments: object) -> Done:
    return cic("--home", site.home.config, *arguments)


def test_gpus_are_listed_with_their_node(site: AdminSite, node: NodeId) -> None:
    rows = run(site, "--json", "gpu", "list").json
    assert [(row["node"], row["node_id"], row["index"], row["uuid"]) for row in rows] == [
        ("n1", node, 0, "GPU-0"),
        ("n1", node, 1, "GPU-1"),
    ]
    assert (rows[0]["power"], rows[1]["power"], rows[1]["xids"]) == (312.4, None, [79])
    first, second = run(site, "gpu", "list").out.splitlines()[1:]
    assert ("312" in first, "80.0" in first, "87" in first) == (True, True, True)
    assert "79" in second
    assert run(site, "--json", "gpu", "list", "--node", node).json == rows
    assert run(site, "--json", "node", "create", "n2").code == 0
    assert run(site, "--json", "gpu", "list", "--node", "n2").json == []
    assert "the node n2 has not told of any" in run(site, "gpu", "list", "--node", "n2").err
    nobody = run(site, "--json", "gpu", "list", "--node", "n3")
    assert (nobody.code, nobody.error["code"]) == (ExitCode.NOT_FOUND, "not_found")


def test_gpus_of_a_silent_node_are_marked_as_old(site: AdminSite, node: NodeId) -> None:
    site.live.nodes[node] = NodeLive("unreachable", gpu_figures=(gpu(0),))
    assert [row["stale"] for row in run(site, "--json", "gpu", "list").json] == [True]
    assert "ok (old)" in run(site, "gpu", "list").out


def test_no_gpus_is_said_in_words(site: AdminSite) -> None:
    done = run(site, "gpu", "list")
    assert (done.code, done.out) == (0, "")
    assert "No GPUs" in done.err


def test_who_has_no_gpus_is_not_told_to_wait_for_their_history(site: AdminSite) -> None:
    made: dict[str, Any] = run(site, "--json", "node", "create", "vm").json
    site.live.nodes[NodeId(made["id"])] = NodeLive("ready")
    site.live.answer = b'{"gpus": []}'
    assert "the node vm has no GPUs" in run(site, "gpu", "history", "vm").err
    site.live.nodes[NodeId(made["id"])] = NodeLive("ready", gpus=("H100",))
    assert "a point takes ten seconds" in run(site, "gpu", "history", "vm").err
    other = run(site, "gpu", "history", "vm", "--gpu", "GPU-9")
    assert "tells of no GPU GPU-9" in other.err


def test_a_node_shows_its_health_part_by_part(site: AdminSite, node: NodeId) -> None:
    shown = run(site, "--json", "node", "show", "n1").json
    assert shown["health"] == msgspec.json.decode(msgspec.json.encode(HEALTH))
    assert shown["driver"] == msgspec.to_builtins(DRIVER)
    text = run(site, "node", "show", "n1").out
    for line in (
        *("60 of 100, degraded", "60 NVLinks.", "580.95.05"),
        "NVLINK_DOWN: GPU 1 (H100): NVLinks are down: 2 of 4: 1, 3. Drain the node.",
    ):
        assert line in text
    site.live.nodes[node] = NodeLive(
        "failed", driver=Driver(problem="Two versions. Reboot."), health=HEALTH
    )
    assert "Two versions. Reboot." in run(site, "node", "show", "n1").out


def test_the_past_of_gpus_is_asked_of_their_node(site: AdminSite, node: NodeId) -> None:
    point = GpuPoint(
        at_s=1_800_000_000,
        utilisation=50,
        memory_used_bytes=1024**3,
        temperature=91,
        power=300,
        sm_clock=None,
        score=40,
    )
    ring = GpuRing(step_s=10, points=(point,))
    history = GpuHistory(gpus=(GpuSeries(uuid="GPU-0", rings=(ring,)),))
    site.live.answer = msgspec.json.encode(history)
    assert run(site, "--json", "gpu", "history", "n1", "--gpu", "GPU-0").json == {
        "gpus": [
            {
                "uuid": "GPU-0",
                "rings": [
                    {"step_s": 10, "points": [[1_800_000_000, 50, 1024**3, 91, 300, None, 40]]}
                ],
            }
        ]
    }
    assert site.live.questions == [(node, "gpu_history", "GPU-0")]
    (row,) = run(site, "gpu", "history", "n1").out.splitlines()[1:]
    assert row.split() == [
        "2027-01-15",
        "08:00:00Z",
        "10",
        "50",
        "1.0",
        "91",
        "300",
        "-",
        "40",
        "GPU-0",
    ]


def test_an_answer_without_sense_is_the_nodes_fault(site: AdminSite, node: NodeId) -> None:
    site.live.answer = b'{"gpus": 7}'
    answer: httpx.Response = site.client.get(f"/v1/nodes/{node}/gpu-history")
    assert (answer.status_code, answer.json()["code"]) == (502, "bad_node_answer")
