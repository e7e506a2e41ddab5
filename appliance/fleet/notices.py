"""What is done about a machine that will be taken away, and when.

Pure. The time that is left is used in this order:
- At first its replicas serve on while their successors start elsewhere: nothing is lost by it.
- In the last minute new requests go to replicas elsewhere, where there are any: a request should
  not begin on a machine that ends before it.
- In the last seconds nothing begins there any more, though it must wait: it would be cut off.

An announcement that is far off, such as the retirement of a host in a week, is shown and waited
for. One whose hour has passed stands for as long as the agent tells it.
"""

from collections.abc import Collection, Sequence
from enum import IntEnum
from typing import Final

import msgspec

from appliance.registry.nodes import Wish
from appliance.scheduler.replicas import ReplicaTarget
from appliance.wire.agent import PreemptionNotice

LEAD_S: Final = 900  # successors are started so long before the end, at most
HAND_OVER_S: Final = 60
LAST_S: Final = 10
_LAST_SHARE: Final = 3  # of a short notice, the last third
_DRAIN_S_MIN: Final = 1.0
_ENDING_S: Final = 3.0  # for processes to end, and for that to be told
_SECOND_NS: Final = 1_000_000_000
_SKEW_NS_MIN: Final = 2 * _SECOND_NS  # less is the way of a message, no other time


class Phase(IntEnum):
    """How near the end is. Each includes what was done in those before."""

    NONE = 0
    ANNOUNCED = 1  # far off: nothing is done yet
    EMPTYING = 2  # takes no new replicas; successors start elsewhere
    HANDING_OVER = 3  # new requests go elsewhere, where there is a replica
    LAST = 4  # nothing runs there but what began before


def by_our_clock(notice: PreemptionNotice, sent_ns: int | None, heard_ns: int) -> PreemptionNotice:
    """A node's notice in the appliance's time: its message was sent and heard at one moment.

    `sent_ns` None: the node does not tell its time, which is then taken to be ours.
    """
    skew_ns = 0 if sent_ns is None else heard_ns - sent_ns
    if abs(skew_ns) < _SKEW_NS_MIN:
        return notice
    return msgspec.structs.replace(
        notice, at_ns=notice.at_ns + skew_ns, seen_ns=notice.seen_ns + skew_ns
    )


def phase(notice: PreemptionNotice | None, now_ns: int) -> Phase:
    """Where the notice stands at that moment."""
    if notice is None:
        return Phase.NONE
    left_s = (notice.at_ns - now_ns) / _SECOND_NS
    given_s = (notice.at_ns - notice.seen_ns) / _SECOND_NS
    if left_s > LEAD_S:
        return Phase.ANNOUNCED
    if left_s <= min(LAST_S, given_s / _LAST_SHARE):
        return Phase.LAST
    return Phase.HANDING_OVER if left_s <= HAND_OVER_S else Phase.EMPTYING


def drain_s(usual_s: float, notice: PreemptionNotice | None, now_ns: int) -> float:
    """For the requests of a replica that ends: the usual time, or what is left of its machine's."""
    if notice is None:
        return usual_s
    left_s = (notice.at_ns - now_ns) / _SECOND_NS
    return max(_DRAIN_S_MIN, min(usual_s, left_s - _ENDING_S))


def wish_under(wish: Wish, at: Phase) -> Wish:
    """What is wanted of a node, its administrator's wish and its end taken together."""
    if at is Phase.LAST or wish == "maintenance":
        return "maintenance"
    return "draining" if at >= Phase.EMPTYING else wish


def handed_over(
    targets: Sequence[ReplicaTarget], leaving: Collection[str]
) -> tuple[ReplicaTarget, ...]:
    """The replicas of a deployment that take new requests: none on the nodes `leaving` (names),
    unless there is no other."""
    staying = tuple(target for target in targets if target.node_name not in leaving)
    return staying or tuple(targets)


def sooner(one: PreemptionNotice | None, other: PreemptionNotice | None) -> PreemptionNotice | None:
    """The notice that counts when two are given."""
    if one is None or other is None:
        return one or other
    return min(one, other, key=lambda notice: notice.at_ns)
