"""Alerts: findings that last, from when they began until their cause is gone. Pure but for time."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from appliance.admin.alert_rules import Finding
from appliance.wire.stream import Alert

# A cause has to be gone for so long: what comes and goes is one alert, not ten.
_QUIET_S = 15.0


@dataclass(slots=True)
class _Kept:
    alert: Alert
    seen_s: float  # monotonic: when its cause was last the case


@dataclass(frozen=True, slots=True)
class Turned:
    """What a look changed."""

    begun: tuple[Alert, ...] = ()
    ended: tuple[Alert, ...] = ()


class Alerts:
    """Acknowledged ones stay until they end; then the same cause is a new alert."""

    def __init__(self, known: Iterable[Alert] = ()) -> None:
        """`known` are those from before a restart; they end if their cause does not show again."""
        self._kept = {alert.id: _Kept(alert, 0.0) for alert in known}

    def look(self, findings: Mapping[str, Finding], now_s: float, at: str) -> Turned:
        """Take what is the case now; `at` is the wall clock, for those that begin."""
        begun = []
        for alert_id, found in findings.items():
            kept = self._kept.get(alert_id)
            if kept is None:
                alert = _alert(found, at)
                self._kept[alert_id] = _Kept(alert, now_s)
                begun.append(alert)
                continue
            old = kept.alert
            kept.seen_s = now_s
            kept.alert = _alert(found, old.since, old)
        ended = [
            kept.alert
            for alert_id, kept in self._kept.items()
            if alert_id not in findings and now_s - kept.seen_s >= _QUIET_S
        ]
        for alert in ended:
            del self._kept[alert.id]
        return Turned(tuple(begun), tuple(ended))

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
