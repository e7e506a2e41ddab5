"""The fleet in the admin API: models, deployments, replicas, nodes, regions."""

from typing import Annotated, Any, Literal

import msgspec

from appliance.wire.admin_message import Message, State
from appliance.wire.engine import EngineSettings
from appliance.wire.gpu import Driver, NodeHealth

EngineName = Literal["llamacpp", "vllm", "sglang", "external"]
# retiring: the secret of before a rotation is still accepted.
DeploymentState = Literal[
    "pending", "starting", "ready", "degraded", "failed", "suspended", "unloaded"
]
# joining: expected, its agent never said hello · draining: an administrator, or a notice that the
# machine ends, wants it empty, and something still runs · maintenance: wanted empty, and it is
# unreachable: its agent is silent · failed: its agent says that nothing can run there
NodeState = Literal["joining", "ready", "draining", "maintenance", "unreachable", "failed"]
NodeWish = Literal["serving", "draining", "maintenance"]
Strategy = Literal["auto", "surge", "recreate"]


class Model(Message, frozen=True):
    """Named weights on this site."""

    id: str
    name: str
    path: str
    digest: str  # sha256:<hex>
    size_bytes: int
    family: str
    licence: str
    state: State
    created_at: str
    files: int = 1
    architecture: str = ""
    context_tokens: int | None = None  # it was trained for
    version: str = ""  # as its pack says, and so are those below
    publisher: str = ""  # id of the key that signed the pack
    minimum_driver: str = ""
    golden: bool = False  # a prompt is asked after each load


class ModelCreate(Message, frozen=True):
    path: str
    name: str | None = None  # default: the file's name
    family: str = ""
    licence: str = ""


class ModelUpdate(Message, frozen=True):
    name: str | None = None
    family: str | None = None
    licence: str | None = None


class Replica(Message, frozen=True):
    """One engine process, as last reported. Missing figures are null, never 0."""

    id: str
    node: str
    state: str
    reason: str
    address: str | None
    pid: int | None
    restarts: int
    slots: int | None
    context_tokens: int | None
    tokens_per_s: float | None
    requests_running: int | None
    since: str | None
    generation: int = 1
    # UUIDs of GPUs or slices it was given.
    gpus: list[str] = msgspec.field(default_factory=list)
    engine_version: str | None = None
    requests_waiting: int | None = None  # in the engine itself, beyond its slots
    output_tokens_per_s: float | None = None  # now, as the engine counts
    cache_used_percent: float | None = None  # of its KV cache
    load_percent: float | None = None  # of what it waits for: a copy, a load


class Deployment(Message, frozen=True):
    id: str
    name: str  # what clients write as `model`
    engine: EngineName
    model: str  # name of the model; "" for external
    url: str | None  # external only
    has_api_key: bool
    upstream_model: str | None
    replicas_wanted: int
    parallel: int
    context_tokens: int | None
    embedding: bool
    operations: list[str]
    region: str
    state: DeploymentState
    reason: str
    replicas: list[Replica]
    created_at: str
    settings: EngineSettings = EngineSettings()
    strategy: Strategy = "auto"
    pins: tuple[str, ...] = ()  # names of the only nodes it may run on; (): any
    idle_s: int | None = None  # without a request, before its engines are unloaded; null: never
    generation: int = 1


class DeploymentCreate(Message, frozen=True):
    """`model` is a model's name or id, or a path: a path registers the model as well."""

    name: str
    engine: EngineName
    model: str | None = None
    url: str | None = None
    api_key: str | None = None
    upstream_model: str | None = None
    replicas: int = 1
    parallel: int = 4
    context_tokens: int | None = None
    embedding: bool = False
    operations: list[str] | None = None  # default: what the engine is known to have
    region: str | None = None
    settings: EngineSettings = EngineSettings()
    strategy: Strategy = "auto"
    pins: tuple[str, ...] = ()  # nodes by id or name
    idle_s: int | None = None


class DeploymentUpdate(Message, frozen=True):
    """A field that is absent stays; "" takes `api_key` or `upstream_model` away.

    `settings` are merged: only what is named in it changes, null takes a setting away.
    `pins` [] and `idle_s` 0 take theirs away.
    """

    replicas: int | None = None
    model: str | None = None
    parallel: int | None = None
    context_tokens: int | None = None
    url: str | None = None
    api_key: str | None = None
    upstream_model: str | None = None
    operations: list[str] | None = None
    settings: dict[str, Any] | None = None  # fields of EngineSettings
    strategy: Strategy | None = None
    pins: list[str] | None = None
    idle_s: int | None = None


class NodeNotice(Message, frozen=True):
    """The machine will be gone at `at`."""

    source: Literal["aws", "gcp", "azure", "operator"]
    at: str
    detail: str
    seen_at: str


class NodeNoticeGive(Message, frozen=True):
    in_s: Annotated[int, msgspec.Meta(ge=1, le=30 * 86_400)]
    reason: str = ""


class Node(Message, frozen=True):
    id: str
    name: str
    region: str
    state: NodeState
    agent_version: str | None
    cores: int | None
    memory_bytes: int | None
    gpus: list[str]
    engines: list[str]
    last_seen_at: str | None
    created_at: str
    reason: str = ""  # why it is in its state, with what to do
    wish: NodeWish = "serving"
    wish_reason: str = ""
    wished_by: str = ""
    wished_at: str | None = None
    notice: NodeNotice | None = None
    health: NodeHealth | None = None  # null: its agent has not told yet
    driver: Driver | None = None
    engine_versions: dict[str, str] = msgspec.field(default_factory=dict)  # as probed by its agent


class NodeWishSet(Message, frozen=True):
    """Why a node is drained or maintained, for those who come after."""

    reason: str = ""


class NodeCreate(Message, frozen=True):
    name: str
    region: str | None = None


class NodeUpdate(Message, frozen=True):
    name: str | None = None
    region: str | None = None


class Region(Message, frozen=True):
    """Price multiplier in basis points: 7000 is 0.7, 10000 is 1.0."""

    name: str
    multiplier_bp: int
    created_at: str


class RegionCreate(Message, frozen=True):
    name: str
    multiplier_bp: int = 10_000


class RegionUpdate(Message, frozen=True):
    multiplier_bp: int
