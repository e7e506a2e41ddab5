"""The counters of one scope: what a tenant, an environment, a key or the whole site uses now."""

from typing import Final

from appliance.domain.limits import UNLIMITED, Limits
from appliance.limits.window import DAY_SLOT_S, DAY_SPAN, MINUTE_SLOT_S, MINUTE_SPAN, Window

# Stands for "no limit", so that the check of a request is arithmetic without questions. What a
# scope can count in a day is far below half of it.
NO_LIMIT: Final = 1 << 62

_NEWEST_WEIGHT: Final = 0.1  # of the newest request in the averages that forecast a refusal's end


class Scope:
    """What is held and what is counted, and the limits that were last seen for it.

    The windows are those of requests by the minute, of settled tokens by the minute, and of settled
    tokens by the day; `slot` is the second they are right for. `held_s` and `used_share` are moving
    averages over the requests that ended here: how long they ran, and which share of the held
    tokens they really used.
    """

    __slots__ = (
        "concurrency_max",
        "day",
        "day_max",
        "held",
        "held_s",
        "limits",
        "minute",
        "minute_max",
        "requests",
        "requests_max",
        "running",
        "slot",
        "used_share",
    )

    def __init__(self, slot: int) -> None:
        self.running = 0
        self.held = 0  # tokens of the open reservations
        self.slot = slot
        self.requests = Window(MINUTE_SPAN, MINUTE_SLOT_S, slot)
        self.minute = Window(MINUTE_SPAN, MINUTE_SLOT_S, slot)
        self.day = Window(DAY_SPAN, DAY_SLOT_S, slot // DAY_SLOT_S)
        self.held_s = 1.0
        self.used_share = 1.0
        self.limit(UNLIMITED)

    def limit(self, limits: Limits) -> None:
        """Take new limits; what is counted stays."""
        self.limits = limits
        self.requests_max = _or_none(limits.requests_per_min)
        self.minute_max = _or_none(limits.tokens_per_min)
        self.day_max = _or_none(limits.tokens_per_day)
        # A request larger than a limit of tokens may pass alone, but not where the limit is 0.
        nothing = self.minute_max < 1 or self.day_max < 1
        self.concurrency_max = 0 if nothing else _or_none(limits.concurrency)

    def advance(self, slot: int) -> None:
        """Forget what is over at second `slot`."""
        if slot > self.slot:
            self.slot = slot
            self.requests.advance(slot)
            self.minute.advance(slot)
            self.day.advance(slot // DAY_SLOT_S)

    def forget(self, now_s: float) -> bool:
        """Forget what became too old within second `slot`; whether anything did."""
        requests, minute = self.requests.forget(now_s), self.minute.forget(now_s)
        return self.day.forget(now_s) or minute or requests

    def hold(self, tokens: int, now_s: float) -> None:
        """Begin a request. Like all below: after `advance`."""
        self.running += 1
        self.held += tokens
        self.requests.add(1, now_s)

    def settle(self, held: int, tokens: int, took_s: float, now_s: float) -> None:
        """End a request: turn `held` into `tokens` counted in the windows."""
        self.running -= 1
        self.held -= held
        self.minute.add(tokens, now_s)
        self.day.add(tokens, now_s)
        self.held_s += (took_s - self.held_s) * _NEWEST_WEIGHT
        self.used_share += (tokens / held - self.used_share) * _NEWEST_WEIGHT

    def count(self, tokens: int, now_s: float) -> None:
        """A request that was over before it was known here."""
        self.requests.add(1, now_s)
        self.minute.add(tokens, now_s)
        self.day.add(tokens, now_s)

    def release(self, held: int, begun_s: float, now_s: float) -> None:
        """End a request as if it had never come."""
        self.running -= 1
        self.held -= held
        self.requests.add_at(begun_s, -1, now_s)

    @property
    def idle(self) -> bool:
        """Nothing held and nothing counted."""
        return not (self.running or self.requests.total or self.minute.total or self.day.total)


def _or_none(limit: int | None) -> int:
    return NO_LIMIT if limit is None else limit
