"""What can be promised of a capacity: sums of promises over time. Pure; times are wall clock."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Promise:
    """So many tokens a second in [from, until); `until_ns` None: without end."""

    tokens_per_s: int
    from_ns: int
    until_ns: int | None

    def holds_at(self, moment_ns: int) -> bool:
        return self.from_ns <= moment_ns and (self.until_ns is None or moment_ns < self.until_ns)

    def meets(self, other: "Promise") -> bool:
        """Whether there is a moment at which both hold."""
        return (other.until_ns is None or self.from_ns < other.until_ns) and (
            self.until_ns is None or other.from_ns < self.until_ns
        )


def promised_at(promises: Iterable[Promise], moment_ns: int) -> int:
    """Tokens/s promised at one moment."""
    return sum(each.tokens_per_s for each in promises if each.holds_at(moment_ns))


def promised_most(promises: Sequence[Promise], span: Promise) -> int:
    """The highest sum of `promises` at any moment in the time of `span`. It changes at beginnings
    only upwards, so those in the span and the span's own are all that matter.
    """
    moments = {span.from_ns, *(each.from_ns for each in promises if span.holds_at(each.from_ns))}
    return max(promised_at(promises, moment) for moment in moments)


def earliest_ns(promises: Sequence[Promise], wanted: Promise, room: int) -> int | None:
    """When `wanted` would fit beneath `room` tokens/s for as long as it is to last; None: never.

    It can only begin to fit where a promise ends.
    """
    ends = {each.until_ns for each in promises if each.until_ns is not None}
    length_ns = None if wanted.until_ns is None else wanted.until_ns - wanted.from_ns
    for start_ns in sorted({wanted.from_ns, *(end for end in ends if end > wanted.from_ns)}):
        until_ns = None if length_ns is None else start_ns + length_ns
        span = Promise(wanted.tokens_per_s, start_ns, until_ns)
        if promised_most(promises, span) + wanted.tokens_per_s <= room:
            return start_ns
    return None
