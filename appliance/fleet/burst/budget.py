"""What a burst costs, and when it has to end for its budget: pure."""

from collections.abc import Sequence
from typing import Final

from appliance.fleet.burst.members import LIVE
from appliance.fleet.burst.offers import cost_micro, lasts_s
from appliance.registry.bursts import BurstRow, MemberRow

# A machine costs on while it is emptied and taken down.
ENDING_S: Final = 900
# One that cannot be launched is asked for again after so long, doubled each time.
RETRY_S: Final = 60
RETRY_S_MAX: Final = 1_800
_SECOND_NS: Final = 1_000_000_000


def spent_micro(members: Sequence[MemberRow], now_ns: int) -> int:
    """What the machines of a burst are reckoned to have cost: from their launch to their end."""
    return sum(
        cost_micro(m.price_micro, m.paid_from_ns, m.paid_until_ns or now_ns)
        for m in members
        if m.paid_from_ns is not None
    )


def exhausted(burst: BurstRow, members: Sequence[MemberRow], now_ns: int) -> bool:
    """Whether it has to end now, so that the end is paid for as well."""
    later_ns = now_ns + ENDING_S * _SECOND_NS
    return spent_micro(members, later_ns) >= burst.spec.budget_micro


def life_s(burst: BurstRow, members: Sequence[MemberRow], price_micro: int, now_ns: int) -> int:
    """How long a machine that is launched now may run: its share of what is left.

    It keeps this end itself, so that it comes when nobody can tell it.
    """
    left_micro = burst.spec.budget_micro - spent_micro(members, now_ns)
    return max(0, lasts_s(left_micro, price_micro * burst.spec.nodes) - ENDING_S)


def missing(burst: BurstRow, members: Sequence[MemberRow], now_ns: int) -> list[tuple[int, int]]:
    """The places that want a machine, each with the time before which none is launched."""
    if burst.wish == "down":
        return []
    taken = {m.ordinal for m in members if m.state in LIVE}
    return [
        (ordinal, _not_before_ns(ordinal, members, now_ns))
        for ordinal in range(burst.spec.nodes)
        if ordinal not in taken
    ]


def _not_before_ns(ordinal: int, members: Sequence[MemberRow], now_ns: int) -> int:
    """A place that lost a working machine gets another at once; one that never had one waits."""
    failures = 0
    for member in reversed([m for m in members if m.ordinal == ordinal]):
        if member.offer is not None:
            break
        failures += 1
    if failures == 0:
        return now_ns
    return now_ns + min(RETRY_S_MAX, RETRY_S << (min(failures, 16) - 1)) * _SECOND_NS
