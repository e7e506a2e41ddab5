"""The course of an upgrade or a rollback: its steps in the journal, its end in the history.

Whatever ends it after the switch began takes it back. A run that was cut short is taken back by
the next one: whichever version `current` names starts at boot in between.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from installer.answers import Answers, from_json
from installer.bundle import Bundle
from installer.errors import InstallerError, NotTakenBack, Unfinished, UpgradeFailed
from installer.installation import by
from installer.interruptions import unheard
from installer.layout import Layout
from installer.move import Move
from installer.plan import Step
from installer.records import Journal, Manifest, Operation, add_history
from installer.retention import retire, surplus
from installer.terminal import Teller
from installer.upgrade_steps import ACTS, answering, take_back
from installer.versions import installed
from installer.work import Work, services_of, units_in

SWITCHING = frozenset({"switch", "restore", "restart", "prove"})
AGAIN = "cic-installer upgrade --undo tries the way back again; journalctl -u crosslogic-gateway"


def answers_of(layout: Layout) -> Answers:
    if not layout.answers.exists():
        return Answers()
    return from_json(json.loads(layout.answers.read_bytes()))


def work_of(layout: Layout, bundle: Bundle, tell: Teller) -> Work:
    answers = answers_of(layout)
    tree = layout.version(bundle.version)
    folder = (tree if tree.is_dir() else bundle.tree) / "systemd"
    services = services_of(layout, units_in(folder, answers.role), with_agent=answers.role == "all")
    return Work(layout, answers, bundle, Manifest(layout), services, tell.detail)


def move_of(
    kind: str, layout: Layout, current: str, bundle: Bundle, tell: Teller, *, completion: bool
) -> Move:
    old = work_of(layout, Bundle(layout.version(current), current), tell)
    new = work_of(layout, bundle, tell)
    return Move(kind, old, new, Journal(layout.journal), completion)


def carry_out(move: Move, steps: Sequence[Step], tell: Teller, *, named: str) -> dict[str, Any]:
    """What came of it, as the history has it. Raises UpgradeFailed and NotTakenBack.

    `named`: what the person called the bundle, for a run that goes on with it.
    """
    layout, began = move.new.layout, time.monotonic()
    if move.old.services.is_systemd and move.completion:
        move.answering = answering(move.old)
    move.journal.begin(move.kind, {"from": move.current, "to": move.to, "bundle": named})
    outcome: dict[str, Any] = {"operation": move.kind, "from": move.current, "to": move.to}
    step = steps[0]
    try:
        for number, step in enumerate(steps, 1):
            move.journal.step(step.name)
            tell.began(number, len(steps), step)
            ACTS[step.name](move)
            move.journal.done(step.name)
            tell.ended()
    # Whatever ends it, Ctrl-C too: a version that was not proved does not stay.
    except (Exception, KeyboardInterrupt) as error:
        with unheard():
            raise _ended(move, step, outcome, error, tell) from error
    finally:
        _stop_own(move)
    new = move.new
    new.manifest.version = move.to
    new.manifest.save()
    seconds = round(time.monotonic() - began, 1)
    outcome |= {"outcome": "finished", "seconds": seconds, "by": by()}
    if move.backup:
        outcome["backup"] = move.backup
    add_history(layout, outcome)
    move.journal.end("finished")
    notes = [*new.notes, *(_tidy(move) if move.kind == "upgrade" else ())]
    return {**outcome, "notes": notes}


def _ended(
    move: Move, step: Step, outcome: dict[str, Any], error: BaseException, tell: Teller
) -> InstallerError:
    """Back to the old version where it was left; the error that tells of both."""
    failed_after_s = time.monotonic()
    why = _why(error)
    outcome |= {"why": f"{step.name}: {why}", "by": by()}
    if move.backup:
        outcome["backup"] = move.backup
    fix = getattr(error, "next_step", "") or "cic-installer history; cic doctor"
    if step.name not in SWITCHING:
        _write_down(move, {**outcome, "outcome": "failed"})
        return UpgradeFailed(
            f"{move.to} was not taken: {why} Version {move.current} serves as before.",
            next_step=fix,
        )
    tell.line(f"        {why}\nBack to {move.current}.")
    try:
        take_back(move)
    # The first reason must not be lost over the second; the journal stays open for the next run.
    except (Exception, KeyboardInterrupt) as second:
        back = _why(second)
        _write_down(move, {**outcome, "outcome": "not taken back", "back": back}, ends=False)
        raise NotTakenBack(
            f"{move.to} did not prove itself: {why} Going back to {move.current} failed: {back}",
            next_step=_then_again(second),
        ) from second
    back_s = round(time.monotonic() - failed_after_s, 1)
    rolled = {**outcome, "outcome": "rolled back", "seconds": back_s}
    if move.old.notes:
        rolled["back"] = " ".join(move.old.notes)
    _write_down(move, rolled)
    return UpgradeFailed(
        f"{move.to} did not prove itself: {why} Version {move.current} serves again, after"
        f" {back_s} s.{''.join(f' {note}' for note in move.old.notes)}",
        next_step=fix,
    )


def _write_down(move: Move, entry: Mapping[str, Any], *, ends: bool = True) -> None:
    """On a full disk this may fail; the reason why that is told must not be lost over it. The
    journal is then open, and the next run settles it."""
    with suppress(OSError):
        add_history(move.old.layout, entry)
        if ends:
            move.journal.end(str(entry["outcome"]))


def _then_again(error: BaseException) -> str:
    first = str(getattr(error, "next_step", ""))
    return f"{first} Then: {AGAIN}" if first else AGAIN


def _why(error: BaseException) -> str:
    """One sentence, whatever it was."""
    if isinstance(error, KeyboardInterrupt):
        return "It was interrupted."
    if isinstance(error, InstallerError):
        return error.message if error.message.endswith((".", "!", "?")) else f"{error.message}."
    return f"{type(error).__name__}: {error}."


def _stop_own(move: Move) -> None:
    """Without systemd nothing of the appliance outlives the installer."""
    for work in (move.old, move.new):
        if not work.services.is_systemd:
            work.services.stop()


def _tidy(move: Move) -> list[str]:
    """Versions beyond the last three go. What fails here is told, and takes nothing back."""
    layout = move.new.layout
    going = surplus(installed(layout), move.to, move.current)
    try:
        notes = retire(layout, move.new.manifest, going)
    except (OSError, InstallerError) as error:
        return [f"Old versions were not all removed: {error}"]
    gone = [version for version in going if version not in installed(layout)]
    return notes + [f"Version {version} was removed: the last 3 are kept." for version in gone]


def settle(layout: Layout, tell: Teller) -> Operation | None:
    """Takes back an upgrade or a rollback that was cut short, and returns it; None: none was.

    Raises Unfinished for an operation of another kind, and NotTakenBack.
    """
    journal = Journal(layout.journal)
    unfinished = journal.unfinished()
    if unfinished is None:
        return None
    if unfinished.kind not in {"upgrade", "rollback"}:
        raise Unfinished(
            f"An operation was cut short: {unfinished.kind}.",
            next_step=f"Finish it first: cic-installer {unfinished.kind}",
        )
    for left in ("unpacked", "trial"):
        shutil.rmtree(layout.records / left, ignore_errors=True)
    outcome = {"operation": unfinished.kind, "by": by()} | {
        key: str(unfinished.facts[key])
        for key in ("from", "to", "backup")
        if key in unfinished.facts
    }
    if "prove" in unfinished.done:
        _finish(layout, unfinished, outcome)
        return None  # it lacked no more than its last line
    if SWITCHING.isdisjoint(unfinished.begun):
        add_history(layout, {**outcome, "outcome": "undone", "why": _cut(unfinished)})
        journal.end("undone")  # nothing was switched yet
        return journal.last()
    began, version = time.monotonic(), str(unfinished.facts["from"])
    tell.line(f"The last {unfinished.kind} was cut short: back to {version} first.")
    move = _move_back(layout, unfinished, tell)
    try:
        with unheard():
            take_back(move)
    except (Exception, KeyboardInterrupt) as error:
        back = _why(error)
        add_history(
            layout, {**outcome, "outcome": "not taken back", "why": _cut(unfinished), "back": back}
        )
        raise NotTakenBack(
            f"The {unfinished.kind} to {unfinished.facts.get('to')} was cut short, and going back"
            f" to {version} failed: {back}",
            next_step=_then_again(error),
        ) from error
    finally:
        _stop_own(move)
    seconds = round(time.monotonic() - began, 1)
    ended = {**outcome, "outcome": "rolled back", "seconds": seconds, "why": _cut(unfinished)}
    add_history(layout, ended)
    journal.end("undone")
    return journal.last()


def _finish(layout: Layout, proved: Operation, outcome: Mapping[str, Any]) -> None:
    """A version that was proved stays; what was not written down about it is."""
    manifest = Manifest(layout)
    manifest.version = str(proved.facts["to"])
    manifest.save()
    add_history(layout, {**outcome, "outcome": "finished"})
    Journal(layout.journal).end("finished")


def _cut(operation: Operation) -> str:
    open_steps = sorted(operation.begun - operation.done) or ["between two steps"]
    return f"cut short: {', '.join(open_steps)}"


def _move_back(layout: Layout, unfinished: Operation, tell: Teller) -> Move:
    facts = unfinished.facts
    version, to = str(facts["from"]), str(facts.get("to", ""))
    bundle = Bundle(layout.version(to), to)
    move = move_of(unfinished.kind, layout, version, bundle, tell, completion=False)
    move.backup = str(facts.get("backup", ""))
    move.contracts = [str(one) for one in facts.get("contracts", ())]
    return move
