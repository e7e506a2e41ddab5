"""What a rule for alerts finds."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from appliance.admin.observed import Observed
from appliance.wire.stream import AlertSeverity


@dataclass(frozen=True, slots=True)
class Finding:
    """One cause. `id` is `<subject>:<ref>:<what>`: the same cause is the same alert."""

    id: str
    severity: AlertSeverity
    subject: str
    ref: str
    text: str
    next_step: str


Rule = Callable[[Observed], Iterable[Finding]]


def found(
    severity: AlertSeverity, subject: str, ref: str, what: str, text: str, next_step: str
) -> Finding:
    return Finding(f"{subject}:{ref}:{what}", severity, subject, ref, text, next_step)
