"""`upgrade` and `rollback`: another version beside the current one, switched to, and proved."""

from __future__ import annotations

import json
import os
import shutil
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from installer.bundle import Bundle, bundle_in, others_may_write, unpack_archive, verify
from installer.errors import InstallerError, NotInstalled, OtherVersion
from installer.files import copy_tree
from installer.installation import check_host, require_root
from installer.interruptions import outliving_terminal
from installer.layout import Layout
from installer.looking import installed_version
from installer.precedence import major, order, refuse
from installer.records import Journal, Operation, locked, read_lines
from installer.retention import surplus
from installer.space import Need, megabytes, require_room, size_of, unpacked_size
from installer.terminal import Teller, confirm
from installer.upgrade_plan import shown, steps_back, steps_of, trial_needs, upgrade_needs
from installer.upgrade_run import SWITCHING, answers_of, carry_out, move_of, settle
from installer.versions import before, installed


@dataclass(frozen=True, slots=True)
class Wanted:
    """The options of an upgrade or a rollback."""

    layout: Layout
    began_in: Path
    bundle: str = ""
    """A folder or an archive; empty: that of the run that was cut short."""
    json: bool = False
    dry_run: bool = False
    yes: bool = False
    ignore: tuple[str, ...] = ()
    completion: bool = True
    backup: bool = True
    """Without one: for a site whose version in use no longer starts."""
    undo: bool = False
    """Take back what was cut short, and do no more."""
    to: str = ""
    """Of a rollback: the version; empty: the one before."""
    with_backup: bool = False
    """Of a rollback: put back the backup that was made before its version was left."""


def upgrade(wanted: Wanted, tell: Teller) -> str:
    """What is printed on standard output. Raises InstallerError; the old version serves then."""
    layout = wanted.layout
    require_root(layout, changes=True)
    current = require_installation(layout)
    with locked(layout), outliving_terminal():
        cut = _unfinished(wanted, tell)
        if wanted.undo:
            return _undone(cut, require_installation(layout), as_json=wanted.json)
        current = _going_from(layout, cut)
        try:
            named = _named(wanted, cut)
            if not named and cut is not None:
                return _undone(cut, current, as_json=wanted.json)
            bundle = _bundle(layout, named, tell)
            refuse(current, bundle.version)
            if layout.is_this_system:
                check_host(answers_of(layout), wanted.ignore)
            needs = upgrade_needs(layout, bundle)
            require_room(needs)
            steps = steps_of(
                current,
                bundle.version,
                completion=wanted.completion,
                backup=wanted.backup,
                gone=_going(layout, current, bundle),
            )
            if wanted.dry_run:
                return shown(steps, current, bundle.version, needs, cut, as_json=wanted.json)
            tell.line(shown(steps, current, bundle.version, needs, None, as_json=False) + "\n")
            confirm("Go on?", yes=wanted.yes)
            move = move_of("upgrade", layout, current, bundle, tell, completion=wanted.completion)
            return _ended(carry_out(move, steps, tell, named=named), as_json=wanted.json)
        finally:
            shutil.rmtree(layout.records / "unpacked", ignore_errors=True)


def rollback(wanted: Wanted, tell: Teller) -> str:
    """Back to an earlier version, which is proved likewise. Raises InstallerError."""
    layout = wanted.layout
    require_root(layout, changes=True)
    require_installation(layout)
    with locked(layout), outliving_terminal():
        cut = _unfinished(wanted, tell)
        current = _going_from(layout, cut)
        if cut is not None and cut.kind == "upgrade" and not wanted.dry_run and not wanted.to:
            return _undone(cut, current, as_json=wanted.json)  # this was all that was asked
        version = _target(layout, current, wanted.to)
        there = Bundle(layout.version(version), version)
        move = move_of("rollback", layout, current, there, tell, completion=wanted.completion)
        move.restores = _backup_of(layout, version) if wanted.with_backup else ""
        needs = trial_needs(layout) if not move.restores else []
        require_room(needs)
        steps = steps_back(current, version, restores=move.restores)
        if wanted.dry_run:
            return shown(steps, current, version, needs, cut, as_json=wanted.json)
        tell.line(shown(steps, current, version, needs, None, as_json=False) + "\n")
        confirm("Go on?", yes=wanted.yes)
        return _ended(carry_out(move, steps, tell, named=""), as_json=wanted.json)


def _unfinished(wanted: Wanted, tell: Teller) -> Operation | None:
    """What was cut short, taken back by now; by a dry run it is only looked at."""
    if not wanted.dry_run:
        return settle(wanted.layout, tell)
    return Journal(wanted.layout.journal).unfinished()


def _going_from(layout: Layout, cut: Operation | None) -> str:
    """The version in use, or the one that a dry run would first go back to."""
    if cut is not None and cut.open and not SWITCHING.isdisjoint(cut.begun):
        return str(cut.facts["from"])
    return require_installation(layout)


def _undone(cut: Operation | None, current: str, *, as_json: bool) -> str:
    if as_json:
        kind = cut.kind if cut is not None else None
        return json.dumps({"undone": kind, "version": current}, indent=2)
    if cut is None:
        return f"Nothing was cut short. Version {current} is installed."
    return f"The {cut.kind} that was cut short is undone. Version {current} is installed."


def require_installation(layout: Layout) -> str:
    """The version in use. Raises NotInstalled."""
    current = installed_version(layout)
    if current is None:
        raise NotInstalled(
            "No version is installed here, so this has nothing to work with.",
            next_step="./install.sh in the folder of the unpacked bundle installs one. Name the"
            " root with --prefix where it was installed below another one.",
        )
    return current


def _named(wanted: Wanted, cut: Operation | None) -> str:
    """An absolute path; empty where none is named and none is needed. Raises InstallerError."""
    named = wanted.bundle or os.environ.get("CROSSLOGIC_BUNDLE") or ""
    if named:
        return str((wanted.began_in / named).absolute())
    if cut is not None:
        earlier = str(cut.facts.get("bundle", "")) if cut.kind == "upgrade" else ""
        return earlier if earlier and Path(earlier).exists() else ""
    raise InstallerError(
        "There is no bundle to upgrade to.",
        next_step="Name its folder or its .tar.gz: cic-installer upgrade BUNDLE",
    )


def _bundle(layout: Layout, named: str, tell: Teller) -> Bundle:
    """Checked with the key that this site was installed with, whatever key came with it."""
    path = Path(named)
    if not path.exists():
        raise InstallerError(
            f"{path} is not there.",
            next_step="Look at the path, and whether the medium is mounted: ls -l, findmnt",
        )
    if path.is_file():
        size = unpacked_size(path)
        unpacked = layout.records / "unpacked"
        require_room([Need(unpacked, size, "the unpacked archive")])
        tell.line(f"Unpacking {path.name}, {megabytes(size)}")
        path = unpack_archive(path, unpacked, at_most=size)
    elif others_may_write(path):
        size = size_of(path)
        unpacked = layout.records / "unpacked"
        require_room([Need(unpacked, size, "a copy of the bundle")])
        tell.line(f"Copying {path.name}, {megabytes(size)}: others could change it meanwhile")
        shutil.rmtree(unpacked, ignore_errors=True)
        unpacked.mkdir(mode=0o700)
        deque(copy_tree(path, unpacked / path.name), maxlen=0)
        path = unpacked / path.name
    tell.line("Checking its signature and every file")
    verify(path, layout.release_key)
    return bundle_in(path)


def _going(layout: Layout, current: str, bundle: Bundle) -> list[str]:
    there = {*installed(layout), bundle.version}
    return surplus(sorted(there), bundle.version, current)


def _target(layout: Layout, current: str, named: str) -> str:
    """The version that a rollback goes to. Raises OtherVersion."""
    there = installed(layout)
    if not named:
        found = before(layout, current)
        if found is None:
            raise OtherVersion(
                f"No version before {current} is there to go back to.",
                next_step="cic-installer versions lists those that are there; a backup made by an"
                " earlier version is put back by that version.",
            )
        return found
    if named not in there or order(named) >= order(current) or major(named) != major(current):
        older = [
            one for one in there if order(one) < order(current) and major(one) == major(current)
        ]
        raise OtherVersion(
            f"A rollback from {current} does not lead to {named}.",
            next_step=f"It leads to: {', '.join(older) or 'no version that is there'}. To a newer"
            " one: cic-installer upgrade BUNDLE.",
        )
    return named


def _backup_of(layout: Layout, version: str) -> str:
    """The newest one made by an upgrade before it left `version`. Raises InstallerError."""
    found = [
        str(entry.get("backup"))
        for entry in read_lines(layout.history)
        if entry.get("from") == version
        and entry.get("backup")
        and entry.get("outcome") == "finished"
    ]
    there = [path for path in found if Path(path).is_file()]
    if not there:
        raise InstallerError(
            f"No backup is there that an upgrade made before it left {version}.",
            next_step="cic backup list shows others; after the rollback: cic backup restore FILE",
        )
    return there[-1]


def _ended(outcome: dict[str, Any], *, as_json: bool) -> str:
    if as_json:
        return json.dumps(outcome, indent=2)
    notes = "".join(f"\n  {note}" for note in outcome["notes"])
    back = {
        "upgrade": "Back: cic-installer rollback",
        "rollback": f"Forward again: cic-installer upgrade BUNDLE, with that of {outcome['from']}",
    }[outcome["operation"]]
    took = f"Version {outcome['to']} is in use and proved, after {outcome['seconds']} s."
    return f"{took}{notes}\n{back}"
