"""What is to be done next for one machine of a burst: pure.

    wanted ──► launching ──► joining ──► running ──► leaving ──► ending ──► gone

- What may cost money is never forgotten: a machine is gone only when SkyPilot has said that its
  cluster is, and taking it down is tried until then.
- A machine that its cloud takes away is emptied by the fleet, as any node is whose end is
  announced; here it is replaced at once, and cleared away when it has ended.
"""

from dataclasses import dataclass
from typing import Final, Literal

from appliance.registry.bursts import MemberRow, MemberState, Wish

RequestState = Literal["running", "done", "failed", "unknown"]
ClusterState = Literal["unknown", "none", "init", "up", "stopped"]
NodeState = Literal["absent", "joining", "ready", "draining", "empty", "silent", "failed"]

LAUNCH_S: Final = 2_700  # SkyPilot tries every candidate in this time
JOIN_S: Final = 1_200  # from the machine's start to its agent's first word
LEAVE_S: Final = 300  # for requests to end
SILENT_S: Final = 600  # a node that says nothing for so long is given up
_SECOND_NS: Final = 1_000_000_000

# Those that count as a machine of the burst: the others are on their way out.
LIVE: Final[frozenset[MemberState]] = frozenset({"wanted", "launching", "joining", "running"})


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a machine now."""

    wish: Wish
    request: RequestState | None  # None: none is under way
    message: str  # of a request that failed
    cluster: ClusterState
    node: NodeState
    notice: bool  # its cloud takes it away
    silent_s: float = 0.0  # since its agent was last heard


@dataclass(frozen=True, slots=True)
class Launch:
    """Ask for the machine."""


@dataclass(frozen=True, slots=True)
class Down:
    """Have it taken down."""

    reason: str


@dataclass(frozen=True, slots=True)
class Empty:
    """Nothing shall run on it any more."""

    reason: str


@dataclass(frozen=True, slots=True)
class Become:
    """Another state, without anything to do."""

    state: MemberState
    reason: str = ""


Step = Launch | Down | Empty | Become | None


def next_step(member: MemberRow, facts: Facts, now_ns: int) -> Step:
    """None: wait."""
    waited_s = (now_ns - member.since_ns) / _SECOND_NS
    match member.state:
        case "wanted":
            if facts.wish == "down":
                return Become("gone", "not needed any more")
            return Launch() if now_ns >= member.not_before_ns else None
        case "launching":
            return _launching(member, facts, waited_s, now_ns)
        case "joining":
            return _joining(facts, waited_s)
        case "running":
            return _running(facts)
        case "leaving":
            done = facts.node in {"empty", "absent", "failed"} or facts.cluster in {
                "none",
                "stopped",
            }
            late = waited_s > LEAVE_S and not facts.notice
            if done or late or facts.node == "silent":
                return Down(member.reason)
            return None
        case "ending":
            return _ending(member, facts)
        case "gone":
            return None


def _launching(member: MemberRow, facts: Facts, waited_s: float, now_ns: int) -> Step:
    if facts.wish == "down":
        return Down("not needed any more")
    if member.request is None:  # the appliance ended before it had SkyPilot's answer
        if facts.cluster != "none":
            return Become("joining")
        return Launch() if now_ns >= member.not_before_ns else None
    if facts.request == "failed":
        return Down(f"not launched: {facts.message or 'SkyPilot does not say why'}")
    if facts.request == "done":
        return Become("joining")
    if waited_s > LAUNCH_S:
        return Down(f"not launched within {LAUNCH_S} s")
    return None


def _joining(facts: Facts, waited_s: float) -> Step:
    if facts.wish == "down":
        return Down("not needed any more")
    if facts.cluster in {"none", "stopped"}:
        return Down("taken away before it joined")
    if facts.node == "ready":
        return Become("running")
    if waited_s > JOIN_S:
        return Down(f"its agent did not join within {JOIN_S} s: see the log of its cluster")
    return None


def _running(facts: Facts) -> Step:
    if facts.cluster in {"none", "stopped"}:
        return Down("taken away")
    if facts.notice:
        return Become("leaving", "its cloud takes it away")
    if facts.wish == "down":
        return Empty("not needed any more")
    if facts.node == "failed":
        return Empty("its agent says that nothing can run there")
    if facts.node in {"silent", "absent"} and facts.silent_s > SILENT_S:
        return Down(f"its agent said nothing for {SILENT_S} s")
    return None


def _ending(member: MemberRow, facts: Facts) -> Step:
    if facts.cluster == "none" and facts.request != "running":
        return Become("gone", member.reason)
    if member.request is None or facts.request in {"done", "failed", "unknown"}:
        return Down(member.reason)  # it is there still: once more
    return None
