"""An engine that ended for want of memory: recognised in what it wrote, with what to do. Pure.

The texts are those of PyTorch's allocator, of vLLM's and SGLang's start, of llama.cpp's backends
and of the C and Python run-times.
"""

import re
from collections.abc import Sequence
from typing import Final

_LESS: Final = (
    "Give the deployment a smaller context or fewer requests at once, or more or larger GPUs"
)
_HOST: Final = "Give the deployment a smaller model or context, or the node more memory"

# What vLLM says when the cache for one request of the asked length does not fit.
_CACHE_LONGER: Final = re.compile(
    r"\(?([\d.]+) GiB KV cache is needed.{0,80}?available KV cache memory \(([\d.]+) GiB\)"
)
_CACHE_TOKENS: Final = re.compile(
    r"max seq len \((\d+)\) is larger than the maximum number of tokens that can be stored in"
    r" KV cache \((\d+)\)"
)
_CONTEXT_MAX: Final = re.compile(r"estimated maximum model length is (\d+)")
_NO_BLOCKS: Final = re.compile(
    r"No available memory for the cache blocks|Not enough memory\. Please try to increase"
    r" --mem-fraction-static|Available KV cache memory: -"
)
_TAKEN: Final = re.compile(
    r"Free memory on device.{0,40}?\(([\d.]+)/([\d.]+) GiB\) on startup is less than desired"
)
_CUDA: Final = re.compile(
    r"CUDA(?: error:)? out of memory|OutOfMemoryError|CUDA_ERROR_OUT_OF_MEMORY|HIP out of memory"
    r"|cudaMalloc failed: out of memory|hipMalloc failed: out of memory"
    r"|NCCL.{0,60}out of memory",
    re.IGNORECASE,
)
_TRIED: Final = re.compile(
    r"Tried to allocate ([\d.]+ [KMGT]iB)|allocating ([\d.]+ [KMGT]iB) on device"
)
_LLAMA: Final = re.compile(
    r"failed to allocate (?:buffer|\S* ?buffer of size|compute buffers)"
    r"|unable to allocate \S+ buffer|failed to allocate.{0,40}KV cache"
    r"|llama_kv_cache.{0,40}failed to allocate|ggml_aligned_malloc: insufficient memory",
    re.IGNORECASE,
)
_SYSTEM: Final = re.compile(
    r"\bMemoryError\b|Cannot allocate memory|std::bad_alloc|DefaultCPUAllocator: (?:can't|not)"
    r"|No space left on device.{0,80}/dev/shm|Insufficient shared memory",
)


def shortage(log_tail: Sequence[str], *, killed: bool) -> str | None:
    """Why it ended and what to do, as sentences; None: memory was not the cause that we can see.

    `log_tail` holds the lines of this run alone. `killed`: the kernel ended processes for want of
    memory just now, and this one ended in a way that fits.
    """
    text = "\n".join(log_tail)
    said = _of_cache(text) or _of_gpu(text)
    if said is not None:
        return said
    if killed:
        return f"The kernel killed the engine: the node is out of memory. {_HOST}."
    if _SYSTEM.search(text):
        return f"The engine got no more of the node's memory. {_HOST}."
    return None


def _of_cache(text: str) -> str | None:
    longest = _CONTEXT_MAX.search(text)
    hint = f" A context of {longest[1]} tokens would fit." if longest else ""
    if found := _CACHE_LONGER.search(text):
        return (
            f"The KV cache of one request needs {found[1]} GiB and {found[2]} GiB are free."
            f"{hint} {_LESS}."
        )
    if found := _CACHE_TOKENS.search(text):
        return (
            f"The KV cache holds {found[2]} tokens and a request may need {found[1]}."
            f"{hint} {_LESS}."
        )
    if found := _TAKEN.search(text):
        return (
            f"Of the GPU's {found[2]} GiB only {found[1]} GiB are free, less than this deployment"
            " takes. End what else runs on it, or give the deployment a smaller --gpu-memory."
        )
    if _NO_BLOCKS.search(text):
        return f"The model leaves no GPU memory for the KV cache. {_LESS}."
    return None


def _of_gpu(text: str) -> str | None:
    if _CUDA.search(text):
        tried = _TRIED.search(text)
        size = f" when it asked for {tried[1] or tried[2]} more" if tried else ""
        return f"The GPU ran out of memory{size}. {_LESS}."
    if _LLAMA.search(text):
        return (
            "llama.cpp got no memory for the model or its KV cache."
            " Give the deployment a smaller context, fewer requests at once or fewer GPU layers,"
            " or a larger GPU."
        )
    return None
