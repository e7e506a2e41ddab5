"""How much memory a replica needs, from its model's files and what is asked of it. Pure.

- Weights: as large as their files; engines read them as they are.
- KV cache: layers × heads × (key + value) × bytes of a number, for each token of the context, for
  each request at once. A model with a sliding window needs less; the figure is then too large.
- Overhead: what an engine holds beside that on each GPU: the driver's context, buffers, graphs.

The figures are for deciding where a first start is worth trying. What was measured then counts.
"""

from dataclasses import dataclass
from typing import Final

from appliance.registry.engines import Engine
from appliance.wire.engine import EngineSettings

GIB: Final = 1024**3
MIB: Final = 1024**2
KIB: Final = 1024

# Of each GPU. Sources: a CUDA context is 0.3 to 0.6 GiB by the driver's version and the GPU; the
# compute buffers of llama.cpp are 0.2 to 0.5 GiB at its batch of 512; vLLM's and SGLang's
# activations and captured graphs are 1 to 2 GiB at their defaults.
_OVERHEAD_BYTES: Final = {
    Engine.LLAMACPP: 768 * MIB,
    Engine.VLLM: 2 * GIB,
    Engine.SGLANG: 2 * GIB,
}
# On the processor: the program and its buffers.
_HOST_OVERHEAD_BYTES: Final = {
    Engine.LLAMACPP: 128 * MIB,
    Engine.VLLM: 2 * GIB,
    Engine.SGLANG: 2 * GIB,
}
# Engines that take a share of a GPU for themselves take this when they are not told another.
# Sources: vLLM's --gpu-memory-utilization; SGLang's --mem-fraction-static is near it.
SHARE_DEFAULT: Final = 0.9
# A measurement further from what was computed is not believed: one node told it, and every node's
# place for that model hangs on it.
_BELIEVED: Final = 2
SHARING: Final = frozenset({Engine.VLLM, Engine.SGLANG})

_BITS_DEFAULT: Final = 16
# Types of KV caches by the names that the engines give them; the quantised ones of llama.cpp hold
# 32 numbers in a block with a scale of 2 bytes.
_BITS: Final = {
    "f32": 32.0,
    "float32": 32.0,
    "f16": 16.0,
    "bf16": 16.0,
    "auto": 16.0,
    "fp8": 8.0,
    "fp8_e4m3": 8.0,
    "fp8_e5m2": 8.0,
    "q8_0": 8.5,
    "q5_1": 6.0,
    "q5_0": 5.5,
    "q4_1": 5.0,
    "q4_0": 4.5,
    "iq4_nl": 4.5,
}


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a model takes memory. The lengths are of one head, in numbers."""

    weights_bytes: int
    layers: int | None = None
    kv_heads: int | None = None
    key_length: int | None = None
    value_length: int | None = None


@dataclass(frozen=True, slots=True)
class Need:
    """Memory of one replica. `measured`: its GPUs' memory as it was seen, not as computed."""

    weights_bytes: int
    kv_bytes: int | None  # None: the model's files do not say
    gpus: int  # over all its nodes; 0: on the processor
    per_gpu_bytes: int  # of each GPU; 0 without
    host_bytes: int  # of each node's own memory
    share: float | None = None  # of each GPU that the engine takes for itself, all of it free
    measured: bool = False

    @property
    def total_bytes(self) -> int:
        return self.per_gpu_bytes * self.gpus if self.gpus else self.host_bytes


def kv_bytes(
    shape: Shape, context_tokens: int, parallel: int, kv_cache_dtype: str | None
) -> int | None:
    """Of the whole KV cache; None: the model's files do not tell of its layers."""
    if None in (shape.layers, shape.kv_heads, shape.key_length, shape.value_length):
        return None
    assert shape.layers is not None  # said to the type checker: the test above is all four
    assert shape.kv_heads is not None
    assert shape.key_length is not None
    assert shape.value_length is not None
    bits = _BITS.get(kv_cache_dtype or "auto", float(_BITS_DEFAULT))
    numbers = shape.layers * shape.kv_heads * (shape.key_length + shape.value_length)
    return int(numbers * context_tokens * parallel * bits / 8)


def estimate(
    engine: Engine,
    shape: Shape,
    settings: EngineSettings,
    *,
    context_tokens: int,
    parallel: int,
    measured_gpu_bytes: int | None = None,
) -> Need:
    """What one replica needs of each of its GPUs, or of a node's memory when it has none.

    `measured_gpu_bytes` is what such a replica was seen to hold, over all its GPUs. Engines that
    take a share hold as much as they are given, so that says nothing of them. Where the files tell
    enough to compute it well, no more than twice that and no less than half is believed.
    """
    cache = kv_bytes(shape, context_tokens, parallel, settings.kv_cache_dtype)
    held = shape.weights_bytes + (cache or 0)
    if settings.gpus == 0:
        return Need(shape.weights_bytes, cache, 0, 0, held + _HOST_OVERHEAD_BYTES.get(engine, 0))
    gpus = settings.gpus * settings.nodes
    share = (settings.gpu_memory_fraction or SHARE_DEFAULT) if engine in SHARING else None
    on_gpus = held
    if engine is Engine.LLAMACPP and settings.gpu_layers is not None and shape.layers:
        # What is not on the GPUs stays in the host's memory, its cache with it.
        on_gpus = held * min(settings.gpu_layers, shape.layers) // shape.layers
    overhead = _OVERHEAD_BYTES.get(engine, 0)
    per_gpu = -(-on_gpus // gpus) + overhead
    known = measured_gpu_bytes is not None and share is None
    if measured_gpu_bytes is not None and known:
        seen = -(-measured_gpu_bytes // gpus)
        if cache is not None:
            seen = min(max(seen, per_gpu // _BELIEVED), per_gpu * _BELIEVED)
        per_gpu = seen
    host = held - on_gpus + _HOST_OVERHEAD_BYTES.get(engine, 0)
    return Need(shape.weights_bytes, cache, gpus, per_gpu, host, share, measured=known)
