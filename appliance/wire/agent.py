"""Messages between an agent and the appliance, version 1. JSON bodies over HTTP.

On the appliance's own host they go over a unix socket; from other hosts over mutual TLS, where the
certificate says which node speaks and a message about another node is refused.

POST /agent/v1/hello      Hello     -> Welcome
POST /agent/v1/heartbeat  Heartbeat -> Desired

The agent sends a heartbeat at once when anything of its replicas changes, else every
`Welcome.heartbeat_s`. The answer is always the whole desired state: the agent compares, it never
applies a difference, so a lost message costs nothing.
"""

from typing import Annotated, Literal

import msgspec

from appliance.wire.engine import EngineSettings
from appliance.wire.figures import Finite, Int64
from appliance.wire.gpu import Driver, Gpu, NodeHealth

VERSION = 1

EngineKind = Literal["llamacpp", "vllm", "sglang", "external"]

# pending: known, nothing started · starting: process runs, no token yet · ready: gave a real token
# draining: takes no new requests · backoff: failed, waits before the next start
# failed: cannot start until something changes · stopped: gone
ReplicaState = Literal["pending", "starting", "ready", "draining", "backoff", "failed", "stopped"]


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """An agent introduces itself after every start, and again when it is told UNKNOWN_NODE."""

    version: Int64 = VERSION
    node_name: str
    agent_version: str
    boot_id: str
    cores: Int64
    memory_bytes: Int64
    engines: tuple[EngineKind, ...]  # kinds this node can start
    engine_versions: dict[EngineKind, str] = {}  # as probed; absent: not known
    gpus: tuple[str, ...] = ()  # names, in NVML's order


class Welcome(msgspec.Struct, frozen=True, kw_only=True):
    version: Int64 = VERSION
    node_id: str
    heartbeat_s: Finite


class ModelFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a model. `name` is relative to the model's folder, with "/"."""

    name: str
    sha256: str  # 64 hex digits
    size_bytes: Int64


class WantedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model this node shall have in its own store before its engines start."""

    digest: str  # "sha256:<hex>"
    files: tuple[ModelFile, ...]
    entry: str  # what engines open: "" the folder itself, else the file's name in it


class Pipeline(msgspec.Struct, frozen=True, kw_only=True):
    """The place of this process among those of one replica that spans nodes."""

    rank: Int64  # 0: the one that serves
    nodes: Int64
    master_host: str
    master_port: Int64


class DesiredReplica(msgspec.Struct, frozen=True, kw_only=True):
    """One engine process this node shall run. A changed `generation` means: replace it."""

    replica_id: str
    deployment_id: str
    generation: Int64
    engine: EngineKind
    model_name: str  # the name the engine serves it under
    model_path: str
    parallel: Int64 = 4
    context_tokens: Int64 = 4096  # for one request; the engine's total is context_tokens * parallel
    embedding: bool = False
    threads: Int64 | None = None  # None: the agent divides the cores that are free
    settings: EngineSettings = EngineSettings()
    gpu_uuids: tuple[str, ...] = ()  # GPUs or MIG slices it runs on
    model: WantedModel | None = None  # None: `model_path` is there already
    pipeline: Pipeline | None = None
    asleep: bool = False  # give its memory back, and wait to be woken
    probe_prompt: str = ""  # the golden prompt of the model's pack
    probe_answer: str = ""  # what its answer must contain; "": any token will do


QuestionKind = Literal["gpu_history", "engine_log", "engine_dump"]


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Something somebody wants to know of a node. Answered once, with the next heartbeats.

    gpu_history: `subject` is a GPU's UUID or "" for all · engine_log: `subject` is a replica's id.
    """

    question_id: str
    kind: QuestionKind
    subject: str = ""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """`content` is JSON of the question's kind; `problem` says why there is none."""

    question_id: str
    content: msgspec.Raw = msgspec.Raw(b"null")
    problem: str = ""


class Desired(msgspec.Struct, frozen=True, kw_only=True):
    version: Int64 = VERSION
    replicas: tuple[DesiredReplica, ...]
    models: tuple[WantedModel, ...] = ()  # to keep in the node's store; others may be removed
    questions: tuple[Question, ...] = ()
    drain_s: Finite = 30.0  # for the requests of replicas that are not wanted any more


class ReplicaReport(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent sees of one replica. Figures are measured; None where nothing was measured."""

    replica_id: str
    deployment_id: str
    generation: Int64
    state: ReplicaState
    reason: str = ""  # for a person: why it is in this state, with what to do
    host: str | None = None
    port: Int64 | None = None
    api_key: str | None = msgspec.field(default=None)  # guards the engine against its neighbours
    pid: Int64 | None = None
    started_ns: Int64 | None = None  # wall clock
    restarts: Int64 = 0
    slots: Int64 | None = None  # requests the engine works on at once
    context_tokens: Int64 | None = None  # for one request, as the engine itself reports it
    tokens_per_s: Finite | None = None  # generated tokens per second over all slots
    prompt_tokens_per_byte: Finite | None = None  # measured by the readiness request
    prefill_tokens_per_s: Finite | None = None  # prompt tokens, over all slots
    engine_version: str | None = None
    command: tuple[str, ...] = ()  # what runs, without secrets
    gpu_memory_bytes: Int64 | None = None  # of all its GPUs, measured once it was ready
    loaded_s: Finite | None = None  # from the spawn to the first token
    progress: Finite | None = None  # 0–1 of what it waits for: a copy, a load; None: not known
    asleep: bool = False


class EngineCount(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine itself counts since its start, our own readiness requests included.

    Apart from the reports: it changes all the time and calls for nothing to be done. What it does
    now comes with it while it runs; None: it does not tell.
    """

    replica_id: str
    incarnation: str  # another one after each start of the engine
    prompt_tokens: Int64  # those out of its cache included
    generated_tokens: Int64
    running: Int64 | None = None  # requests it works on
    waiting: Int64 | None = None  # that it has taken in beyond them
    cache_used: Finite | None = None  # 0–1 of its KV cache
    tokens_per_s: Finite | None = None  # generated, over the last seconds


class PreemptionNotice(msgspec.Struct, frozen=True, kw_only=True):
    """The cloud takes this machine away."""

    source: Literal["aws", "gcp", "azure", "operator"]
    at_ns: Int64  # when it ends, wall clock
    seen_ns: Int64
    detail: str = ""


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    version: Int64 = VERSION
    node_id: str
    replicas: Annotated[tuple[ReplicaReport, ...], msgspec.Meta(max_length=1_024)]
    # Of the engines that tell.
    counts: Annotated[tuple[EngineCount, ...], msgspec.Meta(max_length=4_096)] = ()
    gpus: Annotated[tuple[Gpu, ...], msgspec.Meta(max_length=64)] = ()
    driver: Driver | None = None
    health: NodeHealth | None = None
    notice: PreemptionNotice | None = None
    # Digests in the node's store, whole and verified.
    models: Annotated[tuple[str, ...], msgspec.Meta(max_length=4_096)] = ()
    door_port: Int64 | None = None  # where the engines of this node answer over mutual TLS
    answers: Annotated[tuple[Answer, ...], msgspec.Meta(max_length=256)] = ()
    sent_ns: Int64 | None = None  # the node's wall clock: its other times are read by it


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Any answer that is not 2xx. UNKNOWN_NODE: say hello again. UNSUPPORTED_VERSION: upgrade."""

    code: str
    message: str
