"""What can go wrong between the account and its caller, on demand or by a seed.

- `answer_lost`: the work is done, the connection closes without an answer.
- `reset_before`, `reset_after`: the connection is reset before or after the work.
- `stored_500`, `stored_500_after`: HTTP 500, kept by the idempotency key, without or with the work.
- `unavailable`: HTTP 503, nothing done. `rate_limited`: HTTP 429. `locked`: HTTP 429, lock_timeout.
- `slow`: the answer comes after `seconds`. `truncated`: the work is done, the body is cut.

Sources: pages "Error handling" (network errors leave the outcome open), "Idempotent requests" (a
500 is kept), "Rate limits" (429, lock_timeout) of the documentation.
"""

import dataclasses
import random

FAULTS = (
    "answer_lost",
    "reset_before",
    "reset_after",
    "stored_500",
    "stored_500_after",
    "unavailable",
    "rate_limited",
    "locked",
    "slow",
    "truncated",
)


@dataclasses.dataclass(slots=True)
class Planned:
    """A fault for calls to come: `count` of them, after `after` that match."""

    fault: str
    method: str
    path: str  # a prefix
    count: int
    after: int
    seconds: float


class Faults:
    """Queued faults first, then the random ones."""

    def __init__(self) -> None:
        self._planned: list[Planned] = []
        self._random: random.Random | None = None
        self._rate = 0.0
        self._kinds: tuple[str, ...] = ()
        self._path = "/v1/"
        self.happened: dict[str, int] = {}

    def plan(
        self,
        fault: str,
        path: str = "/v1/",
        *,
        method: str = "POST",
        count: int = 1,
        after: int = 0,
        seconds: float = 0.2,
    ) -> None:
        assert fault in FAULTS, f"unknown fault {fault}"
        self._planned.append(Planned(fault, method, path, count, after, seconds))

    def at_random(
        self, seed: int, rate: float, kinds: tuple[str, ...] = FAULTS, path: str = "/v1/"
    ) -> None:
        """Each call under `path` fails with probability `rate`; 0 ends it."""
        assert set(kinds) <= set(FAULTS), kinds
        self._random, self._rate, self._kinds, self._path = random.Random(seed), rate, kinds, path

    def clear(self) -> None:
        self._planned.clear()
        self._rate = 0.0

    def take(self, method: str, path: str) -> Planned | None:
        """The fault of this call."""
        for planned in self._planned:
            if planned.method in (method, "*") and path.startswith(planned.path):
                if planned.after > 0:
                    planned.after -= 1
                    continue
                planned.count -= 1
                if planned.count <= 0:
                    self._planned.remove(planned)
                return self._count(planned)
        if (
            self._random is not None
            and path.startswith(self._path)
            and self._random.random() < self._rate
        ):
            fault = self._random.choice(self._kinds)
            return self._count(Planned(fault, method, path, 1, 0, 0.02))
        return None

    def _count(self, planned: Planned) -> Planned:
        self.happened[planned.fault] = self.happened.get(planned.fault, 0) + 1
        return planned
