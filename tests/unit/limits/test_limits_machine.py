"""Any order of reserve, settle, release and time: what is held and counted always adds up."""

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from appliance.domain.limits import Layer, LayerLimits, Limits
from appliance.limits.memory import MemoryLimitStore, Used
from appliance.limits.reservation import Dimension, Refusal, Reservation

SCOPES = ("global", "ten_1", "ten_2", "key_1", "key_2")
LIMITS = (
    Limits(requests_per_min=4, tokens_per_min=300, tokens_per_day=2_000, concurrency=3),
    Limits(tokens_per_min=120),
    Limits(requests_per_min=2),
    Limits(tokens_per_day=500, concurrency=1),
)


@dataclass
class Event:
    """One request as an outsider saw it."""

    scopes: tuple[str, ...]
    admitted_s: float
    reserved: int
    settled_s: float | None = None
    used: int = 0
    released_s: float | None = None


class LimitsMachine(RuleBasedStateMachine):
    """The store beside a list of all requests, from which every figure can be computed anew."""

    reservations = Bundle("reservations")

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryLimitStore()
        self.now_s = 50_000.0
        self.limits = dict(zip(SCOPES, (*LIMITS, LIMITS[0]), strict=True))
        self.events: dict[Reservation, Event] = {}

    def layers(self, tenant: str, key: str) -> tuple[LayerLimits, ...]:
        return tuple(
            LayerLimits(layer, scope, self.limits[scope])
            for layer, scope in (
                (Layer.GLOBAL, "global"),
                (Layer.TENANT, tenant),
                (Layer.KEY, key),
            )
        )

    @rule(
        target=reservations,
        tenant=st.sampled_from(("ten_1", "ten_2")),
        key=st.sampled_from(("key_1", "key_2")),
        tokens=st.integers(0, 400),
    )
    def reserve(self, tenant: str, key: str, tokens: int) -> Reservation | None:
        layers = self.layers(tenant, key)
        before = [self.store.used(scope, self.now_s) for scope in SCOPES]
        answer = self.store.reserve(layers, tokens, self.now_s)
        if isinstance(answer, Refusal):
            assert [self.store.used(scope, self.now_s) for scope in SCOPES] == before
            assert answer.retry_after_s > 0
            self.check_refused(answer, layers, max(tokens, 1))
            return None
        scopes = tuple(layer.scope_id for layer in layers)
        self.events[answer] = Event(scopes, self.now_s, max(tokens, 1))
        return answer

    def check_refused(self, refusal: Refusal, layers: tuple[LayerLimits, ...], tokens: int) -> None:
        """The limit that is named is really in the way."""
        scope = next(layer.scope_id for layer in layers if layer.layer is refusal.layer)
        used = self.store.used(scope, self.now_s)
        counted = {
            Dimension.REQUESTS_PER_MIN: used.requests_per_min + 1,
            Dimension.TOKENS_PER_MIN: used.tokens_per_min + min(tokens, refusal.limit),
            Dimension.TOKENS_PER_DAY: used.tokens_per_day + min(tokens, refusal.limit),
            Dimension.CONCURRENCY: used.concurrency + 1,
        }
        assert counted[refusal.dimension] > refusal.limit

    @rule(reservation=consumes(reservations), share=st.floats(0, 1.5))
    def settle(self, reservation: Reservation | None, share: float) -> None:
        if reservation is not None:
            event = self.events[reservation]
            event.used, event.settled_s = int(event.reserved * share), self.now_s
            self.store.settle(reservation, event.used, self.now_s)
            self.store.settle(reservation, 7, self.now_s)

    @rule(reservation=consumes(reservations))
    def release(self, reservation: Reservation | None) -> None:
        if reservation is not None:
            self.events[reservation].released_s = self.now_s
            self.store.release(reservation, self.now_s)
            self.store.settle(reservation, 7, self.now_s)

    @rule(passed_s=st.one_of(st.floats(0, 70), st.floats(3_000, 90_000)))
    def wait(self, passed_s: float) -> None:
        self.now_s += passed_s

    @rule(scope=st.sampled_from(SCOPES), limits=st.sampled_from(LIMITS))
    def change(self, scope: str, limits: Limits) -> None:
        self.limits[scope] = limits

    @invariant()
    def figures_add_up(self) -> None:
        for scope in SCOPES:
            mine = [e for e in self.events.values() if scope in e.scopes]
            held = [e for e in mine if e.settled_s is None and e.released_s is None]
            done = [(e.settled_s, e.used) for e in mine if e.settled_s is not None]
            held_tokens = sum(e.reserved for e in held)
            assert self.store.used(scope, self.now_s) == Used(
                self.counted([(e.admitted_s, int(not taken_back(e))) for e in mine], 1, 60),
                held_tokens + self.counted(done, 1, 60),
                held_tokens + self.counted(done, 300, 86_400),
                len(held),
            )

    def counted(self, events: list[tuple[float, int]], slot_s: int, span_s: int) -> int:
        """The sum of the slots in which the last event is not a span old."""
        latest_s: dict[int, float] = {}
        for at_s, _ in events:
            slot = int(at_s // slot_s)
            latest_s[slot] = max(at_s, latest_s.get(slot, at_s))
        return sum(
            amount for at_s, amount in events if self.now_s - latest_s[int(at_s // slot_s)] < span_s
        )

    def teardown(self) -> None:
        """Reserved = settled + released + held, and nothing is held once all have ended."""
        for reservation in list(self.events):
            self.store.release(reservation, self.now_s)
        for scope in SCOPES:
            assert self.store.used(scope, self.now_s).concurrency == 0
            assert self.store.used(scope, self.now_s + 86_401) == Used()


def taken_back(event: Event) -> bool:
    """Whether a release came while the request was counted."""
    return event.released_s is not None and event.released_s - event.admitted_s < 60


TestLimitsMachine = LimitsMachine.TestCase
TestLimitsMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
