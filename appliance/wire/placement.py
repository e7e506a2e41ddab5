"""Why replicas run where they do, in the admin API."""

import msgspec

from appliance.wire.admin_message import Message


class MemoryNeed(Message, frozen=True):
    """Bytes of one replica. null: its model's files do not say."""

    weights_bytes: int
    kv_cache_bytes: int | None
    gpus: int  # of one replica; 0: it runs on the processor
    per_gpu_bytes: int
    host_bytes: int
    gpu_share: float | None  # of each GPU that the engine takes for itself
    measured: bool  # seen on this site, not computed
    text: str  # the same for people


class NodeVerdict(Message, frozen=True):
    """What speaks for or against a node for one more replica. `score` null: it cannot take it."""

    node: str
    chosen: bool  # it would get the next replica
    running: int  # replicas of the deployment that are there
    score: int | None
    reasons: list[str]
    gpus: list[str]  # UUIDs it would get


class Profile(Message, frozen=True):
    """What was measured on this hardware. null: not measured."""

    hardware: str
    engine_version: str
    gpu_memory_bytes: int | None
    loaded_s: float | None
    tokens_per_s: int | None
    prefill_tokens_per_s: int | None
    measured_at: str


class Explanation(Message, frozen=True):
    """Of a deployment: what a replica needs, and every node's verdict, best first."""

    deployment: str
    engine: str
    generation: int
    need: MemoryNeed | None
    nodes: list[NodeVerdict]
    reason: str  # why nowhere; "": somewhere
    arguments: list[str] = msgspec.field(default_factory=list)  # a start's; the port is not known
    commands: list[list[str]] = msgspec.field(default_factory=list)  # that run now
    profiles: list[Profile] = msgspec.field(default_factory=list)
