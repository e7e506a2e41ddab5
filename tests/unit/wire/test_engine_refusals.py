"""Arguments and settings that no engine is given, in every spelling its parser takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.wire.agent import EngineKind
from appliance.wire.engine import EngineSettings, Lora
from appliance.wire.engine_refusals import refused_argument, unfit_settings


@pytest.mark.parametrize(
    ("engine", "arguments"),
    [
        ("vllm", "--api-key k"),
        ("vllm", "--api-key=k"),
        ("vllm", "--api_key k"),
        ("vllm", "--API-KEY k"),
        ("vllm", "--api-k k"),  # argparse takes a beginning for the whole
        ("vllm", "--seed 1 --trust-remote-code"),
        ("vllm", "--trust_remote"),
        ("vllm", "--no-trust-remote-code"),
        ("vllm", "--host 0.0.0.0"),
        ("vllm", "--ho=0.0.0.0"),
        ("vllm", "--port 1"),
        ("vllm", "--uds /x"),
        ("vllm", "--middleware evil.Middleware"),
        ("vllm", "--config x.yaml"),
        ("vllm", "--tool-parser-plugin x.py"),
        ("vllm", "--worker-extension-cls evil.Worker"),
        ("vllm", "--enable-log-requests"),
        ("vllm", "--otlp-traces-endpoint http://x"),
        ("vllm", "--kv-transfer-config.kv_connector X"),
        ("vllm", "--allowed-local-media-path /"),
        ("vllm", "--tensor-parallel-size 2"),
        ("vllm", "-tp 2"),
        ("vllm", "-tp=2"),
        ("vllm", "-tp2"),
        ("vllm", "--max-model-len 9"),
        ("vllm", "--disable-log-stats"),
        ("vllm", '--structured-outputs-config {"reasoning_parser_plugin":"/x.py"}'),
        ("vllm", "--structured-outputs-config.reasoning_parser_plugin /x.py"),
        ("vllm", '--speculative-config {"model":"/d","trust-remote-code":true}'),
        ("vllm", '--compilation-config={"inductor":{"post_grad_custom_post_pass":"evil.f"}}'),
        ("vllm", "--"),
        ("vllm", "stray"),
        ("vllm", "--h"),
        ("sglang", "--admin-api-key k"),
        ("sglang", "--log-requests"),
        ("sglang", "--tp 2"),
        ("sglang", "--host=0.0.0.0"),
        ("sglang", "--trust-remote"),
        ("llamacpp", "--api-key-file /x"),
        ("llamacpp", "-hf who/what"),
        ("llamacpp", "--rpc 10.0.0.1:1"),
        ("llamacpp", "-m /other.gguf"),
        ("llamacpp", "-v"),
        ("llamacpp", "--props"),
        ("external", "--seed 1"),
    ],
)
def test_refused(engine: EngineKind, arguments: str) -> None:
    said = refused_argument(engine, tuple(arguments.split(" ")))
    assert said is not None
    assert said.endswith(".")


@pytest.mark.parametrize(
    ("engine", "arguments"),
    [
        ("vllm", "--seed 3"),
        ("vllm", "--enforce-eager"),
        ("vllm", "--brand-new-flag=of-next-year value"),
        ("vllm", "-O2"),
        ("vllm", "--swap-space -1"),
        ("vllm", '--speculative-config {"model":"/models/draft","num_speculative_tokens":3}'),
        ("vllm", "--no-enable-prefix-caching"),
        ("vllm", "--block-size 16"),
        ("sglang", "--chunked-prefill-size 4096"),
        ("llamacpp", "--flash-attn on"),
        ("llamacpp", "--mlock"),
    ],
)
def test_passed_on(engine: EngineKind, arguments: str) -> None:
    assert refused_argument(engine, tuple(arguments.split(" "))) is None


def test_arguments_are_bounded_and_printable() -> None:
    assert refused_argument("vllm", ("--seed",) * 129) is not None
    assert refused_argument("vllm", ("--seed", "x" * 4097)) is not None
    assert refused_argument("vllm", ("--seed", "1\n--api-key")) is not None
    assert refused_argument("vllm", ("--seed", "1\0")) is not None
    assert refused_argument("vllm", ()) is None


@given(st.lists(st.text(max_size=30), max_size=5), st.sampled_from(["vllm", "sglang", "llamacpp"]))
def test_any_words_get_an_answer(arguments: list[str], engine: EngineKind) -> None:
    said = refused_argument(engine, tuple(arguments))
    assert said is None or said.endswith(".")


@given(st.integers(min_value=3, max_value=len("--trust-remote-code")))
def test_no_beginning_of_a_refused_flag_is_passed_on(length: int) -> None:
    assert refused_argument("vllm", ("--trust-remote-code"[:length],)) is not None


@pytest.mark.parametrize(
    ("engine", "settings"),
    [
        ("external", EngineSettings(gpus=1)),
        ("vllm", EngineSettings(gpus=-1)),
        ("vllm", EngineSettings(gpus=65)),
        ("vllm", EngineSettings(nodes=0)),
        ("llamacpp", EngineSettings(nodes=2)),
        ("sglang", EngineSettings(distributed="ray")),
        ("vllm", EngineSettings(gpu_memory_fraction=0.0)),
        ("vllm", EngineSettings(gpu_memory_fraction=1.1)),
        ("vllm", EngineSettings(gpu_memory_fraction=float("nan"))),
        ("llamacpp", EngineSettings(gpu_memory_fraction=0.5)),
        ("vllm", EngineSettings(gpu_layers=3)),
        ("llamacpp", EngineSettings(gpu_layers=-1)),
        ("llamacpp", EngineSettings(gpus=1, sleep=True)),
        ("vllm", EngineSettings(sleep=True)),
        ("vllm", EngineSettings(gpus=1, nodes=2, sleep=True)),
        ("vllm", EngineSettings(queue_max=-1)),
        ("vllm", EngineSettings(dtype="--host")),
        ("vllm", EngineSettings(tool_call_parser="a b")),
        ("llamacpp", EngineSettings(reasoning_parser="qwen3")),
        ("vllm", EngineSettings(chat_template="relative.jinja")),
        ("llamacpp", EngineSettings(loras=(Lora(name="a", path="/a"),))),
        ("vllm", EngineSettings(loras=(Lora(name="a", path="a"),))),
        ("vllm", EngineSettings(loras=(Lora(name="a b", path="/a"),))),
        ("vllm", EngineSettings(loras=(Lora(name="a", path="/a"), Lora(name="a", path="/b")))),
        ("vllm", EngineSettings(arguments=("--api-key", "k"))),
    ],
)
def test_settings_that_make_no_sense(engine: EngineKind, settings: EngineSettings) -> None:
    said = unfit_settings(engine, settings)
    assert said is not None
    assert said.endswith(".")


@pytest.mark.parametrize(
    ("engine", "settings"),
    [
        ("external", EngineSettings()),
        ("vllm", EngineSettings(gpus=8, nodes=4, distributed="ray", gpu_memory_fraction=1.0)),
        ("vllm", EngineSettings(gpus=1, sleep=True, loras=(Lora(name="x/y:1", path="/a b"),))),
        ("sglang", EngineSettings(gpus=2, gpu_memory_fraction=0.5, tool_call_parser="qwen25")),
        ("llamacpp", EngineSettings(gpus=1, gpu_layers=0, arguments=("--mlock",))),
    ],
)
def test_settings_that_fit(engine: EngineKind, settings: EngineSettings) -> None:
    assert unfit_settings(engine, settings) is None


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ("vllm", ["--structured-outputs-config", r'{"reasoning_parser\u005fplugin":"/tmp/x.py"}']),
        ("vllm", [r'--compilation-config={"post_grad_custom_post\u005fpass":"a.b"}']),
        ("vllm", ["-cc.inductor_compile_config.post_grad_custom_post_pass=a.b"]),
        ("vllm", ["-cc.backend=mod.fn"]),
        ("vllm", ["--compilation-config.backend=mod.fn"]),
        ("vllm", ["-cc", '{"backend": "mod.fn"}']),
        ("vllm", ["--tokenizer", "org/repo"]),
        ("vllm", ["--api-server-count", "2"]),
        ("sglang", ["--hicache-storage-backend", "dynamic"]),
        ("sglang", ["--hicache-storage-backend-extra-config", '{"module_path":"m"}']),
        ("sglang", ["--forward-hooks", "m.f"]),
        ("sglang", ["--delete-ckpt-after-loading"]),
        ("sglang", ["--oltp-traces-endpoint", "http://10.0.0.9"]),
        ("llamacpp", ["--ui-mcp-proxy"]),
        ("llamacpp", ["--lookup-cache-dynamic", "/tmp/words"]),
        ("llamacpp", ["--spec-draft-hf", "org/repo"]),
        ("llamacpp", ["--webui-config-file", "/etc/passwd"]),
    ],
)
def test_ways_around_the_list_are_refused(engine: str, words: list[str]) -> None:
    assert refused_argument(engine, tuple(words)) is not None


@pytest.mark.parametrize(
    "words",
    [
        ["--compilation-config", '{"backend": "inductor", "mode": 3}'],
        ["-cc.backend=eager"],
        ["--rope-scaling", '{"rope_type": "yarn", "factor": 4.0}'],
    ],
)
def test_what_only_looks_like_it_is_passed_on(words: list[str]) -> None:
    assert refused_argument("vllm", tuple(words)) is None
