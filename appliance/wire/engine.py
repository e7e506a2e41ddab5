"""What an engine is told beside its model: settings of a deployment, the same on every node."""

from typing import Literal

import msgspec


class Lora(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter that clients ask for by `name` in place of the deployment's."""

    name: str
    path: str


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """None or empty: as the engine, or the catalogue's entry of the model, has it."""

    gpus: int = 0  # of one replica, on each of its nodes: tensor parallel; 0: on the processor
    nodes: int = 1  # of one replica: pipeline parallel across nodes (vllm)
    distributed: Literal["own", "ray"] = "own"  # how an engine on several nodes is launched
    gpu_memory_fraction: float | None = None  # of each GPU, 0–1 (vllm, sglang)
    gpu_layers: int | None = None  # on GPUs (llamacpp); None: all when there are GPUs
    dtype: str | None = None
    quantization: str | None = None
    kv_cache_dtype: str | None = None
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None
    chat_template: str | None = None  # path of a file on the node
    queue_max: int | None = None  # requests that wait in the engine
    sleep: bool = False  # the engine can give its GPU memory back and wake again (vllm)
    loras: tuple[Lora, ...] = ()
    arguments: tuple[str, ...] = ()  # passed on as they are; a deny-list protects secrets
