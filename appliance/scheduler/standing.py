"""How one replica stands: what runs on it, how fast it is, whether it is trusted."""

from typing import Final

from appliance.scheduler.replicas import ReplicaTarget

# What a replica is taken for while none of its deployment has been measured. Only the ratio
# between replicas matters, so any figure does.
_TOKENS_PER_S_UNKNOWN: Final = 50.0

# Evidence grows with the answer: a 256-token answer moves the average by the most one answer may.
_EVIDENCE_TOKENS: Final = 1_024
_EVIDENCE_MAX: Final = 0.2


class Standing:
    """Counts and trust of one replica.

    Trust: after N failures in a row the replica is ejected for a while; when that is over it is
    *on trial*: one request at a time, until a first byte arrives. Failing on trial ejects it again
    for twice as long. Only success clears the failures, so a replica that gives first bytes and
    then dies is ejected again by its next failure.
    """

    __slots__ = (
        "counts_from_s",
        "eject_next_s",
        "ejected_at_s",
        "ejected_until_s",
        "failures",
        "measured",
        "outstanding_tokens",
        "probing",
        "ready",
        "running",
        "slots",
        "target",
        "tokens_per_s",
        "told",
        "trusted",
        "turn",
    )

    def __init__(self, target: ReplicaTarget, slots_unknown: int, eject_s: float) -> None:
        self.running = 0
        self.outstanding_tokens = 0
        self.turn = 0  # of the last placement here: the smallest has waited longest
        self.measured = False  # by a finished request
        self.told = False  # by the agent
        self.tokens_per_s = _TOKENS_PER_S_UNKNOWN
        self.ready = True
        self.aim(target, slots_unknown)
        self.trust(0.0, eject_s)

    def aim(self, target: ReplicaTarget, slots_unknown: int) -> None:
        """Take a new target of the same replica; what was measured stays."""
        self.target = target
        self.slots = target.slots or slots_unknown
        if not self.measured and target.tokens_per_s:
            self.tokens_per_s = target.tokens_per_s
            self.told = True

    def trust(self, since_s: float, eject_s: float) -> None:
        """A clean slate: new, restarted, or proven by a success. Older failures do not count."""
        self.failures = 0
        self.trusted = True
        self.probing = False
        self.ejected_at_s = 0.0
        self.ejected_until_s = 0.0
        self.counts_from_s = since_s
        self.eject_next_s = eject_s

    def started(self, tokens: int, turn: int, now_s: float) -> None:
        self.running += 1
        self.outstanding_tokens += tokens
        self.turn = turn
        if not self.trusted and now_s >= self.ejected_until_s:
            self.probing = True

    def ended(self, tokens: int) -> None:
        self.running -= 1
        self.outstanding_tokens -= tokens

    def assume(self, tokens_per_s: float) -> None:
        """Be taken for as fast as the best of the deployment until something is known.

        Or a slow first measurement of one replica would keep the others from ever being tried.
        """
        if not (self.measured or self.told):
            self.tokens_per_s = tokens_per_s

    def learn(self, output_tokens: int, took_s: float) -> bool:
        """Take the speed of a finished request, from its placement to its end, into the average.

        The speed of one request, not of the whole engine: it falls when the engine is loaded,
        which is what a choice between engines has to know. True: it is the first that is known.
        """
        if output_tokens <= 0 or took_s <= 0:
            return False
        sample = output_tokens / took_s
        if not (self.measured or self.told):
            self.measured = True
            self.tokens_per_s = sample
            return True
        self.measured = True
        weight = min(_EVIDENCE_MAX, output_tokens / _EVIDENCE_TOKENS)
        self.tokens_per_s += weight * (sample - self.tokens_per_s)
        return False

    def failed(self, started_at_s: float, now_s: float, after: int, eject_s_max: float) -> None:
        """A request that was placed at `started_at_s` failed through the replica's fault.

        Failures of requests that already ran when the replica was ejected are old news, and tries
        made as a last resort while it is ejected do not prolong it.
        """
        if started_at_s < self.counts_from_s:
            return
        self.failures += 1
        if self.failures >= after:
            self.trusted = False
            self.probing = False
            self.ejected_at_s = now_s
            self.ejected_until_s = self.counts_from_s = now_s + self.eject_next_s
            self.eject_next_s = min(self.eject_next_s * 2, eject_s_max)

    def succeeded(self, started_at_s: float, eject_s: float) -> None:
        """A request that was placed after the last ejection ended well: full trust again."""
        if started_at_s >= self.ejected_at_s:
            self.trust(min(self.counts_from_s, started_at_s), eject_s)

    def answered(self, started_at_s: float) -> bool:
        """A first byte came; True: that was the trial, and more than one request may run again.

        The failures stay until a success: a replica that answers and then dies is ejected by its
        next failure.
        """
        if not self.probing or started_at_s < self.ejected_until_s:
            return False
        self.trusted = True
        self.probing = False
        return True

    def left(self, started_at_s: float) -> None:
        """The client of a request left: it proved nothing, so the next one may be the trial."""
        if started_at_s >= self.ejected_until_s:
            self.probing = False
