"""Where a replica can run, and where it had best run: filter, then score, with every reason.

Pure. A node that cannot take it says by what it falls short; among those that can, the best has

- fewest replicas of the same deployment: one node's end shall not be the deployment's;
- the model in its store already: nothing needs to be copied;
- good health;
- GPUs that are used up best by it, so that the large ones stay free for large models;
- GPUs that reach one another by NVLink, where more than one is needed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from typing import Final

from appliance.domain.ids import DeploymentId, NodeId
from appliance.fleet.estimate import GIB, KIB, MIB, Need
from appliance.fleet.node_facts import NodeFacts, Unit, units
from appliance.fleet.room import Room
from appliance.registry.engines import Engine
from appliance.registry.replicas import Seat
from appliance.wire.engine import EngineSettings
from appliance.wire.engine_arguments import EMBEDDED

_SETS_MAX: Final = 2_000  # of GPUs that are compared on one node; 8 GPUs have 70 sets of 4
_MEMORY_BYTES_MIN: Final = 64 * MIB  # no machine has less: its agent does not tell
_SCORE: Final = 1_000
_SAME_DEPLOYMENT: Final = 200  # for each replica of it that is there
_ANY_REPLICA: Final = 10
_HEALTH: Final = 4  # for each point that is missing
_MODEL_THERE: Final = 50
_NO_NVLINK: Final = 100
_GPUS_UNUSED: Final = 20
_WASTE: Final = 100  # when next to nothing of the GPUs' memory is used


@dataclass(frozen=True, slots=True)
class Ask:
    """What a replica is to be given a place for. `need` None: nobody knows what it needs."""

    deployment_id: DeploymentId
    engine: Engine
    region: str
    settings: EngineSettings
    need: Need | None
    pins: tuple[NodeId, ...] = ()
    model_digest: str = ""
    minimum_driver: str = ""  # of the GPUs, as the model's publisher says


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said of one node. `score` None: it cannot take the replica."""

    node_id: NodeId
    node_name: str
    score: int | None
    reasons: tuple[str, ...]  # why not; or what its score is made of
    seat: Seat | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """`seats` (): nowhere. Verdicts by score, best first, then by name."""

    seats: tuple[Seat, ...]
    verdicts: tuple[Verdict, ...]
    reason: str  # why nowhere


def choose(ask: Ask, nodes: Mapping[NodeId, NodeFacts], room: Room) -> Choice:
    """The best place with the room there is, and what speaks for and against every node."""
    verdicts = sorted(
        (judge(ask, node, room) for node in nodes.values()),
        key=lambda v: (v.score is None, -(v.score or 0), v.node_name),
    )
    seats = [v.seat for v in verdicts if v.seat is not None][: ask.settings.nodes]
    if len(seats) < ask.settings.nodes:
        return Choice((), tuple(verdicts), why_nowhere(ask, nodes, verdicts))
    return Choice(tuple(seats), tuple(verdicts), "")


def judge(ask: Ask, node: NodeFacts, room: Room) -> Verdict:
    """Whether the node can take one more process of the replica, and how well that would be."""
    against = [*_unfit(ask, node), *_too_little_memory(ask, node, room)]
    chosen: tuple[Unit, ...] = ()
    if ask.settings.gpus:
        chosen, why = _gpus(ask, node, room)
        against += why
    if against:
        return Verdict(node.row.id, node.name, None, tuple(against))
    score, parts = _score(ask, node, room, chosen)
    seat = Seat(node.row.id, tuple(unit.uuid for unit in chosen))
    return Verdict(node.row.id, node.name, score, tuple(parts), seat)


def why_nowhere(ask: Ask, nodes: Mapping[NodeId, NodeFacts], verdicts: Sequence[Verdict]) -> str:
    """For a person: the shortest that helps."""
    ready = [node for node in nodes.values() if node.ready]
    if not ready and any(node.row.wish != "serving" for node in nodes.values()):
        return "No node takes replicas. Resume one with `cic node resume`, or start an agent."
    if not ready:
        return "No node is ready. Start an agent with `cic agent`."
    if not any(node.row.region == ask.region for node in ready):
        return f"No node in the region {ask.region!r} is ready."
    if not any(str(ask.engine) in node.engines for node in ready):
        return (
            f"No ready node can run the engine {ask.engine}."
            " Install it there and restart the agent."
        )
    fit = sum(verdict.score is not None for verdict in verdicts)
    if fit:
        return f"It needs {ask.settings.nodes} nodes, and {fit} can take it."
    said = [f"{v.node_name}: {'; '.join(v.reasons)}" for v in verdicts]
    more = f" (and {len(said) - 3} more)" if len(said) > 3 else ""
    return f"No node has room. {'. '.join(said[:3])}{more}. `cic deployment explain` tells all."


def gib(count: int) -> str:
    """Bytes as people compare them: `11 GiB`, `0.4 GiB`, `12 MiB`, `300 KiB`."""
    if 0 < count < MIB:
        return f"{-(-count // KIB)} KiB"
    size = count / GIB
    if size < 0.1:
        return f"{count / MIB:.0f} MiB"
    return f"{size:.0f} GiB" if size >= 10 else f"{size:.1f} GiB"


def older(version: str, least: str) -> bool:
    """Whether a driver's version, as 535.183.01, is beneath another; as numbers, part by part."""

    def parts(text: str) -> list[int]:
        return [int(part) for part in text.split(".") if part.isdecimal()]

    return parts(version) < parts(least)


def only_embedded(engine: Engine, node: NodeFacts) -> bool:
    """Whether a replica would run on the llama.cpp that is part of the node's agent."""
    version = node.engine_versions.get(str(engine), "")
    return engine is Engine.LLAMACPP and version.startswith(EMBEDDED)


def _unfit(ask: Ask, node: NodeFacts) -> list[str]:
    """What is wrong with the node itself, however much room it has."""
    against = []
    if node.lost:
        against.append("it is not heard of" if node.engines else "its agent never said hello")
    elif node.row.wish != "serving":
        against.append(
            f"it is in {node.row.wish}" if node.row.wish == "maintenance" else "it is draining"
        )
    elif node.failed:
        against.append(f"nothing can run there: {node.failed}")
    elif not node.ready:
        against.append("it is not ready")
    if node.row.region != ask.region:
        against.append(f"it is in the region {node.row.region!r}, not {ask.region!r}")
    if ask.pins and node.row.id not in ask.pins:
        against.append("the deployment is pinned to other nodes")
    if str(ask.engine) not in node.engines and (node.engines or not node.lost):
        against.append(f"it has no engine {ask.engine}")
    own_words = ask.settings.arguments or ask.settings.chat_template
    if own_words and only_embedded(ask.engine, node):
        against.append("its llama.cpp is the embedded one: no arguments or template of your own")
    if ask.settings.gpus and node.driver and older(node.driver, ask.minimum_driver):
        against.append(f"its driver {node.driver} is older than {ask.minimum_driver}")
    if ask.settings.nodes > 1 and node.door is None and not node.lost:
        against.append("other nodes know no address of it, and the replica spans nodes")
    return against


def _too_little_memory(ask: Ask, node: NodeFacts, room: Room) -> list[str]:
    if ask.need is None or node.memory_bytes is None or node.memory_bytes < _MEMORY_BYTES_MIN:
        return []
    free = node.memory_bytes - room.host_bytes(node.row.id)
    short = ask.need.host_bytes - free
    if short <= 0:
        return []
    if ask.need.host_bytes > node.memory_bytes:
        return [f"its memory is too small by {gib(ask.need.host_bytes - node.memory_bytes)}"]
    return [f"its memory is short by {gib(short)}, other replicas have theirs of it"]


def _gpus(ask: Ask, node: NodeFacts, room: Room) -> tuple[tuple[Unit, ...], list[str]]:
    """The GPUs it would get; or () and why there are none."""
    if node.lost and not node.gpus:
        return (), []  # nobody knows; that it is lost has been said
    count = ask.settings.gpus
    present = list(units(node))
    if count > 1:  # no engine spreads a model over slices
        present = [unit for unit in present if not unit.profile]
    if not present:
        what = "no undivided GPUs" if node.gpus else "no GPUs"
        return (), [f"it has {what}, {count} asked"]
    whole = [unit for unit in present if unit.state in {"ok", "degraded"}]
    if len(whole) < count:
        broken = len(present) - len(whole)
        failed = f", {broken} failed" if broken else ""
        return (), [f"it has {len(present)} GPU{'s'[: len(present) > 1]}{failed}; {count} asked"]
    shorts = {unit.uuid: _short(ask, unit, room) for unit in whole}
    fit = [unit for unit in whole if shorts[unit.uuid] <= 0]
    if len(fit) >= count:
        return _best_set(ask, fit, room), []
    return (), [_shortage(ask, whole, shorts, room)]


def _wanted(ask: Ask, unit: Unit) -> int:
    """Bytes of that GPU the replica will hold."""
    need = ask.need
    if need is None:
        return 1  # any; `_short` wants the GPU to itself
    if need.share is not None and unit.total_bytes is not None:
        return int(need.share * unit.total_bytes)
    return need.per_gpu_bytes


def _short(ask: Ask, unit: Unit, room: Room) -> int:
    """Bytes by which the GPU falls short; 0 or less: it does not, or does not tell."""
    if ask.need is None:
        return int(room.taken(unit))
    if unit.total_bytes is None:
        return int(room.taken(unit))
    if ask.need.share is not None:
        usable = int(ask.need.share * unit.total_bytes)
        if ask.need.per_gpu_bytes > usable:
            return ask.need.per_gpu_bytes - usable
    return _wanted(ask, unit) - room.free_bytes(unit)


def _shortage(ask: Ask, whole: Sequence[Unit], shorts: Mapping[str, int], room: Room) -> str:
    """`2 GPUs too small by 11 GiB`, or how much of them others have."""
    count = ask.settings.gpus
    need = ask.need
    plural = "s" if count > 1 else ""
    nearest = sorted(shorts[unit.uuid] for unit in whole)[count - 1]
    if need is None:
        return f"{count} GPU{plural} asked, and other replicas have theirs"
    sizes = sorted((unit.total_bytes or 0 for unit in whole), reverse=True)
    usable = int((need.share or 1) * sizes[count - 1])
    if need.per_gpu_bytes > usable and sizes[count - 1]:
        return f"{count} GPU{plural} too small by {gib(need.per_gpu_bytes - usable)}"
    foreign = any(room.foreign_bytes(unit) for unit in whole)
    others = "other programs or replicas" if foreign else "other replicas"
    return f"{count} GPU{plural} short by {gib(nearest)}, {others} have their memory"


def _best_set(ask: Ask, fit: Sequence[Unit], room: Room) -> tuple[Unit, ...]:
    """NVLink first, then sound GPUs, then those that are used up best."""
    ordered = sorted(fit, key=lambda u: (room.free_bytes(u), u.gpu.index, u.uuid))
    sets = islice(combinations(ordered, ask.settings.gpus), _SETS_MAX)
    return min(
        sets,
        key=lambda chosen: (
            not linked(chosen),
            sum(unit.state != "ok" for unit in chosen),
            len({unit.gpu.name for unit in chosen}),
            sum(room.free_bytes(unit) for unit in chosen),
            [unit.gpu.index for unit in chosen],
        ),
    )


def linked(chosen: Iterable[Unit]) -> bool:
    """Whether each reaches each other by NVLink, directly or through an NVSwitch.

    A link whose peer is not told goes to a switch, which reaches every GPU.
    """
    gpus = [unit.gpu for unit in chosen]
    for one, other in combinations(gpus, 2):
        for left, right in ((one, other), (other, one)):
            peers = {link.peer_uuid for link in left.links if link.up}
            if not peers & {None, right.uuid}:
                return False
    return True


def _score(ask: Ask, node: NodeFacts, room: Room, chosen: Sequence[Unit]) -> tuple[int, list[str]]:
    same = room.replicas(node.row.id, ask.deployment_id)
    others = room.replicas(node.row.id) - same
    parts = [
        (_SAME_DEPLOYMENT * same, f"{same} of its replicas there"),
        (_ANY_REPLICA * others, f"{others} other replicas there"),
        (_HEALTH * (100 - node.score), f"health {node.score}"),
    ]
    if ask.model_digest and ask.model_digest in node.models:
        parts.append((-_MODEL_THERE, "has the model"))
    if chosen:
        free = sum(room.free_bytes(unit) for unit in chosen)
        if free > 0 and ask.need is not None:
            # By what it needs, also of engines that take all they are given.
            needed = ask.need.per_gpu_bytes * len(chosen)
            waste = _WASTE * max(0, free - needed) // free
            parts.append((waste, f"needs {100 * needed // free} % of its GPUs' free memory"))
        if len(chosen) > 1 and not linked(chosen):
            parts.append((_NO_NVLINK, "no NVLink between them"))
    elif node.gpus:
        parts.append((_GPUS_UNUSED, "its GPUs would not be used"))
    return _SCORE - sum(cost for cost, _ in parts), [
        f"{text} ({-cost:+d})" for cost, text in parts if cost
    ]
