"""What happened between two looks at the site. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from appliance.admin.alerts import Turned
from appliance.admin.observed import Observed
from appliance.wire.stream import AlertSeverity

_BAD_STATES: Final = frozenset({"failed", "unreachable", "ejected", "degraded", "frozen"})


@dataclass(frozen=True, slots=True)
class Happening:
    """An event before it has its number and its time."""

    severity: AlertSeverity
    kind: str
    subject: str
    ref: str
    text: str


def happenings(before: Observed | None, now: Observed, turned: Turned) -> Iterator[Happening]:
    """Nothing is said to have changed where nothing was seen before."""
    if before is not None:
        yield from _states("node", _nodes(before), _nodes(now))
        yield from _states("deployment", _deployments(before), _deployments(now))
        yield from _states("replica", _replicas(before), _replicas(now))
        yield from _restarts(before, now)
        yield from _sync(before, now)
        if before.ledger_healthy != now.ledger_healthy:
            word = "can be written again" if now.ledger_healthy else "cannot be written"
            severity: AlertSeverity = "info" if now.ledger_healthy else "fatal"
            yield Happening(severity, "ledger.state", "ledger", "ledger", f"The ledger {word}.")
    for alert in turned.begun:
        yield Happening(alert.severity, "alert.begun", alert.subject, alert.ref, alert.text)
    for alert in turned.ended:
        text = f"Over: {alert.text}"
        yield Happening("info", "alert.ended", alert.subject, alert.ref, text)


# Name, state and reason, by id.
_Standing = Mapping[str, tuple[str, str, str]]


def _nodes(seen: Observed) -> _Standing:
    return {row.id: (row.name, row.state, row.reason) for row in seen.nodes.values()}


def _deployments(seen: Observed) -> _Standing:
    return {row.id: (row.name, row.state, row.reason) for row in seen.deployments.values()}


def _replicas(seen: Observed) -> _Standing:
    return {
        row.id: (f"{row.deployment} on {row.node}", row.state, row.reason)
        for row in seen.replicas.values()
    }


def _states(noun: str, before: _Standing, now: _Standing) -> Iterator[Happening]:
    for ref, (name, state, reason) in now.items():
        old = before.get(ref)
        if old is None:
            yield Happening("info", f"{noun}.new", noun, ref, f"{noun} {name} is there: {state}.")
        elif old[1] != state:
            severity: AlertSeverity = "warning" if state in _BAD_STATES else "info"
            why = f" {reason}" if reason and state in _BAD_STATES else ""
            text = f"{noun} {name}: {old[1]} → {state}.{why}"
            yield Happening(severity, f"{noun}.{state}", noun, ref, text)
    for ref, (name, state, _) in before.items():
        if ref not in now:
            text = f"{noun} {name} is gone; it was {state}."
            yield Happening("info", f"{noun}.gone", noun, ref, text)


def _restarts(before: Observed, now: Observed) -> Iterator[Happening]:
    for ref, row in now.replicas.items():
        old = before.replicas.get(ref)
        if old is not None and row.restarts > old.restarts:
            yield Happening(
                *("warning", "replica.restarted", "replica", ref),
                f"The engine of {row.deployment} on {row.node} was started again"
                f" ({row.restarts} times by now).",
            )


def _sync(before: Observed, now: Observed) -> Iterator[Happening]:
    old, new = before.sync, now.sync
    if old is None or new is None:
        return
    if old.state != new.state:
        severity: AlertSeverity = "info" if new.state == "connected" else "warning"
        text = f"Control plane: {old.state} → {new.state}. {new.last_error}".strip()
        yield Happening(severity, "sync.state", "sync", "sync", text)
    if new.sealed_through > old.sealed_through and new.epoch == old.epoch:
        text = f"Manifest {new.epoch}-{new.sealed_through} is sealed."
        yield Happening("info", "manifest.sealed", "manifest", str(new.sealed_through), text)
    if new.accepted_through > old.accepted_through and new.epoch == old.epoch:
        text = f"Manifests through {new.epoch}-{new.accepted_through} are receipted."
        yield Happening("info", "manifest.accepted", "manifest", str(new.accepted_through), text)
