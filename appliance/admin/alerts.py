"""Alerts: findings that last, from when they began until their cause is gone. Pure but for time."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import msgspec

from appliance.admin.alert_kinds import after_s
from appliance.admin.findings import Finding
from appliance.wire.stream import Alert

# A cause has to be gone for so long: what comes and goes is one alert, not ten.
_QUIET_S = 15.0
# After a start nodes, engines and the control plane are heard of one after the other: what was the
# case before is not over because it was not seen yet.
SETTLE_S = 60.0


@dataclass(slots=True)
class _Kept:
    alert: Alert
    seen_s: float  # monotonic: when its cause was last the case


@dataclass(slots=True)
class _Pending:
    """A cause that has to last yet. What comes and goes does, too: it is dropped when quiet."""

    first_s: float
    seen_s: float
    at: str


@dataclass(frozen=True, slots=True)
class Turned:
    """What a look changed."""

    begun: tuple[Alert, ...] = ()
    ended: tuple[Alert, ...] = ()


class Alerts:
    """Acknowledged ones stay until they end; then the same cause is a new alert."""

    def __init__(
        self,
        known: Iterable[Alert] = (),
        *,
        after: Callable[[str], float] = after_s,
        seen_s: float = 0.0,
    ) -> None:
        """`known` are those from before a restart; they end if their cause does not show again.

        `after` says how long the cause of an id lasts before it is an alert; `seen_s` (monotonic)
        is when the causes of `known` count as seen last.
        """
        self._kept = {alert.id: _Kept(alert, seen_s) for alert in known}
        self._pending: dict[str, _Pending] = {}
        self._after = after

    def look(self, findings: Mapping[str, Finding], now_s: float, at: str) -> Turned:
        """Take what is the case now; `at` is the wall clock, for those that begin."""
        begun = []
        for alert_id, found in findings.items():
            kept = self._kept.get(alert_id)
            if kept is None:
                since = self._lasted(alert_id, now_s, at)
                if since is not None:
                    alert = _alert(found, since)
                    self._kept[alert_id] = _Kept(alert, now_s)
                    begun.append(alert)
                continue
            old = kept.alert
            kept.seen_s = max(kept.seen_s, now_s)
            kept.alert = _alert(found, old.since, old)
        ended = [
            kept.alert
            for alert_id, kept in self._kept.items()
            if alert_id not in findings and now_s - kept.seen_s >= _QUIET_S
        ]
        for alert in ended:
            del self._kept[alert.id]
        for alert_id, waiting in [*self._pending.items()]:
            if now_s - waiting.seen_s >= _QUIET_S:
                del self._pending[alert_id]
        return Turned(tuple(begun), tuple(ended))

    def _lasted(self, alert_id: str, now_s: float, at: str) -> str | None:
        """Since when, of a cause that has lasted as long as it has to; else None."""
        waiting = self._pending.setdefault(alert_id, _Pending(now_s, now_s, at))
        waiting.seen_s = now_s
        if now_s - waiting.first_s < self._after(alert_id):
            return None
        del self._pending[alert_id]
        return waiting.at

    def acknowledge(self, alert_id: str, actor: str, at: str) -> Alert | None:
        """None: there is no such alert. Who came first stays."""
        kept = self._kept.get(alert_id)
        if kept is None:
            return None
        if kept.alert.acknowledged_at is None:
            kept.alert = msgspec.structs.replace(
                kept.alert, acknowledged_at=at, acknowledged_by=actor
            )
        return kept.alert

    def all(self) -> dict[str, Alert]:
        """By id, the worst first, then the oldest."""
        order = {"fatal": 0, "error": 1, "warning": 2, "info": 3}
        alerts = sorted(
            (kept.alert for kept in self._kept.values()),
            key=lambda alert: (order[alert.severity], alert.since, alert.id),
        )
        return {alert.id: alert for alert in alerts}


def _alert(found: Finding, since: str, old: Alert | None = None) -> Alert:
    return Alert(
        id=found.id,
        severity=found.severity,
        subject=found.subject,
        ref=found.ref,
        text=found.text,
        next_step=found.next_step,
        since=since,
        acknowledged_at=None if old is None else old.acknowledged_at,
        acknowledged_by=None if old is None else old.acknowledged_by,
    )
