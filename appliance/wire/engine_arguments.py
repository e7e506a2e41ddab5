"""What an engine is told on its command line: settings in, words out. Pure, the same everywhere.

The agent runs these words; the appliance shows them to the administrator before they run. Flags are
data: each says since which version of its engine it is known, and one that the installed version
does not know yet is left out. "Since" is the oldest version the flag was seen in, so an older
engine may lack a convenience but never fails to start for a word it does not know.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from appliance.wire.agent import DesiredReplica, EngineKind
from appliance.wire.engine import EngineSettings

# A version of llamacpp that begins so: the one that is part of the agent, no llama-server.
EMBEDDED: Final = "embedded"
Version = tuple[int, ...]
Word = tuple[str, *tuple[str, ...]]  # a flag and its values

LOOPBACK: Final = "127.0.0.1"
_DRAIN_S: Final = 60  # the engine's own wait for its requests at SIGTERM; the agent kills earlier
_KEEP_ALIVE_S: Final = 15  # between two comments on a stream that waits
_LORA_RANKS: Final = (8, 16, 32, 64, 128, 256, 320, 512)  # those vLLM takes for its maximum

# Flags that not every release has. Those of the first releases this appliance knew are not listed.
_SINCE: Final[Mapping[EngineKind, Mapping[str, Version]]] = {
    "vllm": {
        "--enable-force-include-usage": (0, 9, 2),
        "--enable-server-load-tracking": (0, 8),
        "--nnodes": (0, 12),
        "--node-rank": (0, 12),
        "--master-addr": (0, 12),
        "--master-port": (0, 12),
        "--shutdown-timeout": (0, 18),
        "--max-num-queued-reqs": (0, 32),
        "--sse-keep-alive-interval": (0, 32),
    },
    "sglang": {"--max-queued-requests": (0, 5)},
    "llamacpp": {},
    "external": {},
}
# Where an older release lacks a flag that the settings ask for, leaving it out would be a lie.
_INDISPENSABLE: Final = frozenset({"--nnodes", "--enable-force-include-usage"})


@dataclass(frozen=True, slots=True)
class Place:
    """Where the engine listens and what only its node knows."""

    host: str = LOOPBACK
    port: int = 0  # 0: not chosen yet
    threads: int = 1  # compute threads (llamacpp)
    lora_rank_max: int = 16  # of the adapters (vllm)


def version_of(text: str | None) -> Version:
    """The release's numbers, of "0.32.0+cpu" or "b7012"; unknown: the newest there can be."""
    found = re.match(r"[vb]?(\d+(?:\.\d+)*)", text or "")
    return tuple(int(part) for part in found[1].split(".")) if found else (1_000_000,)


def lacking(replica: DesiredReplica, version: str | None) -> str | None:
    """What this deployment needs and that version of its engine does not have; None: nothing."""
    since = _SINCE[replica.engine]
    for flag, *_ in _words(replica, Place()):
        if flag in _INDISPENSABLE and version_of(version) < since.get(flag, ()):
            needed = ".".join(map(str, since[flag]))
            return (
                f"The engine {replica.engine} {version} does not know {flag}. Install {needed}"
                " or newer on this node."
            )
    return None


def engine_arguments(replica: DesiredReplica, version: str | None, place: Place) -> tuple[str, ...]:
    """All arguments of the engine, the program's own name and its secrets excepted."""
    since, installed = _SINCE[replica.engine], version_of(version)
    known = [word for word in _words(replica, place) if since.get(word[0], ()) <= installed]
    return (*(part for word in known for part in word), *replica.settings.arguments)


def embedded_arguments(replica: DesiredReplica, threads: int | None) -> tuple[str, ...]:
    """Those of the llama.cpp that is part of the agent: words of its own, no others pass."""
    settings = replica.settings
    layers = settings.gpu_layers if settings.gpu_layers is not None else -1
    return (
        *("--model", replica.model_path),
        *("--alias", replica.model_name),
        *("--parallel", str(replica.parallel)),
        *("--context", str(replica.context_tokens)),
        *(() if threads is None else ("--threads", str(threads))),
        *(("--gpu-layers", str(layers)) if settings.gpus else ()),
        *(("--embedding",) if replica.embedding else ()),
    )


def _words(replica: DesiredReplica, place: Place) -> Iterator[Word]:
    match replica.engine:
        case "vllm":
            yield from _vllm(replica, place)
        case "sglang":
            yield from _sglang(replica, place)
        case "llamacpp":
            yield from _llama_server(replica, place)
        case "external":
            return


def _vllm(replica: DesiredReplica, place: Place) -> Iterator[Word]:
    settings = replica.settings
    yield from _vllm_server(replica, place)
    yield "--max-model-len", str(replica.context_tokens)
    yield "--max-num-seqs", str(replica.parallel)
    if settings.gpus > 1:
        yield "--tensor-parallel-size", str(settings.gpus)
    if settings.nodes > 1:
        yield "--pipeline-parallel-size", str(settings.nodes)
        yield from _vllm_nodes(replica)
    elif settings.gpus > 1:
        yield "--distributed-executor-backend", "mp"
    if settings.gpus and settings.gpu_memory_fraction is not None:
        yield "--gpu-memory-utilization", str(settings.gpu_memory_fraction)
    yield from _weights(settings, quantization="--quantization", cache="--kv-cache-dtype")
    if replica.embedding:
        yield "--runner", "pooling"
        return
    yield "--scheduling-policy", "priority"
    if settings.tool_call_parser is not None:
        yield ("--enable-auto-tool-choice",)
        yield "--tool-call-parser", settings.tool_call_parser
    if settings.reasoning_parser is not None:
        yield "--reasoning-parser", settings.reasoning_parser
    if settings.chat_template is not None:
        yield "--chat-template", settings.chat_template
    if settings.loras:
        yield ("--enable-lora",)
        yield "--max-loras", str(len(settings.loras))
        rank = min((r for r in _LORA_RANKS if r >= place.lora_rank_max), default=_LORA_RANKS[-1])
        yield "--max-lora-rank", str(rank)
        adapters = ({"name": lora.name, "path": lora.path} for lora in settings.loras)
        yield "--lora-modules", *(json.dumps(adapter) for adapter in adapters)
    if settings.sleep:
        yield ("--enable-sleep-mode",)


def _vllm_server(replica: DesiredReplica, place: Place) -> Iterator[Word]:
    if replica.pipeline is not None and replica.pipeline.rank > 0:
        yield "--served-model-name", replica.model_name
        return
    yield "--served-model-name", replica.model_name
    yield "--host", place.host
    yield "--port", str(place.port)
    yield ("--enable-force-include-usage",)
    yield ("--enable-prompt-tokens-details",)
    yield ("--enable-server-load-tracking",)
    yield ("--enable-request-id-headers",)
    yield ("--disable-fastapi-docs",)
    yield ("--disable-uvicorn-access-log",)
    yield "--shutdown-timeout", str(_DRAIN_S)
    yield "--sse-keep-alive-interval", str(_KEEP_ALIVE_S)
    if replica.settings.queue_max is not None:
        yield "--max-num-queued-reqs", str(replica.settings.queue_max)


def _vllm_nodes(replica: DesiredReplica) -> Iterator[Word]:
    """Among the nodes of one replica: vLLM's own launcher, or Ray's cluster when asked."""
    if replica.settings.distributed == "ray":
        yield "--distributed-executor-backend", "ray"
        return
    yield "--distributed-executor-backend", "mp"
    pipeline = replica.pipeline
    if pipeline is None:  # shown before it is placed
        yield "--nnodes", str(replica.settings.nodes)
        return
    yield "--nnodes", str(pipeline.nodes)
    yield "--node-rank", str(pipeline.rank)
    yield "--master-addr", pipeline.master_host
    yield "--master-port", str(pipeline.master_port)
    if pipeline.rank > 0:
        yield ("--headless",)


def _sglang(replica: DesiredReplica, place: Place) -> Iterator[Word]:
    settings = replica.settings
    yield "--model-path", replica.model_path
    yield "--served-model-name", replica.model_name
    yield "--host", place.host
    yield "--port", str(place.port)
    yield "--context-length", str(replica.context_tokens)
    yield "--max-running-requests", str(replica.parallel)
    yield ("--enable-metrics",)
    yield ("--enable-cache-report",)
    yield "--log-level-http", "warning"
    if settings.gpus == 0:
        yield "--device", "cpu"
    if settings.gpus > 1:
        yield "--tp-size", str(settings.gpus)
    if settings.gpus and settings.gpu_memory_fraction is not None:
        yield "--mem-fraction-static", str(settings.gpu_memory_fraction)
    yield from _weights(settings, quantization="--quantization", cache="--kv-cache-dtype")
    if replica.embedding:
        yield ("--is-embedding",)
        return
    if settings.tool_call_parser is not None:
        yield "--tool-call-parser", settings.tool_call_parser
    if settings.reasoning_parser is not None:
        yield "--reasoning-parser", settings.reasoning_parser
    if settings.chat_template is not None:
        yield "--chat-template", settings.chat_template
    if settings.queue_max is not None:
        yield "--max-queued-requests", str(settings.queue_max)
    if settings.loras:
        yield ("--enable-lora",)
        yield "--max-loras-per-batch", str(len(settings.loras))
        yield "--lora-paths", *(f"{lora.name}={lora.path}" for lora in settings.loras)


def _llama_server(replica: DesiredReplica, place: Place) -> Iterator[Word]:
    settings = replica.settings
    yield "--model", replica.model_path
    yield "--alias", replica.model_name
    yield "--host", place.host
    yield "--port", str(place.port)
    yield "--parallel", str(replica.parallel)
    yield "--ctx-size", str(replica.context_tokens * replica.parallel)  # divided by its slots
    yield "--threads", str(place.threads)
    yield "--n-gpu-layers", _gpu_layers(settings)
    yield ("--metrics",)
    yield ("--slots",)
    yield ("--offline",)
    yield ("--no-webui",)
    if settings.kv_cache_dtype is not None:
        yield "--cache-type-k", settings.kv_cache_dtype
        yield "--cache-type-v", settings.kv_cache_dtype
    if replica.embedding:
        # A text is embedded in one piece: the physical batch must hold it whole.
        yield ("--embedding",)
        yield "--batch-size", str(replica.context_tokens)
        yield "--ubatch-size", str(replica.context_tokens)
        return
    yield ("--jinja",)
    if settings.chat_template is not None:
        yield "--chat-template-file", settings.chat_template


def _gpu_layers(settings: EngineSettings) -> str:
    if settings.gpu_layers is not None:
        return str(settings.gpu_layers)
    return "999" if settings.gpus else "0"  # more layers than any model has: all of them


def _weights(settings: EngineSettings, *, quantization: str, cache: str) -> Iterator[Word]:
    if settings.dtype is not None:
        yield "--dtype", settings.dtype
    if settings.quantization is not None:
        yield quantization, settings.quantization
    if settings.kv_cache_dtype is not None:
        yield cache, settings.kv_cache_dtype
