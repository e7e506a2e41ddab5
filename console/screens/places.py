"""Where what an alert or an event is about is seen. Pure."""

from __future__ import annotations

from typing import Final

from console.cells import Row
from console.modes import ALERTS_MODE
from console.store import Store

# What it is about -> the digit of the mode that shows it.
_MODES: Final = {
    "node": "2",
    "gpu": "2",
    "deployment": "3",
    "replica": "3",
    "model": "3",
    "tenant": "4",
    "key": "4",
    "reservation": "4",
    "sync": "5",
    "entitlement": "5",
    "certificate": "8",
    "backup": "8",
}
_OPS_PARTS: Final = {"certificate": "certificates", "backup": "backups"}


def alert_place(alert: Row, store: Store | None = None) -> tuple[str, str]:
    """The mode where an alert's subject is seen, and its row there.

    With the `store` what is a part of something is found by that: a GPU by its node, a replica by
    its deployment.
    """
    subject, ref = str(alert.get("subject", "")), str(alert.get("ref") or "")
    mode = _MODES.get(subject)
    if mode is None:
        return ALERTS_MODE, "alerts"
    if subject in _OPS_PARTS:
        return mode, _OPS_PARTS[subject]
    if store is not None:
        if subject == "gpu":
            ref = str((store.row("gpus", ref) or {}).get("node_id") or ref)
        elif subject == "replica":
            ref = str((store.row("replicas", ref) or {}).get("deployment") or ref)
        ref = _id(store, mode, ref)
    return mode, ref


def _id(store: Store, mode: str, ref: str) -> str:
    """Some are told by their names."""
    topic = {"2": "nodes", "3": "deployments", "4": "tenants"}.get(mode)
    if topic is None or ref in (table := store.table(topic)):  # type: ignore[arg-type]  # topics
        return ref
    return next((row_id for row_id, row in table.items() if row.get("name") == ref), ref)
