"""`upgrade` and `rollback`: another version beside the current one, switched to, and proved.

A version that does not prove itself is switched back from at once. A run that was cut short is
taken back by the next one: whichever version `current` names starts at boot in between.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from installer.answers import Answers, from_json
from installer.bundle import Bundle, bundle_in, unpack_archive, verify
from installer.errors import (
    InstallerError,
    NotInstalled,
    OtherVersion,
    StepFailed,
    Unfinished,
    UpgradeFailed,
)
from installer.install_steps import link_commands, point_to_engines, put_units, unpack_tree
from installer.installation import by, check_host, require_root
from installer.layout import Layout
from installer.looking import installed_version
from installer.plan import Step
from installer.product import ProductRefused, wait_until
from installer.programs import run
from installer.records import Journal, Manifest, add_history, locked, read_lines
from installer.terminal import Teller, confirm
from installer.units import drop_missing_units
from installer.versions import installed, order
from installer.work import Work, services_of, units_in

PROVE_S = 60.0  # for a deployment that answered before to answer again
TRY_S = 120.0
# Opens copies of both databases by the new version's own code, which brings them to its schema.
_TRIAL = (
    "import sys; from pathlib import Path; from appliance.registry.registry import open_database;"
    "from appliance.storage.database import migrate; from appliance.metering.schema import"
    " MIGRATIONS; open_database(Path(sys.argv[1])).close(); migrate(Path(sys.argv[2]), MIGRATIONS)"
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The options of an upgrade or a rollback."""

    layout: Layout
    bundle: str
    json: bool
    dry_run: bool
    yes: bool
    ignore: tuple[str, ...]
    completion: bool
    began_in: Path


Act = Callable[[Work, Work], None]


def upgrade(wanted: Wanted, tell: Teller) -> str:
    """What is printed on standard output. Raises InstallerError; the old version serves then."""
    layout = wanted.layout
    current = _current(layout)
    require_root(layout, changes=True)
    with locked(layout):
        if not wanted.dry_run:
            settle(layout, tell)
        try:
            bundle = _bundle(wanted)
            _refuse(current, bundle)
            if layout.is_this_system and not wanted.dry_run:
                check_host(_answers(layout), wanted.ignore)
            steps = _steps(current, bundle.version, wanted)
            if wanted.dry_run:
                return _shown(steps, current, bundle.version, as_json=wanted.json)
            tell.line(_shown(steps, current, bundle.version, as_json=False) + "\n")
            confirm("Go on?", yes=wanted.yes)
            return _carry_out("upgrade", current, bundle, steps, wanted, tell)
        finally:
            shutil.rmtree(layout.records / "unpacked", ignore_errors=True)


def rollback(wanted: Wanted, tell: Teller) -> str:
    """Back to the version before, which is proved likewise. Raises InstallerError."""
    layout = wanted.layout
    current = _current(layout)
    require_root(layout, changes=not wanted.dry_run)
    with locked(layout):
        if not wanted.dry_run:
            settle(layout, tell)
        version = _before(layout, current)
        steps = [one for one in _steps(current, version, wanted) if one.name in _AGAIN]
        if wanted.dry_run:
            return _shown(steps, current, version, as_json=wanted.json)
        tell.line(_shown(steps, current, version, as_json=False) + "\n")
        confirm("Go on?", yes=wanted.yes)
        there = Bundle(layout.version(version), version)
        return _carry_out("rollback", current, there, steps, wanted, tell)


def settle(layout: Layout, tell: Teller) -> None:
    """Takes back an upgrade or a rollback that was cut short; nothing where none was."""
    journal = Journal(layout.journal)
    unfinished = journal.unfinished()
    if unfinished is None:
        return
    if unfinished.kind not in {"upgrade", "rollback"}:
        raise Unfinished(
            f"An operation was cut short: {unfinished.kind}.",
            next_step=f"Finish it first: cic-installer {unfinished.kind}",
        )
    if unfinished.kind == "upgrade" and "try" not in unfinished.done:
        journal.end("undone")  # nothing was switched yet
        return
    version = str(unfinished.facts["from"])
    tell.line(f"The last {unfinished.kind} was cut short: back to {version} first.")
    _take_back(_work(layout, Bundle(layout.version(version), version), tell))
    journal.end("undone")


def _current(layout: Layout) -> str:
    current = installed_version(layout)
    if current is None:
        raise NotInstalled(
            "No version is installed, so there is nothing to upgrade.",
            next_step="./install.sh in the folder of the unpacked bundle installs one.",
        )
    return current


def _bundle(wanted: Wanted) -> Bundle:
    """Checked with the key that this site was installed with, whatever key came with it."""
    named = wanted.bundle or os.environ.get("CROSSLOGIC_BUNDLE") or ""
    if not named:
        raise InstallerError(
            "There is no bundle to upgrade to.",
            next_step="Name its folder or its .tar.gz: cic-installer upgrade BUNDLE",
        )
    path = (wanted.began_in / named).absolute()
    if path.is_file():
        path = unpack_archive(path, wanted.layout.records / "unpacked")
    verify(path, wanted.layout.release_key)
    return bundle_in(path)


def _refuse(current: str, bundle: Bundle) -> None:
    if bundle.version == current:
        raise OtherVersion(f"Version {current} is installed already.")
    if order(bundle.version) < order(current):
        raise OtherVersion(
            f"{bundle.version} is older than {current}, which is installed.",
            next_step="cic-installer rollback goes back to the version before.",
        )
    if bundle.version.partition(".")[0] != current.partition(".")[0]:
        raise OtherVersion(
            f"{current} cannot become {bundle.version} in one step: another major version.",
            next_step="Upgrade to the last version of this major first.",
        )


def _before(layout: Layout, current: str) -> str:
    """The version that an upgrade came from, or else the newest older one that is there."""
    there = [one for one in installed(layout) if one != current]
    came = [str(e["from"]) for e in read_lines(layout.history) if e.get("to") == current]
    for version in [*reversed(came), *reversed(there)]:
        if version in there and order(version) < order(current):
            return version
    raise OtherVersion(f"No version before {current} is there to go back to.")


def _answers(layout: Layout) -> Answers:
    if not layout.answers.exists():
        return Answers()
    return from_json(json.loads(layout.answers.read_bytes()))


def _work(layout: Layout, bundle: Bundle, tell: Teller) -> Work:
    answers = _answers(layout)
    tree = layout.version(bundle.version)
    folder = (tree if tree.is_dir() else bundle.tree) / "systemd"
    services = services_of(layout, units_in(folder, answers.role), with_agent=answers.role == "all")
    return Work(layout, answers, bundle, Manifest(layout), services, tell.detail)


def _steps(current: str, to: str, wanted: Wanted) -> list[Step]:
    proof = "its version" + (" and a completion" if wanted.completion else "")
    rows = (
        ("backup", f"Make a backup by version {current}, while it serves.", "It stays."),
        ("tree", f"Unpack version {to} beside it.", "The folder stays for the next try."),
        ("try", f"Try version {to} offline: that it runs, and takes copies of the databases.", ""),
        ("switch", f"Point /opt/crosslogic/current to {to}, with its units.", "Pointed back."),
        ("restart", "Start it anew. Who connects meanwhile waits.", "Started anew again."),
        ("prove", f"Prove it: {proof}.", f"Otherwise back to {current}."),
    )
    return [Step(name, does, undo, done=False, told="") for name, does, undo in rows]


_AGAIN = ("switch", "restart", "prove")  # of a version that is there already


def _shown(steps: Sequence[Step], current: str, to: str, *, as_json: bool) -> str:
    if as_json:
        rows = [{"name": one.name, "does": one.does, "undo": one.undo} for one in steps]
        return json.dumps({"from": current, "to": to, "steps": rows}, indent=2)
    lines = [f"{current} → {to}:", ""]
    return "\n".join([*lines, *(f"{n:3}. {one.does}" for n, one in enumerate(steps, 1))])


def _carry_out(
    kind: str, current: str, bundle: Bundle, steps: Sequence[Step], wanted: Wanted, tell: Teller
) -> str:
    layout, began = wanted.layout, time.monotonic()
    journal = Journal(layout.journal)
    old = _work(layout, Bundle(layout.version(current), current), tell)
    new = _work(layout, bundle, tell)
    answering = _answering(old) if wanted.completion else ""
    acts: dict[str, Callable[[], None]] = {
        "backup": lambda: _back_up(old),
        "tree": lambda: _unpack(new),
        "try": lambda: _try(new),
        "switch": lambda: _switch(new),
        "restart": lambda: _restart(old, new),
        "prove": lambda: _prove(new, answering),
    }
    journal.begin(kind, {"from": current, "to": bundle.version, "bundle": str(bundle.folder)})
    outcome: dict[str, Any] = {"operation": kind, "from": current, "to": bundle.version}
    switched = False
    try:
        for number, step in enumerate(steps, 1):
            journal.step(step.name)
            tell.began(number, len(steps), step)
            switched = switched or step.name == "switch"
            acts[step.name]()
            journal.done(step.name)
            tell.ended()
    # Whatever ends it, Ctrl-C too: a version that was not proved does not stay.
    except (Exception, KeyboardInterrupt) as error:
        failed_after_s = time.monotonic()
        why = str(error) or type(error).__name__
        if switched:
            _take_back(old)
        journal.end("rolled back" if switched else "failed")
        back_s = round(time.monotonic() - failed_after_s, 1)
        outcome |= {"outcome": "rolled back" if switched else "failed", "why": why}
        add_history(layout, {**outcome, "seconds": back_s, "by": by()})
        raise UpgradeFailed(
            f"{bundle.version} did not prove itself: {why}"
            + (f" Version {current} serves again, after {back_s} s." if switched else ""),
            next_step=getattr(error, "next_step", "") or "cic-installer history; cic doctor",
        ) from error
    finally:
        for work in (old, new):
            if not work.services.is_systemd:
                work.services.stop()
    new.manifest.version = bundle.version
    new.manifest.save()
    seconds = round(time.monotonic() - began, 1)
    add_history(layout, {**outcome, "outcome": "finished", "seconds": seconds, "by": by()})
    journal.end("finished")
    if wanted.json:
        return json.dumps({**outcome, "seconds": seconds, "notes": new.notes}, indent=2)
    notes = "".join(f"\n  {note}" for note in new.notes)
    return (
        f"Version {bundle.version} serves, after {seconds} s.{notes}\nBack: cic-installer rollback"
    )


def _back_up(old: Work) -> None:
    if not old.services.is_systemd:
        old.services.start(old.product)
    made = old.product.ask("backup", "create", deadline_s=600)
    old.tell(str(made["path"]))


def _restart(old: Work, new: Work) -> None:
    if not old.services.is_systemd:
        old.services.stop()
    new.services.restart(new.product)


def _unpack(new: Work) -> None:
    unpack_tree(new)
    point_to_engines(new)


def _try(new: Work) -> None:
    """On copies: the databases in use are only brought to a new schema by a version that runs."""
    said = new.product.version()
    if said != new.bundle.version:
        raise StepFailed(f"The new version calls itself {said}.", next_step="Obtain it again.")
    aside = new.layout.records / "trial"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(mode=0o700)
    try:
        for name in ("registry.db", "ledger.db"):
            with (
                closing(
                    sqlite3.connect(f"file:{new.layout.home / name}?mode=ro", uri=True)
                ) as there,
                closing(sqlite3.connect(aside / name)) as here,
            ):
                there.backup(here)
        python = new.layout.version(new.bundle.version) / "python/bin/python3"
        copies = [str(aside / "registry.db"), str(aside / "ledger.db")]
        ran = run([str(python), "-I", "-c", _TRIAL, *copies], deadline_s=TRY_S)
        if ran.code:
            said = (ran.err.strip() or f"exit code {ran.code}").splitlines()[-1]
            raise StepFailed(
                f"It does not take a copy of this site's databases: {said}",
                next_step="Nothing was changed. Tell the vendor, with cic support create.",
            )
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _switch(work: Work) -> None:
    link_commands(work)
    put_units(work)
    folder = work.layout.version(work.bundle.version) / "systemd"
    drop_missing_units(work.layout, work.manifest, folder)


def _take_back(old: Work) -> None:
    old.manifest = Manifest(old.layout)  # what the new version's steps noted since
    _switch(old)
    old.services.restart(old.product)


def _answering(old: Work) -> str:
    """A deployment that answers now and has to answer afterwards; empty: none does."""
    try:
        rows = old.product.ask("status")["deployments"]
    except ProductRefused:
        return ""
    return next((str(row["name"]) for row in rows if row["state"] == "ready"), "")


def _prove(new: Work, answering: str) -> None:
    said = new.product.ask("status")["version"]
    if said != new.bundle.version:
        raise StepFailed(
            f"Version {said} answers.", next_step="systemctl status crosslogic-gateway"
        )
    if not answering:
        return
    why = ["nothing"]

    def answers() -> bool:
        try:
            new.product.ask("chat", answering, "Hello", "--max-tokens", "1")
        except ProductRefused as refused:
            why[0] = refused.message
            return False
        return True

    if not wait_until(answers, deadline_s=PROVE_S, clock=time.monotonic, sleep=time.sleep):
        raise StepFailed(
            f"{answering} answered before and does not now: {why[0]}",
            next_step=f"cic deployment explain {answering}",
        )
