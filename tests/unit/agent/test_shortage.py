"""What engines wrote when memory ran out, and what is told about it."""

import pytest

from agent.shortage import shortage

# As printed by vLLM 0.11–0.33, PyTorch 2, llama.cpp's CUDA backend, SGLang and the C library.
SAID = [
    (
        "ValueError: To serve at least one request with the models's max seq len (131072), (16.00"
        " GiB KV cache is needed, which is larger than the available KV cache memory (7.41 GiB)."
        " Based on the available memory, the estimated maximum model length is 60688.",
        ("16.00 GiB", "7.41 GiB", "60688 tokens would fit", "smaller context"),
    ),
    (
        "ValueError: The model's max seq len (32768) is larger than the maximum number of tokens"
        " that can be stored in KV cache (18160).",
        ("18160 tokens", "32768", "smaller context"),
    ),
    (
        "ValueError: No available memory for the cache blocks. Try increasing"
        " `gpu_memory_utilization` when initializing the engine.",
        ("no GPU memory for the KV cache",),
    ),
    (
        "ValueError: Free memory on device (3.12/23.69 GiB) on startup is less than desired GPU"
        " memory utilization (0.9, 21.32 GiB).",
        ("23.69 GiB", "3.12 GiB", "what else runs"),
    ),
    (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 896.00 MiB. GPU 0 has a"
        " total capacity of 23.64 GiB",
        ("GPU ran out of memory", "896.00 MiB"),
    ),
    (
        "0.01.234.567 E ggml_backend_cuda_buffer_type_alloc_buffer: allocating 4096.00 MiB on"
        " device 0: cudaMalloc failed: out of memory",
        ("GPU ran out of memory", "4096.00 MiB"),
    ),
    (
        "0.01.234.567 E llama_model_load: error loading model: unable to allocate CPU buffer",
        ("llama.cpp got no memory", "fewer GPU layers"),
    ),
    (
        "0.00.1 E llama_init_from_model: failed to initialize the context: failed to allocate"
        " buffer for kv cache",
        ("llama.cpp got no memory",),
    ),
    (
        "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.",
        ("no GPU memory for the KV cache",),
    ),
    ("terminate called after throwing an instance of 'std::bad_alloc'", ("node's memory",)),
    ("MemoryError", ("node's memory",)),
    (
        "RuntimeError: [enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate"
        " memory: you tried to allocate 17179869184 bytes.",
        ("node's memory",),
    ),
]


@pytest.mark.parametrize(("line", "told"), SAID, ids=[line[:30] for line, _ in SAID])
def test_want_of_memory_is_told_with_what_to_do(line: str, told: tuple[str, ...]) -> None:
    reason = shortage(["INFO loading", line, "Engine core initialization failed."], killed=False)
    assert reason is not None
    for part in told:
        assert part in reason
    assert reason.endswith(".")
    assert "Give the deployment" in reason or "give the deployment" in reason


def test_the_kernels_own_kill_is_told() -> None:
    assert "kernel killed" in (shortage(["INFO serving"], killed=True) or "")


def test_what_the_engine_itself_said_goes_before_the_kill() -> None:
    said = shortage(["torch.OutOfMemoryError: CUDA out of memory."], killed=True)
    assert said is not None
    assert "GPU ran out" in said


@pytest.mark.parametrize(
    "line",
    [
        "INFO Available KV cache memory: 17.2 GiB",
        "INFO GPU KV cache size: 140,000 tokens",
        "ValueError: unknown architecture",
        "set --gpu-memory-utilization to avoid running out",
    ],
)
def test_other_ends_are_not_blamed_on_memory(line: str) -> None:
    assert shortage([line], killed=False) is None
