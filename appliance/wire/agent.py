"""Messages between an agent and the appliance, version 1. JSON bodies over HTTP.

POST /agent/v1/hello      Hello     -> Welcome
POST /agent/v1/heartbeat  Heartbeat -> Desired

The agent sends a heartbeat at once when anything of its replicas changes, else every
`Welcome.heartbeat_s`. The answer is always the whole desired state: the agent compares, it never
applies a difference, so a lost message costs nothing.
"""

from typing import Literal

import msgspec

VERSION = 1

EngineKind = Literal["llamacpp", "vllm", "external"]

# pending: known, nothing started · starting: process runs, no token yet · ready: gave a real token
# draining: takes no new requests · backoff: failed, waits before the next start
# failed: cannot start until something changes · stopped: gone
ReplicaState = Literal["pending", "starting", "ready", "draining", "backoff", "failed", "stopped"]


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """An agent introduces itself after every start, and again when it is told UNKNOWN_NODE."""

    version: int = VERSION
    node_name: str
    agent_version: str
    boot_id: str
    cores: int
    memory_bytes: int
    engines: tuple[EngineKind, ...]  # kinds this node can start
    gpus: tuple[str, ...] = ()  # names, in NVML's order


class Welcome(msgspec.Struct, frozen=True, kw_only=True):
    version: int = VERSION
    node_id: str
    heartbeat_s: float


class DesiredReplica(msgspec.Struct, frozen=True, kw_only=True):
    """One engine process this node shall run. A changed `generation` means: replace it."""

    replica_id: str
    deployment_id: str
    generation: int
    engine: EngineKind
    model_name: str  # the name the engine serves it under
    model_path: str
    parallel: int = 4
    context_tokens: int = 4096  # for one request; the engine's total is context_tokens * parallel
    embedding: bool = False
    threads: int | None = None  # None: the agent divides the cores that are free


class Desired(msgspec.Struct, frozen=True, kw_only=True):
    version: int = VERSION
    replicas: tuple[DesiredReplica, ...]


class ReplicaReport(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent sees of one replica. Figures are measured; None where nothing was measured."""

    replica_id: str
    deployment_id: str
    generation: int
    state: ReplicaState
    reason: str = ""  # for a person: why it is in this state, with what to do
    host: str | None = None
    port: int | None = None
    api_key: str | None = msgspec.field(default=None)  # guards the engine against its neighbours
    pid: int | None = None
    started_ns: int | None = None  # wall clock
    restarts: int = 0
    slots: int | None = None  # requests the engine works on at once
    context_tokens: int | None = None  # for one request, as the engine itself reports it
    tokens_per_s: float | None = None  # generated tokens per second over all slots
    prompt_tokens_per_byte: float | None = None  # measured by the readiness request


class EngineCount(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine itself counts since its start, our own readiness requests included.

    Apart from the reports: it changes all the time and calls for nothing to be done.
    """

    replica_id: str
    incarnation: str  # another one after each start of the engine
    prompt_tokens: int  # those out of its cache included
    generated_tokens: int


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    version: int = VERSION
    node_id: str
    replicas: tuple[ReplicaReport, ...]
    counts: tuple[EngineCount, ...] = ()  # of the engines that tell


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Any answer that is not 2xx. UNKNOWN_NODE: say hello again. UNSUPPORTED_VERSION: upgrade."""

    code: str
    message: str
