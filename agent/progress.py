"""Whether an engine gets on with its work. Pure: looks in, a verdict out.

A server can answer health questions and be dead inside, so the question is whether its counters
move while requests run. On a processor a long prompt moves no counter for a while but takes the
processor's time. On GPUs that time says nothing: a process that waits for a dead GPU spins.
"""

from typing import Final

from agent.engines.kind import Load

BUSY_S: Final = 300.0  # the processor works, and nothing comes of it: no longer than this
BUSY_TICKS_PER_S: Final = 5.0  # of the 100 a core has: 5% of one core
_SLOWER: Final = 4.0  # than measured at the warm-up: other engines work on the same cores


def patience_s(
    still_s: float, *, gpus: int, context_tokens: int, prefill_tokens_per_s: float | None
) -> float:
    """How long a processor at work counts as getting on though no counter moves."""
    if gpus > 0:
        return still_s
    if prefill_tokens_per_s is None:
        return BUSY_S
    longest_s = _SLOWER * context_tokens / prefill_tokens_per_s
    return min(BUSY_S, max(still_s, longest_s))


class Progress:
    """The looks at one engine, from its readiness on. Times are monotonic."""

    __slots__ = (
        "_busy_s",
        "_counters",
        "_counters_s",
        "_cpu_s",
        "_cpu_ticks",
        "_looked_s",
        "_still_s",
    )

    def __init__(self, now_s: float, still_s: float, busy_s: float = BUSY_S) -> None:
        """`still_s`: how long neither the counters nor the processor's time may stand still.
        `busy_s`: how long the counters may while the processor works, see `patience_s`.
        """
        self._still_s = still_s
        self._busy_s = busy_s
        self._counters: tuple[float, ...] | None = None
        self._counters_s = now_s  # when the engine was last seen to get on, or to have no work
        self._cpu_ticks = 0
        self._cpu_s = now_s  # when it last was at work
        self._looked_s = now_s

    def look(self, load: Load | None, cpu_ticks: int, now_s: float) -> str | None:
        """Take in what was seen (None: it did not answer); why it is stuck, or None.

        `cpu_ticks` is of all processes of the engine; it may fall when one of them ends.
        """
        if load is not None and (load.requests == 0 or load.progress != self._counters):
            self._counters = load.progress
            self._counters_s = now_s
        # Answering our own questions takes a little of the processor too: that is no work.
        if cpu_ticks - self._cpu_ticks >= BUSY_TICKS_PER_S * (now_s - self._looked_s):
            self._cpu_s = now_s
        self._cpu_ticks = cpu_ticks
        self._looked_s = now_s
        silent = "does not answer" if load is None else "has requests and generates nothing"
        idle_s = now_s - self._counters_s
        still = idle_s >= self._still_s and now_s - self._cpu_s >= self._still_s
        if idle_s >= self._busy_s or still:
            return f"The engine hangs: it {silent} for {idle_s:.0f} s."
        return None
