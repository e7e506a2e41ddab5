"""The words engines are started with: what settings become, and what older releases are spared."""

import json

import pytest

from appliance.wire.agent import DesiredReplica, Pipeline
from appliance.wire.engine import EngineSettings, Lora
from appliance.wire.engine_arguments import (
    Place,
    engine_arguments,
    lacking,
    version_of,
)


def replica(engine: str = "vllm", **changes: object) -> DesiredReplica:
    values: dict[str, object] = {
        "replica_id": "rep_1",
        "deployment_id": "dep_1",
        "generation": 1,
        "engine": engine,
        "model_name": "m",
        "model_path": "/models/m",
    }
    return DesiredReplica(**(values | changes))  # type: ignore[arg-type]  # a test's shorthand


def words(engine: str = "vllm", version: str | None = "0.33.0", **changes: object) -> str:
    return " ".join(engine_arguments(replica(engine, **changes), version, Place(port=4000)))


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0.32.0", (0, 32, 0)),
        ("0.11.1rc2.dev4+cpu", (0, 11, 1)),
        ("v0.9", (0, 9)),
        ("b7012", (7012,)),
    ],
)
def test_a_version_is_its_numbers(text: str, numbers: tuple[int, ...]) -> None:
    assert version_of(text) == numbers


def test_an_unknown_version_counts_as_new() -> None:
    assert version_of(None) > version_of("999.1")
    assert version_of("main") == version_of(None)


def test_vllm_listens_on_loopback_and_always_tells_its_usage() -> None:
    said = words(parallel=3, context_tokens=2048)
    assert "--host 127.0.0.1 --port 4000 " in said
    for word in (
        "--enable-force-include-usage",
        "--enable-server-load-tracking",
        "--shutdown-timeout 60",
        "--max-model-len 2048",
        "--max-num-seqs 3",
        "--scheduling-policy priority",
    ):
        assert f" {word}" in said
    assert "--tensor-parallel-size" not in said
    assert "--gpu-memory-utilization" not in said


def test_flags_a_release_does_not_know_are_left_out() -> None:
    old, new = words(version="0.10.2"), words(version="0.32.0")
    for flag in ("--shutdown-timeout", "--sse-keep-alive-interval"):
        assert flag not in old
        assert flag in new
    assert "--enable-force-include-usage" in old


def test_what_cannot_be_left_out_makes_a_release_unfit() -> None:
    said = lacking(replica(), "0.8.5")
    assert said is not None
    assert "--enable-force-include-usage" in said
    assert "0.9.2" in said
    assert lacking(replica(), "0.9.2") is None
    several = replica(settings=EngineSettings(gpus=1, nodes=2))
    assert "--nnodes" in (lacking(several, "0.11.0") or "")
    assert lacking(several, "0.12.0") is None


def test_gpus_of_a_node_are_tensor_parallel_and_nodes_are_pipeline_parallel() -> None:
    settings = EngineSettings(gpus=4, nodes=2, gpu_memory_fraction=0.85)
    place = Pipeline(rank=0, nodes=2, master_host="10.0.0.1", master_port=29501)
    first = words(settings=settings, pipeline=place)
    assert "--tensor-parallel-size 4 --pipeline-parallel-size 2" in first
    assert "--distributed-executor-backend mp --nnodes 2 --node-rank 0" in first
    assert "--master-addr 10.0.0.1 --master-port 29501" in first
    assert "--gpu-memory-utilization 0.85" in first
    assert "--headless" not in first
    assert "--host 127.0.0.1" in first
    place = Pipeline(rank=1, nodes=2, master_host="10.0.0.1", master_port=29501)
    second = words(settings=settings, pipeline=place)
    assert "--node-rank 1" in second
    assert "--headless" in second
    assert "--port" not in second  # it serves nothing
    ray = EngineSettings(gpus=4, nodes=2, distributed="ray")
    assert "--distributed-executor-backend ray" in words(settings=ray, pipeline=place)


def test_parsers_adapters_and_sleep_are_said_when_asked_for() -> None:
    settings = EngineSettings(
        gpus=1,
        tool_call_parser="hermes",
        reasoning_parser="qwen3",
        chat_template="/t.jinja",
        sleep=True,
        queue_max=7,
        loras=(Lora(name="a", path="/l/a"), Lora(name="b", path="/l/b, c")),
        dtype="bfloat16",
        quantization="fp8",
        kv_cache_dtype="fp8",
        arguments=("--seed", "3"),
    )
    said = engine_arguments(replica(settings=settings), "0.33.0", Place(lora_rank_max=20))
    text = " ".join(said)
    for part in (
        "--enable-auto-tool-choice --tool-call-parser hermes --reasoning-parser qwen3",
        "--chat-template /t.jinja",
        "--enable-lora --max-loras 2 --max-lora-rank 32",
        "--enable-sleep-mode",
        "--max-num-queued-reqs 7",
        "--dtype bfloat16 --quantization fp8 --kv-cache-dtype fp8",
    ):
        assert part in text
    assert said[-2:] == ("--seed", "3")
    modules = said[said.index("--lora-modules") + 1 :][:2]
    assert [json.loads(module) for module in modules] == [
        {"name": "a", "path": "/l/a"},
        {"name": "b", "path": "/l/b, c"},
    ]


def test_an_embedder_is_told_nothing_of_chats() -> None:
    settings = EngineSettings(tool_call_parser="hermes")
    assert "--runner pooling" in words(embedding=True, settings=settings)
    assert "hermes" not in words(embedding=True, settings=settings)
    assert "--is-embedding" in words("sglang", embedding=True)
    assert "--ubatch-size 4096" in words("llamacpp", embedding=True)


def test_sglang() -> None:
    settings = EngineSettings(gpus=2, gpu_memory_fraction=0.8, loras=(Lora(name="a", path="/a"),))
    said = words("sglang", "0.5.9", settings=settings, parallel=8)
    for part in (
        "--model-path /models/m --served-model-name m --host 127.0.0.1 --port 4000",
        "--max-running-requests 8 --enable-metrics",
        "--tp-size 2 --mem-fraction-static 0.8",
        "--lora-paths a=/a",
    ):
        assert part in said
    assert "--device cpu" in words("sglang")


def test_llama_server_has_the_context_of_all_its_slots_and_layers_where_there_are_gpus() -> None:
    said = words("llamacpp", parallel=4, context_tokens=1000)
    assert "--ctx-size 4000" in said
    assert "--n-gpu-layers 0" in said
    assert "--metrics" in said
    assert "--offline" in said
    assert "--n-gpu-layers 999" in words("llamacpp", settings=EngineSettings(gpus=1))
    assert "--n-gpu-layers 12" in words("llamacpp", settings=EngineSettings(gpus=1, gpu_layers=12))


def test_an_external_engine_is_told_nothing() -> None:
    assert words("external") == ""
