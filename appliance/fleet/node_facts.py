"""A node as far as its agent told, for those who decide what runs where."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from appliance.domain.ids import NodeId
from appliance.registry.nodes import NodeRow
from appliance.wire.agent import ReplicaReport
from appliance.wire.gpu import Gpu, GpuState


@dataclass(frozen=True, slots=True)
class Door:
    """Where the engines of a node on another host are reached: the address its agent speaks from.

    `port` None: the node's door is not open.
    """

    node_id: NodeId
    host: str
    port: int | None


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """`engines` is empty when the node never spoke; then nothing else is known of it either."""

    row: NodeRow  # its wish is the administrator's, or what the machine's nearing end makes of it
    ready: bool  # spoke lately and takes replicas
    lost: bool
    silent_s: float
    engines: frozenset[str] = frozenset()
    reports: Mapping[str, ReplicaReport] = field(default_factory=dict)
    door: Door | None = None  # None: it is this host
    failed: str = ""  # why nothing can run there, as its agent says
    gpus: tuple[Gpu, ...] = ()
    memory_bytes: int | None = None
    score: int = 100  # of its health
    models: frozenset[str] = frozenset()  # digests in its own store
    engine_versions: Mapping[str, str] = field(default_factory=dict)  # as probed
    driver: str | None = None  # version of the GPUs' driver, "550.54.15"
    heard: bool = True  # since this appliance started, and not revoked since

    @property
    def name(self) -> str:
        return self.row.name


@dataclass(frozen=True, slots=True)
class Unit:
    """What an engine can be given: a whole GPU, or a slice of one that is divided by MIG."""

    uuid: str
    gpu: Gpu
    profile: str  # of the slice; "": the whole GPU
    total_bytes: int | None
    used_bytes: int | None

    @property
    def state(self) -> GpuState:
        return self.gpu.state


def units(node: NodeFacts) -> Iterator[Unit]:
    """A GPU that is divided is not given as a whole."""
    for gpu in node.gpus:
        if gpu.mig or gpu.slices:
            for part in gpu.slices:
                yield Unit(
                    part.uuid, gpu, part.profile, part.memory_total_bytes, part.memory_used_bytes
                )
        else:
            yield Unit(gpu.uuid, gpu, "", gpu.memory_total_bytes, gpu.memory_used_bytes)
