"""Limits in the memory of one process: exact, and without a lock, because nothing here waits.

What is promised, for any limit of L tokens per window:

- A reservation is held from `reserve` to `settle`, and counted in the window from `settle` on.
  So whatever moment between the two a token is served at, it counts at that moment and for a
  whole window after it.
- Take the last request admitted among those that served tokens in some window. When it was
  admitted, all the others were either held or still counted, and their sum was below L. Hence
  in any window at most **L + one request** is served, as long as no request uses more than it
  reserved.
- Where requests use more than they reserved (a prompt estimated too low), the bound is L + one
  request + the sum of what the requests *open at that moment* used beyond their reservations.
  What is settled counts with its true size, so an underestimate holds back those who come after.
- Requests per minute count when they are admitted: at most the limit in any window, exactly.

The bounds hold for every 60 s and every 24 h, not for fixed minutes and days.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from appliance.domain.limits import LayerLimits
from appliance.limits.refusal import explain
from appliance.limits.reservation import Dimension, Gauge, Refusal, Reservation
from appliance.limits.scope import NO_LIMIT, Scope
from appliance.limits.window import DAY_S, MINUTE_S

_SWEEP_AT_LEAST: Final = 1_024  # scopes; fewer are never looked through
_NOT_LIMITED: Final = NO_LIMIT // 2  # what is left of "no limit" never falls below this


@dataclass(frozen=True, slots=True)
class Spent:
    """What a scope used some time ago: one sum out of the ledger, for a start with a memory.

    `age_s` is the age of the youngest request in the sum, so that none is forgotten too early.
    """

    age_s: float
    requests: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Used:
    """What counts against the limits of a scope now, held tokens included."""

    requests_per_min: int = 0
    tokens_per_min: int = 0
    tokens_per_day: int = 0
    concurrency: int = 0


@dataclass(slots=True, eq=False)
class _Held(Reservation):
    """A reservation of this store, with the counters that hold it."""

    scopes: Sequence[Scope] = ()


class MemoryLimitStore:
    """Counters of all scopes of this process. See LimitStore for the contract.

    Each layer that is passed is counted in all dimensions, so that a limit set later meets what
    was used before. A layer that is not passed costs nothing and knows nothing. Counters of a scope
    take 8 kB, and go when it has been idle for a day. Seconds are those of a monotonic clock that
    is never below 0.
    """

    __slots__ = ("_scopes", "_sweep_at")

    def __init__(self) -> None:
        self._scopes: dict[str, Scope] = {}
        self._sweep_at = _SWEEP_AT_LEAST

    def reserve(
        self, layers: tuple[LayerLimits, ...], tokens: int, now_s: float
    ) -> Reservation | Refusal:
        """Check every layer, then hold in every layer. See LimitStore."""
        # At least 1: requests wrongly estimated as nothing must not pass without end.
        tokens = max(tokens, 1)
        if not layers:
            return _Held(layers, tokens, now_s, None, None)
        slot = int(now_s)
        requests_limit = tokens_limit = _NOT_LIMITED
        requests_left = tokens_left = _NOT_LIMITED
        daily = False
        scopes = []
        known = self._scopes
        for layer in layers:
            scope = known.get(layer.scope_id)
            if scope is None or scope.limits is not layer.limits:
                scope = self._scope(layer, slot)
            if scope.slot != slot:
                scope.advance(slot)
            left = scope.requests_max - scope.requests.total - 1
            taken = scope.held + tokens
            minute_left = scope.minute_max - scope.minute.total - taken
            day_left = scope.day_max - scope.day.total - taken
            if (
                scope.running >= scope.concurrency_max
                or left < 0
                # Larger than the whole limit: passes when nothing else is counted.
                or (minute_left < 0 and minute_left + tokens != scope.minute_max)
                or (day_left < 0 and day_left + tokens != scope.day_max)
            ):
                return self._refuse(layers, tokens, now_s)
            if left < requests_left:
                requests_left, requests_limit = left, scope.requests_max
            if minute_left < tokens_left:
                tokens_left, tokens_limit, daily = minute_left, scope.minute_max, False
            if day_left < tokens_left:
                tokens_left, tokens_limit, daily = day_left, scope.day_max, True
            scopes.append(scope)
        for scope in scopes:
            scope.hold(tokens, now_s)
        requests = tokens_gauge = None
        if requests_limit < _NOT_LIMITED:
            requests = Gauge(requests_limit, requests_left, MINUTE_S)
        if tokens_limit < _NOT_LIMITED:
            tokens_gauge = Gauge(tokens_limit, max(tokens_left, 0), DAY_S if daily else MINUTE_S)
        return _Held(layers, tokens, now_s, requests, tokens_gauge, True, scopes)

    def settle(self, reservation: Reservation, tokens: int, now_s: float) -> None:
        """Count what was really used. See LimitStore."""
        if not reservation.open:
            return
        reservation.open = False
        slot = int(now_s)
        held = reservation.tokens
        took_s = now_s - reservation.made_at_s
        assert isinstance(reservation, _Held)
        for scope in reservation.scopes:
            if scope.slot != slot:
                scope.advance(slot)
            scope.settle(held, tokens, took_s, now_s)

    def release(self, reservation: Reservation, now_s: float) -> None:
        """Nothing was served. See LimitStore."""
        if not reservation.open:
            return
        reservation.open = False
        slot = int(now_s)
        assert isinstance(reservation, _Held)
        for scope in reservation.scopes:
            scope.advance(slot)
            scope.release(reservation.tokens, reservation.made_at_s, now_s)

    def count(self, layers: tuple[LayerLimits, ...], tokens: int, now_s: float) -> None:
        """Count a request that was not held here. See LimitStore."""
        slot = int(now_s)
        for layer in layers:
            scope = self._scope(layer, slot)
            scope.advance(slot)
            scope.count(tokens, now_s)

    def used(self, scope_id: str, now_s: float) -> Used:
        """What counts in a scope now: for `limit show` and the metrics."""
        scope = self._scopes.get(scope_id)
        if scope is None:
            return Used()
        scope.advance(int(now_s))
        scope.forget(now_s)
        return Used(
            scope.requests.total,
            scope.minute.total + scope.held,
            scope.day.total + scope.held,
            scope.running,
        )

    def gauges(self, layer: LayerLimits, now_s: float) -> dict[Dimension, Gauge]:
        """What is left of each limit of a layer, and how long until all of it is free again.

        For tokens held by requests that run now nobody can say when: they count as just used.
        """
        used = self.used(layer.scope_id, now_s)
        scope = self._scopes.get(layer.scope_id)
        limits = layer.limits
        minute_s = day_s = requests_s = 0.0
        if scope is not None:
            requests_s = scope.requests.empty_in_s(now_s)
            minute_s = MINUTE_S if scope.held else scope.minute.empty_in_s(now_s)
            day_s = DAY_S if scope.held else scope.day.empty_in_s(now_s)
        told = (
            (
                Dimension.REQUESTS_PER_MIN,
                limits.requests_per_min,
                used.requests_per_min,
                requests_s,
            ),
            (Dimension.TOKENS_PER_MIN, limits.tokens_per_min, used.tokens_per_min, minute_s),
            (Dimension.TOKENS_PER_DAY, limits.tokens_per_day, used.tokens_per_day, day_s),
            (Dimension.CONCURRENCY, limits.concurrency, used.concurrency, 0.0),
        )
        return {
            dimension: Gauge(limit, max(0, limit - count), reset_s)
            for dimension, limit, count, reset_s in told
            if limit is not None
        }

    def seed(self, scope_id: str, spent: Iterable[Spent], now_s: float) -> None:
        """Count what the ledger says was used before this start, so that a restart is no new quota.

        To be called once for a scope, before its first reservation.
        """
        scope = self._scopes.setdefault(scope_id, Scope(int(now_s)))
        scope.advance(int(now_s))
        for line in spent:
            # The clock's zero may be younger than the usage: slots below 0 are as good as others.
            at_s = now_s - max(line.age_s, 0.0)
            scope.requests.add_at(at_s, line.requests, now_s)
            scope.minute.add_at(at_s, line.tokens, now_s)
            scope.day.add_at(at_s, line.tokens, now_s)

    def __len__(self) -> int:
        """Scopes held in memory."""
        return len(self._scopes)

    def _scope(self, layer: LayerLimits, slot: int) -> Scope:
        """The counters of a layer that is new, or whose limits have changed."""
        scope = self._scopes.get(layer.scope_id)
        if scope is None:
            if len(self._scopes) >= self._sweep_at:
                self._sweep(slot)
            scope = self._scopes[layer.scope_id] = Scope(slot)
        scope.limit(layer.limits)
        return scope

    def _sweep(self, slot: int) -> None:
        """Forget idle scopes; again when as many have come once more: constant time, amortised.

        Those that were touched in this second stay: a reservation may be about to hold them.
        """
        for scope_id, scope in list(self._scopes.items()):
            if scope.slot < slot:
                scope.advance(slot)
                if scope.idle:
                    del self._scopes[scope_id]
        self._sweep_at = max(_SWEEP_AT_LEAST, 2 * len(self._scopes))

    def _refuse(
        self, layers: tuple[LayerLimits, ...], tokens: int, now_s: float
    ) -> Reservation | Refusal:
        """Refuse, unless what stands in the way became too old within this second."""
        slot = int(now_s)
        scopes = [self._scope(layer, slot) for layer in layers]
        for scope in scopes:
            scope.advance(slot)
        forgotten = [scope.forget(now_s) for scope in scopes]
        if any(forgotten):
            return self.reserve(layers, tokens, now_s)
        return explain(layers, scopes, tokens, now_s)
