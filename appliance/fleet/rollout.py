"""Replicas replaced one by one, without a gap: when a deployment changed, or a node shall be empty.

Pure. Two living replicas may have the same ordinal: one of before and its successor. Rules:
- surge: the successor starts beside the one of before, which goes when the successor serves.
- recreate: the one of before goes first. So it is also with auto, where there is no room for both
  and the successor would have room alone; what would have none anyway stops nothing.
- Few at a time. A successor that does not start keeps the rest waiting: what serves goes on.
- What does not serve need not be waited for: it goes at once.
- On a node that drains, what has no other place goes on serving there.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from appliance.domain.ids import NodeId, ReplicaId
from appliance.fleet.statuses import ReplicaStatus
from appliance.registry.deployment_rows import DeploymentRow

_SURGE_SHARE: Final = 4  # of the replicas, a quarter at a time

# Why a successor would have no room with those gone; "": it would have.
WhyNoRoom = Callable[[Sequence[ReplicaId]], str]


@dataclass(frozen=True, slots=True)
class Steps:
    """What is to be done now. `blocked`: why something waits; `held`: on which nodes."""

    successions: tuple[int, ...] = ()  # ordinals that get one more replica
    removals: tuple[ReplicaId, ...] = ()
    blocked: str = ""
    held: tuple[NodeId, ...] = ()


@dataclass(slots=True)
class _Doing:
    successions: list[int] = field(default_factory=list)
    removals: list[ReplicaId] = field(default_factory=list)
    blocked: str = ""
    held: list[NodeId] = field(default_factory=list)
    underway: int = 0  # successors that do not serve yet
    ending: bool = False

    @property
    def room_is_made(self) -> bool:
        """Nothing that serves needs to go for what has no room at this moment."""
        return self.ending or bool(self.removals)


def steps(
    deployment: DeploymentRow,
    seen: Sequence[ReplicaStatus],
    draining: Collection[NodeId],
    why_no_room: WhyNoRoom,
    *,
    ending: bool = False,
) -> Steps:
    """The next steps from the replicas as they are. None: everything is as it shall be.

    `ending`: engines that were removed still end somewhere, so there will be more room soon.
    """
    groups: dict[int, list[ReplicaStatus]] = {}
    for status in seen:
        groups.setdefault(status.row.ordinal, []).append(status)
    doing = _Doing(ending=ending)
    changing = any(status.row.generation < deployment.generation for status in seen)
    ripe: list[tuple[int, list[ReplicaStatus]]] = []
    for ordinal, group in sorted(groups.items()):
        current = [s for s in group if _current(deployment, s, draining)]
        olds = [s for s in group if s not in current]
        if current:
            _finish(deployment, current, olds, why_no_room, doing)
            if changing and not any(s.state == "ready" for s in current):
                doing.underway += 1
        elif olds:
            ripe.append((ordinal, olds))
    at_once = max(1, deployment.replicas // _SURGE_SHARE)
    for ordinal, olds in ripe:
        _begin(deployment, ordinal, olds, why_no_room, doing, at_once)
    return Steps(tuple(doing.successions), tuple(doing.removals), doing.blocked, tuple(doing.held))


def _current(
    deployment: DeploymentRow, status: ReplicaStatus, draining: Collection[NodeId]
) -> bool:
    row = status.row
    here = {seat.node_id for seat in row.seats}
    return row.generation == deployment.generation and here.isdisjoint(draining)


def _finish(
    deployment: DeploymentRow,
    current: Sequence[ReplicaStatus],
    olds: Sequence[ReplicaStatus],
    why_no_room: WhyNoRoom,
    doing: _Doing,
) -> None:
    """A successor is there: take away what it replaces once it serves."""
    serving = [s for s in current if s.state == "ready"]
    kept = (serving or list(current))[0]
    doing.removals += [s.row.id for s in current if s is not kept]
    idle = [s.row.id for s in olds if serving or s.state != "ready"]
    doing.removals += idle
    left = [s for s in olds if s.row.id not in idle]
    if not left:
        return
    if all(s.row.generation == deployment.generation for s in left):
        doing.underway += 1  # a move
    if kept.row.node_id is not None or deployment.strategy == "surge" or doing.room_is_made:
        return
    # It found no place: its room was taken meanwhile. The one of before may have to make some.
    gone = [s.row.id for s in left]
    if all(s.row.generation < deployment.generation for s in left) and not why_no_room(gone):
        doing.removals += gone


def _begin(
    deployment: DeploymentRow,
    ordinal: int,
    olds: Sequence[ReplicaStatus],
    why_no_room: WhyNoRoom,
    doing: _Doing,
    at_once: int,
) -> None:
    """No successor is there yet: make one, if it is its turn and it has room."""
    gone = [s.row.id for s in olds]
    serving = [s for s in olds if s.state == "ready"]
    changed = all(s.row.generation < deployment.generation for s in olds)
    if not serving and (changed or not why_no_room(gone)):
        doing.removals += gone
        doing.successions.append(ordinal)
        return
    if doing.underway >= at_once:
        return
    if deployment.strategy != "recreate":
        why = why_no_room(())
        if not why:
            doing.underway += 1
            doing.successions.append(ordinal)
            return
        if doing.room_is_made:
            doing.blocked = "It waits for engines that end."
            return
    else:
        why = why_no_room(gone)
    # On a node that drains, to go first makes no room anywhere else.
    if deployment.strategy == "surge" or (why_without := why_no_room(gone)):
        beside = "" if deployment.strategy == "recreate" else " beside what serves"
        doing.blocked = f"There is no room{beside}: {why or why_without}"
        doing.held += [seat.node_id for s in olds for seat in s.row.seats]
        return
    doing.underway += at_once  # one after the other
    doing.removals += gone
    doing.successions.append(ordinal)
