"""What replicas need and how long they take, before and after it was measured."""

from dataclasses import replace
from pathlib import Path

import pytest

from appliance.domain.ids import DeploymentId, ModelId, NodeId, ReplicaId
from appliance.fleet.estimate import GIB, Shape
from appliance.fleet.measurements import PROCESSOR, Measurements, hardware_of
from appliance.fleet.reconcile import Wanted
from appliance.fleet.shapes import Shapes, read_shape
from appliance.fleet.statuses import ReplicaStatus, deployment_status
from appliance.registry.engines import Engine
from appliance.registry.errors import ModelUnreadable
from appliance.registry.generations import Generation
from appliance.registry.registry import Registry
from appliance.registry.replicas import ReplicaRow
from appliance.wire.agent import ReplicaReport
from appliance.wire.engine import EngineSettings
from tests.fakes.deployments import deployment_row
from tests.fakes.node_types import eight_types
from tests.fakes.tiny_gguf import HEADS_KV, LAYERS, write_tiny_gguf

D1 = DeploymentId("dep_1")
ON_GPU = EngineSettings(gpus=1)
GENERATION = Generation(
    D1, 1, ModelId("mod_1"), "/m.gguf", "sha256:0", 4 * GIB, 4, 512, False, ON_GPU
)
ROW = ReplicaRow(ReplicaId("rep_1"), D1, 0, NodeId("n02"), gpu_uuids=("GPU-n02-0",))
WANTED = Wanted([deployment_row(settings=ON_GPU)], [ROW], {(D1, 1): GENERATION})
MINUTE_NS = 60_000_000_000


def measurements(registry: Registry, shape: Shape | None = None) -> Measurements:
    def read(_: Generation) -> Shape:
        if shape is None:
            raise ModelUnreadable("It is not there.")
        return shape

    return Measurements(registry.profiles, Shapes(read), "fleet")


async def learn(site: Measurements, now_ns: int = 0, **report: object) -> bool:
    told = ReplicaReport(
        replica_id=ROW.id,
        deployment_id=D1,
        generation=1,
        state="ready",
        host="127.0.0.1",
        port=1,
        **report,  # type: ignore[arg-type]  # a test's shorthand
    )
    status = ReplicaStatus(ROW, "n02", "ready", "", report=told)
    statuses = [deployment_status(deployment_row(), [status])]
    return await site.learn(WANTED, statuses, eight_types(), now_ns)


async def test_the_estimate_gives_way_to_what_was_measured_and_outlasts_a_restart(
    registry: Registry,
) -> None:
    site = measurements(registry, Shape(4 * GIB, 32, 8, 128, 128))
    before = (await site.needs(WANTED.deployments, [GENERATION]))[D1, 1]
    assert not before.measured
    assert await learn(site, gpu_memory_bytes=9 * GIB, loaded_s=12.5, tokens_per_s=80.4)
    after = (await site.needs(WANTED.deployments, [GENERATION]))[D1, 1]
    assert (after.per_gpu_bytes, after.measured) == (9 * GIB, True)
    (row,) = site.of(Engine.LLAMACPP, GENERATION)
    assert (row.hardware, row.loaded_ms, row.tokens_per_s) == ("1 × NVIDIA L4", 12_500, 80)
    again = measurements(registry, Shape(4 * GIB, 32, 8, 128, 128))
    known = (await again.needs(WANTED.deployments, [GENERATION]))[D1, 1]
    assert known == after
    assert again.load_s(Engine.LLAMACPP, GENERATION) == 12.5


async def test_what_one_node_tells_moves_nobodys_place_far(registry: Registry) -> None:
    site = measurements(registry, Shape(4 * GIB, 32, 8, 128, 128))
    computed = (await site.needs(WANTED.deployments, [GENERATION]))[D1, 1].per_gpu_bytes
    for number, (told, believed) in enumerate(
        [
            (10**15, computed),  # more than the GPU has
            (-1, computed),
            (24 * GIB, 2 * computed),  # it has that, and the model needs a fifth of it
            (1, computed // 2),
        ]
    ):
        await learn(site, number * 2 * MINUTE_NS, gpu_memory_bytes=told, loaded_s=1.0 + number)
        need = (await site.needs(WANTED.deployments, [GENERATION]))[D1, 1]
        assert need.per_gpu_bytes == believed, told


async def test_only_news_is_written_and_not_all_the_time(registry: Registry) -> None:
    site = measurements(registry)
    assert await learn(site, 1, loaded_s=10.0)
    assert not await learn(site, 2 * MINUTE_NS, loaded_s=11.0), "no news"
    assert not await learn(site, 2, loaded_s=30.0), "not yet"
    assert await learn(site, 2 * MINUTE_NS, loaded_s=30.0)
    assert not await learn(site, 9 * MINUTE_NS), "nothing measured"


async def test_a_load_that_was_never_measured_is_guessed(registry: Registry) -> None:
    site = measurements(registry)
    assert site.load_s(Engine.LLAMACPP, GENERATION) == pytest.approx(6.3, abs=0.1)
    assert site.load_s(Engine.VLLM, GENERATION) > 60


async def test_a_model_that_cannot_be_read_has_no_estimate(registry: Registry) -> None:
    assert await measurements(registry).needs(WANTED.deployments, [GENERATION]) == {}


def test_the_hardware_is_told_by_its_gpus() -> None:
    nodes = eight_types()
    assert hardware_of(replace(ROW, gpu_uuids=()), nodes) == PROCESSOR
    two = replace(ROW, node_id=NodeId("n05"), gpu_uuids=("GPU-n05-0", "GPU-n05-3"))
    assert hardware_of(two, nodes) == "2 × NVIDIA A100-SXM4-40GB"
    part = replace(ROW, node_id=NodeId("n07"), gpu_uuids=("MIG-GPU-n07-0-0",))
    assert hardware_of(part, nodes) == "1 × NVIDIA H100 80GB HBM3 1g.40gb"


def test_the_shape_of_a_gguf_file_is_read_from_its_head(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf")
    shape = read_shape(replace(GENERATION, model_path=str(path)))
    assert (shape.layers, shape.kv_heads) == (LAYERS, HEADS_KV)
    assert shape.key_length == shape.value_length
    assert shape.weights_bytes == GENERATION.model_size_bytes
