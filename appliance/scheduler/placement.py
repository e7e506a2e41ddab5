"""The choice of a replica: a pure function of how they stand."""

from collections.abc import Iterable, Sequence
from typing import Final

from appliance.domain.ids import ReplicaId
from appliance.scheduler.standing import Standing

# Waits closer than this are a tie: measured speeds are not more exact than that, and without a
# tie two equal replicas would never take turns.
_TIE: Final = 0.9


def choose(
    standings: Sequence[Standing], tokens: int, tried: Sequence[ReplicaId], now_s: float
) -> Standing | None:
    """The replica that would be done with `tokens` more first; None: none is left with room.

    - Only replicas with a free slot that were not tried.
    - Least (outstanding + these) tokens ÷ tokens/s; tie: fewest running; tie: longest unused.
    - An ejected replica is passed over; back on trial it takes one request at a time.
    - When every replica that is left is distrusted, ejection would be an outage of our own making:
      the one whose return is nearest gets a try.
    """
    best: Standing | None = None
    best_wait = 0.0
    trusted_left = False
    for standing in standings:
        if tried and standing.target.replica_id in tried:
            continue
        if standing.trusted:
            trusted_left = True
        elif standing.probing or now_s < standing.ejected_until_s:
            continue
        if standing.running >= standing.slots:
            continue
        wait = (standing.outstanding_tokens + tokens) / standing.tokens_per_s
        if (
            best is None
            or wait < best_wait * _TIE
            or (wait * _TIE <= best_wait and _before(standing, best))
        ):
            best = standing
            best_wait = wait
    if best is None and not trusted_left:
        return _last_resort(standings, tried)
    return best


def _before(one: Standing, other: Standing) -> bool:
    if one.running != other.running:
        return one.running < other.running
    return one.turn < other.turn


def _last_resort(standings: Iterable[Standing], tried: Sequence[ReplicaId]) -> Standing | None:
    best: Standing | None = None
    for standing in standings:
        if standing.running >= standing.slots or standing.target.replica_id in tried:
            continue
        if best is None or standing.ejected_until_s < best.ejected_until_s:
            best = standing
    return best


def any_left(standings: Iterable[Standing], tried: Sequence[ReplicaId]) -> bool:
    """Whether a replica exists that was not tried, be it full or ejected."""
    return any(standing.target.replica_id not in tried for standing in standings)
