"""vLLM, SGLang and llama-server as kinds: what is run, what is kept secret, what figures mean."""

import json
import os
import stat
import sys
from pathlib import Path

import pytest

from agent.engines.exposition import labelled, sums
from agent.engines.kind import Kind, Room
from agent.engines.kinds import known_kinds
from agent.engines.llamacpp import LlamaCpp
from agent.engines.programs import (
    LLAMA_SERVER_VARIABLE,
    SGLANG_VARIABLE,
    VLLM_VARIABLE,
    package,
    program,
)
from agent.engines.readings import last_error
from agent.engines.sglang import SGLang
from agent.engines.variables import api_key_of, port_of
from agent.engines.vllm import Vllm
from agent.errors import EngineUnfit
from appliance.wire.agent import DesiredReplica, Pipeline
from appliance.wire.engine import EngineSettings, Lora
from tests.fakes.tiny_llama import write_tiny_llama

KEY = "the-secret-key"


def replica(engine: str, path: Path, **changes: object) -> DesiredReplica:
    values: dict[str, object] = {
        "replica_id": "rep_1",
        "deployment_id": "dep_1",
        "generation": 1,
        "engine": engine,
        "model_name": "m",
        "model_path": str(path),
    }
    return DesiredReplica(**(values | changes))  # type: ignore[arg-type]  # a test's shorthand


def room(folder: Path) -> Room:
    return Room(
        cores=4,
        replicas=1,
        port=4000,
        api_key=KEY,
        folder=folder / "files",
        cache=folder / "cache",
    )


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_llama(tmp_path / "model")


@pytest.fixture
def vllm(tmp_path: Path) -> Vllm:
    kind = Vllm({VLLM_VARIABLE: str(script(tmp_path / "bin" / "vllm", "echo 0.33.1"))})
    assert kind.version() == "0.33.1"
    return kind


@pytest.fixture
def sglang(tmp_path: Path) -> SGLang:
    answer = script(tmp_path / "bin" / "python", "echo sglang 0.5.9")
    kind = SGLang({SGLANG_VARIABLE: str(answer)})
    assert kind.version() == "0.5.9"
    return kind


def test_vllm_runs_offline_behind_the_guard_with_its_own_gpus(
    vllm: Vllm, model: Path, tmp_path: Path
) -> None:
    wanted = replica("vllm", model, settings=EngineSettings(gpus=2), gpu_uuids=("GPU-aa", "MIG-bb"))
    command = vllm.command(wanted, room(tmp_path))
    assert command.arguments[1:5] == ("serve", str(model), "--middleware", "crosslogic_guard.Guard")
    assert KEY not in " ".join(command.arguments)
    assert KEY not in repr(command)
    environ = dict(command.environ)
    assert environ["HF_HUB_OFFLINE"] == environ["TRANSFORMERS_OFFLINE"] == "1"
    assert environ["VLLM_NO_USAGE_STATS"] == "1"
    assert environ["CUDA_VISIBLE_DEVICES"] == "GPU-aa,MIG-bb"
    assert environ["VLLM_HOST_IP"] == "127.0.0.1"
    assert "VLLM_SERVER_DEV_MODE" not in environ
    assert (Path(environ["PYTHONPATH"]) / "crosslogic_guard.py").is_file()
    assert Path(environ["VLLM_CACHE_ROOT"]).is_relative_to(tmp_path / "cache")
    assert (api_key_of(environ), port_of(environ)) == (KEY, 4000)


def test_without_gpus_of_its_own_it_sees_none_and_bounds_its_cache(
    vllm: Vllm, model: Path, tmp_path: Path
) -> None:
    environ = vllm.command(replica("vllm", model), room(tmp_path)).environ
    assert environ["CUDA_VISIBLE_DEVICES"] == ""
    assert environ["VLLM_CPU_KVCACHE_SPACE"] == "4"
    assert environ["OMP_NUM_THREADS"] == "3"
    told = EngineSettings(arguments=("--kv-cache-memory-bytes", "1000"))
    environ = vllm.command(replica("vllm", model, settings=told), room(tmp_path)).environ
    assert "VLLM_CPU_KVCACHE_SPACE" not in environ


def test_sleep_needs_the_development_mode_and_the_guard(
    vllm: Vllm, model: Path, tmp_path: Path
) -> None:
    told = EngineSettings(gpus=1, sleep=True)
    command = vllm.command(replica("vllm", model, settings=told), room(tmp_path))
    assert command.environ["VLLM_SERVER_DEV_MODE"] == "1"
    assert "crosslogic_guard.Guard" in command.arguments


def test_the_highest_rank_of_the_adapters_is_told(vllm: Vllm, model: Path, tmp_path: Path) -> None:
    for name, rank in (("a", 8), ("b", 40)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text(json.dumps({"r": rank}))
    loras = tuple(Lora(name=name, path=str(tmp_path / name)) for name in ("a", "b", "none"))
    told = EngineSettings(gpus=1, loras=loras)
    arguments = vllm.command(replica("vllm", model, settings=told), room(tmp_path)).arguments
    assert arguments[arguments.index("--max-lora-rank") + 1] == "64"


def test_a_follower_on_another_node_serves_nothing(vllm: Vllm, model: Path, tmp_path: Path) -> None:
    place = Pipeline(rank=1, nodes=2, master_host="127.0.0.1", master_port=29501)
    told = EngineSettings(gpus=1, nodes=2)
    command = vllm.command(replica("vllm", model, settings=told, pipeline=place), room(tmp_path))
    assert "--headless" in command.arguments
    assert "--middleware" not in command.arguments
    assert command.environ["VLLM_HOST_IP"] == "127.0.0.1"  # the way to its leader


def test_ray_needs_a_token_and_lives_as_long_as_the_replica(
    vllm: Vllm, model: Path, tmp_path: Path
) -> None:
    told = EngineSettings(gpus=1, nodes=2, distributed="ray")

    def at(rank: int) -> DesiredReplica:
        place = Pipeline(rank=rank, nodes=2, master_host="127.0.0.1", master_port=6400)
        return replica("vllm", model, settings=told, pipeline=place)

    assert "RAY_AUTH_TOKEN_PATH" in (vllm.hopeless(at(0)) or "")
    tokens = {"RAY_AUTH_TOKEN_PATH": "/etc/ray-token"}
    kind = Vllm({VLLM_VARIABLE: str(tmp_path / "bin" / "vllm"), **tokens})
    kind.version()
    assert kind.hopeless(at(0)) is None
    head, follower = (kind.command(at(rank), room(tmp_path)) for rank in (0, 1))
    assert head.environ["RAY_AUTH_MODE"] == "token"
    assert head.environ["RAY_AUTH_TOKEN_PATH"] == "/etc/ray-token"
    text = " ".join(head.arguments)
    assert "start --block --disable-usage-stats --node-ip-address 127.0.0.1 --head" in text
    assert "--distributed-executor-backend ray" in text.partition(" -- ")[2]
    assert follower.arguments[-2:] == ("--address", "127.0.0.1:6400")


def test_why_a_start_of_vllm_is_hopeless(vllm: Vllm, model: Path, tmp_path: Path) -> None:
    assert vllm.hopeless(replica("vllm", model)) is None
    assert "config.json" in (vllm.hopeless(replica("vllm", tmp_path)) or "")
    assert "not an absolute path" in (vllm.hopeless(replica("vllm", Path("org/model"))) or "")
    refused = replica("vllm", model, settings=EngineSettings(arguments=("--api-key", "k")))
    assert "--api-key is not passed on" in (vllm.hopeless(refused) or "")
    several = replica("vllm", model, settings=EngineSettings(gpus=1, nodes=2))
    assert "place among them" in (vllm.hopeless(several) or "")
    absent = Vllm({"PATH": str(tmp_path)})
    assert absent.version() is None
    assert VLLM_VARIABLE in (absent.hopeless(replica("vllm", model)) or "")
    late = Vllm({VLLM_VARIABLE: str(tmp_path / "bin" / "vllm")})
    assert "Restart the agent" in (late.hopeless(replica("vllm", model)) or "")


def test_hope_comes_back_with_the_files_or_the_program(model: Path, tmp_path: Path) -> None:
    kind = Vllm({"PATH": str(tmp_path / "bin")})
    wanted = replica("vllm", model)
    prints = [kind.fingerprint(wanted)]
    script(tmp_path / "bin" / "vllm", "echo 1")
    prints.append(kind.fingerprint(wanted))
    (model / "config.json").write_text("{}")
    prints.append(kind.fingerprint(wanted))
    (model / "config.json").unlink()
    prints.append(kind.fingerprint(wanted))
    assert len(set(prints)) == 4


def test_vllm_figures(vllm: Vllm) -> None:
    load = vllm.load(
        "# TYPE vllm:num_requests_running gauge\n"
        'vllm:num_requests_running{engine="0",model_name="a } b"} 2.0\n'
        'vllm:num_requests_running{engine="1",model_name="m"} 1.0\n'
        'vllm:num_requests_waiting{engine="0",model_name="m"} 4.0\n'
        'vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 9.0\n'
        'vllm:prompt_tokens_total{engine="0",model_name="m"} 100.0\n'
        'vllm:prompt_tokens_created{engine="0",model_name="m"} 1.7e+09\n'
        'vllm:generation_tokens_total{engine="0",model_name="m"} 50.0\n'
        'vllm:iteration_tokens_total_count{engine="0",model_name="m"} 7.0\n'
        'vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25\n'
        'vllm:engine_sleep_state{engine="0",model_name="m",sleep_state="awake"} 0.0\n'
        'vllm:engine_sleep_state{engine="0",model_name="m",sleep_state="discard_all"} 1.0\n'
    )
    assert (load.requests, load.waiting) == (7, 4)
    assert load.progress == (100.0, 50.0, 7.0)
    assert (load.prompt_tokens, load.generated_tokens) == (100, 50)
    assert load.cache_used == 0.25
    assert load.asleep
    assert not vllm.load("").asleep
    with pytest.raises(EngineUnfit):
        vllm.load("vllm:num_requests_running nothing\n")
    said = {"data": [{"id": "m", "max_model_len": 8192}]}
    assert vllm.properties(said).context_tokens == 8192
    for nonsense in ({}, {"data": []}, {"data": ["m"]}, {"data": [{"max_model_len": "x"}]}):
        assert vllm.properties(nonsense).context_tokens is None


def test_vllm_ends(vllm: Vllm) -> None:
    tail = [
        "(EngineCore pid=7) ERROR 11-23 [core.py:1] Traceback (most recent call last):",
        "(EngineCore pid=7) ValueError: No available memory for the cache blocks.",
        "RuntimeError: Engine core initialization failed. See root cause above.",
    ]
    reason, lasting = vllm.end_reason(1, tail)
    assert reason == "vLLM ended: ValueError: No available memory for the cache blocks."
    assert not lasting
    reason, lasting = vllm.end_reason(2, ["vllm: error: unrecognized arguments: --x"])
    assert "unrecognized arguments: --x" in reason
    assert lasting
    assert "signal 9" in vllm.end_reason(-9, tail)[0]
    assert "exit code 1" in vllm.end_reason(1, [])[0]
    assert len(last_error(["ValueError: " + "x" * 9_000])) <= 400


def test_sglang_has_its_key_in_a_private_file(sglang: SGLang, model: Path, tmp_path: Path) -> None:
    for _ in range(2):  # the file of the launch before is in the way of none
        command = sglang.command(replica("sglang", model), room(tmp_path))
    config = Path(command.arguments[command.arguments.index("--config") + 1])
    assert json.loads(config.read_text()) == {"api-key": KEY}
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert KEY not in " ".join(command.arguments)
    assert command.arguments[1:3] == ("-m", "sglang.launch_server")
    assert sglang.hopeless(replica("sglang", model)) is None
    assert "SGLang ended: OSError: gone" in sglang.end_reason(1, ["OSError: gone"])[0]
    load = sglang.load(
        'sglang:num_running_reqs{model_name="m"} 2.0\nsglang:num_queue_reqs{model_name="m"} 1.0\n'
        'sglang:prompt_tokens_total{model_name="m"} 10.0\nsglang:token_usage{model_name="m"} 0.5\n'
        'sglang:generation_tokens_total{model_name="m"} 5.0\n'
    )
    assert (load.requests, load.prompt_tokens, load.generated_tokens) == (3, 10, 5)
    assert load.cache_used == 0.5


def test_llama_server_is_preferred_where_it_is_installed(tmp_path: Path) -> None:
    server = script(tmp_path / "llama-server", "echo version: 7012 '(abc)' >&2")
    kind = LlamaCpp({LLAMA_SERVER_VARIABLE: str(server)}, installed=lambda: False)
    assert kind.version() == "7012"
    gguf = tmp_path / "m.gguf"
    gguf.write_bytes(b"GGUF")
    told = EngineSettings(gpus=1, arguments=("--mlock",))
    wanted = replica("llamacpp", gguf, settings=told, gpu_uuids=("GPU-a",))
    assert kind.hopeless(wanted) is None
    command = kind.command(wanted, room(tmp_path))
    assert str(server) in command.arguments
    assert command.arguments[-1] == "--mlock"
    assert "--n-gpu-layers 999" in " ".join(command.arguments)
    assert command.environ["LLAMA_API_KEY"] == KEY
    assert command.environ["CUDA_VISIBLE_DEVICES"] == "GPU-a"
    embedded = LlamaCpp({"PATH": ""}, installed=lambda: True)
    assert "takes no arguments" in (embedded.hopeless(wanted) or "")


def test_a_program_is_named_beside_us_or_on_the_path(tmp_path: Path) -> None:
    found = script(tmp_path / "engine", "exit 0")
    assert program("X", "engine", {"PATH": str(tmp_path)}) == found
    assert program("X", "engine", {"X": str(found), "PATH": ""}) == found
    assert program("X", "engine", {"X": "engine", "PATH": str(tmp_path)}) is None  # relative
    assert program("X", "engine", {"X": str(tmp_path / "gone"), "PATH": str(tmp_path)}) is None
    assert program("X", "engine-of-nobody", {"PATH": str(tmp_path)}) is None


def test_a_package_is_found_by_its_module_without_loading_it() -> None:
    found = package(Path(sys.executable), "yaml")
    assert found is not None
    assert found.name == "PyYAML"
    assert package(Path(sys.executable), "no_such_module") is None
    assert package(Path("/no/such/python"), "yaml") is None


def test_reading_metrics() -> None:
    text = '# x\na{l="1 2",m="}"} 3 1700\na 4\nab 9\nb{} x\n'
    assert sums(text, {"a"}) == {"a": 7.0}
    assert sums(text, {"none"}) == {}
    with pytest.raises(EngineUnfit):
        sums(text, {"b"})
    assert labelled('s{a="1",on="x"} 1\ns{on="y"} 0\nt{on="z"} 5\n', "s", "on") == {
        "x": 1.0,
        "y": 0.0,
    }


def test_every_kind_is_known_by_its_name() -> None:
    kinds = known_kinds(dict(os.environ))
    assert set(kinds) == {"llamacpp", "vllm", "sglang"}
    for name, kind in kinds.items():
        known: Kind = kind
        assert known.name == name
