"""What an upgrade or a rollback is going to do, shown before, and the room that it takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from installer.bundle import Bundle
from installer.layout import Layout
from installer.move import DATABASES
from installer.plan import Step
from installer.records import Operation
from installer.retention import backups_folder
from installer.space import BACKUP_COPIES, TRIAL_COPIES, Need, size_of, size_of_files


def upgrade_needs(layout: Layout, bundle: Bundle) -> list[Need]:
    tree = layout.version(bundle.version)
    found = trial_needs(layout)
    databases = size_of_files(layout.home / f"{name}.db" for name in DATABASES)
    backup = int(databases * BACKUP_COPIES)
    found.append(Need(backups_folder(layout), backup, "the backup and its trial"))
    if not tree.is_dir():
        found.append(Need(layout.versions, size_of(bundle.tree), f"version {bundle.version}"))
    return found


def trial_needs(layout: Layout) -> list[Need]:
    databases = size_of_files(layout.home / f"{name}.db" for name in DATABASES)
    size = int(databases * TRIAL_COPIES)
    return [Need(layout.records, size, "copies of the databases")]


def steps_of(
    current: str, to: str, *, completion: bool, backup: bool, gone: Sequence[str]
) -> list[Step]:
    proof = "its version" + (" and a completion" if completion else "")
    after = f" Then {', '.join(gone)} goes: the last 3 are kept." if gone else ""
    rows = (
        (
            "backup",
            f"Make a backup by version {current}, while it serves, and try it.",
            "It stays.",
        ),
        ("tree", f"Unpack version {to} beside it.", "The folder stays for the next try."),
        (
            "try",
            f"Try version {to} offline: all of its code, this site's settings, and copies of the"
            " databases.",
            "Nothing was changed.",
        ),
        ("switch", f"Point /opt/crosslogic/current to {to}, with its units.", "Pointed back."),
        ("restart", "Start it anew. Who connects meanwhile waits.", "Started anew again."),
        ("prove", f"Prove it: {proof}.{after}", f"Otherwise back to {current}."),
    )
    return [
        Step(name, does, undo, done=False, told="")
        for name, does, undo in rows
        if backup or name != "backup"
    ]


def steps_back(current: str, to: str, *, restores: str) -> list[Step]:
    """Of a rollback. `restores`: the backup that is put back; empty: none."""
    rows = [
        ("check", f"Look whether version {to} is as it was installed.", "Nothing was changed."),
        (
            "try",
            f"Try version {to} offline: all of its code, this site's settings, and copies of the"
            " databases.",
            "Nothing was changed.",
        ),
        ("switch", f"Point /opt/crosslogic/current to {to}, with its units.", "Pointed back."),
        ("restore", f"Stop the site and put back {restores}.", "What was there is kept."),
        ("restart", "Start it anew. Who connects meanwhile waits.", "Started anew again."),
        ("prove", f"Prove version {to}.", f"Otherwise back to {current}."),
    ]
    return [
        Step(name, does, undo, done=False, told="")
        for name, does, undo in rows
        if name != "restore" or restores
    ]


def shown(
    steps: Sequence[Step],
    current: str,
    to: str,
    needs: Sequence[Need],
    cut: Operation | None,
    *,
    as_json: bool,
) -> str:
    if as_json:
        told: dict[str, Any] = {
            "from": current,
            "to": to,
            "steps": [{"name": one.name, "does": one.does, "undo": one.undo} for one in steps],
            "room": [{"folder": str(n.folder), "bytes": n.size, "for": n.what} for n in needs],
            "cut_short": cut.kind if cut is not None else None,
        }
        return json.dumps(told, indent=2)
    lines = [f"{current} → {to}:", ""]
    if cut is not None:
        lines.insert(0, f"The last {cut.kind} was cut short: it is taken back first.")
    return "\n".join([*lines, *(f"{n:3}. {one.does}" for n, one in enumerate(steps, 1))])
