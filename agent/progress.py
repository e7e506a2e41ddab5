"""Whether an engine gets on with its work. Pure: looks in, a verdict out.

A server can answer health questions and be dead inside, so the question is whether its counters
move while requests run. On a processor a long prompt moves no counter for a while but takes the
processor's time. On GPUs that time says nothing: a process that waits for a dead GPU spins.

Only time that was looked at counts, and of a process that waits for a core only the share that it
got: a node with more work than cores makes its engines late, and hangs none of them.
"""

from typing import Final

from agent.engines.kind import Load

BUSY_S: Final = 300.0  # the processor works, and nothing comes of it: no longer than this
BUSY_TICKS_PER_S: Final = 5.0  # of the 100 a core has: 5% of one core
_GAP_S_MAX: Final = 6.0  # between two looks; longer ones are the agent's own fault
_STARVED_TICKS_PER_S: Final = 20.0  # of waiting for a core, of all threads, until it is starved
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
        "_cpu_ticks",
        "_idle_s",
        "_looked_s",
        "_off_s",
        "_silent_s",
        "_still_s",
        "_waited_ticks",
    )

    def __init__(self, now_s: float, still_s: float, busy_s: float = BUSY_S) -> None:
        """`still_s`: how long neither the counters nor the processor's time may stand still.
        `busy_s`: how long the counters may while the processor works, see `patience_s`.
        """
        self._still_s = still_s
        self._busy_s = busy_s
        self._counters: tuple[float, ...] | None = None
        self._silent_s = 0.0  # since it was seen to get on, or to have no work
        self._idle_s = 0.0  # of these, the seconds it had the cores it asked for
        self._off_s = 0.0  # since it was at work, counted the same way
        self._cpu_ticks = self._waited_ticks = 0
        self._looked_s = now_s

    def look(
        self, load: Load | None, cpu_ticks: int, now_s: float, waited_ticks: int = 0
    ) -> str | None:
        """Take in what was seen (None: it did not answer); why it is stuck, or None.

        `cpu_ticks` and `waited_ticks` (for a core) are of all processes of the engine; they may
        fall when one of them ends.
        """
        gap_s = min(now_s - self._looked_s, _GAP_S_MAX)
        used = cpu_ticks - self._cpu_ticks
        own_s = gap_s * _share(used, waited_ticks - self._waited_ticks, now_s - self._looked_s)
        self._silent_s += gap_s
        self._idle_s += own_s
        self._off_s += own_s
        if load is not None and (load.requests == 0 or load.progress != self._counters):
            self._counters = load.progress
            self._silent_s = self._idle_s = 0.0
        # Answering our own questions takes a little of the processor too: that is no work.
        if used >= BUSY_TICKS_PER_S * (now_s - self._looked_s):
            self._off_s = 0.0
        self._cpu_ticks, self._waited_ticks = cpu_ticks, waited_ticks
        self._looked_s = now_s
        silent = "does not answer" if load is None else "has requests and generates nothing"
        still = self._idle_s >= self._still_s and self._off_s >= self._still_s
        if self._idle_s >= self._busy_s or still or self._silent_s >= BUSY_S:
            return f"The engine hangs: it {silent} for {self._silent_s:.0f} s."
        return None


def _share(used_ticks: int, waited_ticks: int, passed_s: float) -> float:
    """Of the processor time that it asked for, how much it got; 1 where it did not want more."""
    if waited_ticks <= 0 or waited_ticks < _STARVED_TICKS_PER_S * passed_s:
        return 1.0
    used = max(0, used_ticks)
    return used / (used + waited_ticks)
