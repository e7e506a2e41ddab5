"""`install`: look, plan, show, ask, apply; and the undoing of one that was cut short."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from installer import card, plan
from installer.answers import Answers, from_json, load_answers, to_json
from installer.bundle import Bundle, bundle_in, verify
from installer.errors import (
    Blocked,
    InstallerError,
    NotInstalled,
    OtherVersion,
    StepFailed,
    Unfinished,
)
from installer.files import write_whole
from installer.install_steps import ACTS
from installer.layout import Layout
from installer.looking import completed, installed_version, look
from installer.plan import Step, plan_install
from installer.records import Journal, Manifest, add_history, locked
from installer.removal import removable, remove
from installer.terminal import Teller, confirm
from installer.work import Work, services_of, units_in


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of an installation."""

    layout: Layout
    bundle: str
    """A folder; empty: the one that install.sh runs from, or that of the unfinished run."""
    answers: str
    """A file or `-`; empty: those of the unfinished run, else the defaults."""
    model: str
    json: bool
    dry_run: bool
    yes: bool
    ignore: tuple[str, ...]
    began_in: Path


def install(asked: Asked, stdin: Callable[[], bytes], tell: Teller) -> str:
    """What is printed on standard output. Raises InstallerError."""
    layout = asked.layout
    require_root(layout, changes=not asked.dry_run)
    bundle = _bundle(asked)
    answers = completed(_answers(asked, stdin), bundle)
    _refuse_other_work(layout, bundle)
    found = look(layout, answers, bundle, Manifest(layout))
    steps = plan_install(answers, found)
    if asked.dry_run:
        return _shown_plan(asked, steps, found)
    if layout.is_this_system:
        check_host(answers, asked.ignore)
    if not asked.json:
        tell.line(plan.as_text(steps, found) + "\n")
    confirm("Go on?", yes=asked.yes)
    with locked(layout):
        _refuse_other_work(layout, bundle)
        manifest = Manifest(layout)
        steps = plan_install(answers, look(layout, answers, bundle, manifest))
        work = _work(layout, answers, bundle, manifest, tell)
        _begin(work)
        done = _apply(work, steps, tell)
    return json.dumps(card.as_json(done), indent=2) if asked.json else card.as_text(done)


def require_root(layout: Layout, *, changes: bool) -> None:
    if changes and layout.is_this_system and os.geteuid() != 0:
        raise InstallerError(
            "Only root can change what is installed on this system.",
            next_step="Run it with sudo. The preflight, the dry run of an installation, and a"
            " --prefix FOLDER of your own need no root.",
        )


def check_host(answers: Answers, ignore: Sequence[str]) -> None:
    """The preflight. Raises Blocked with every blocker and its fix."""
    from installer.checks.findings import Role, Severity, Wanted  # noqa: PLC0415 (99 modules)
    from installer.checks.main import built_at  # noqa: PLC0415
    from installer.checks.real_host import RealHost  # noqa: PLC0415
    from installer.checks.runner import run_checks  # noqa: PLC0415

    wanted = Wanted(Role(answers.role), answers.preflight_models_gb * 1000**3, built_at())
    passed = {*ignore, *answers.preflight_ignore}
    blockers = [
        one
        for one in run_checks(RealHost(), wanted)
        if one.severity is Severity.BLOCKER and one.id not in passed
    ]
    if blockers:
        rows = "".join(f"\n  {one.id}: {one.seen}\n    Fix: {one.fix}" for one in blockers)
        raise Blocked(
            f"This server cannot take the appliance yet:{rows}",
            next_step="./install.sh --preflight shows every check; --ignore CHECK goes on in spite "
            "of one.",
        )


def _bundle(asked: Asked) -> Bundle:
    unfinished = Journal(asked.layout.journal).unfinished()
    named = asked.bundle or os.environ.get("CROSSLOGIC_BUNDLE") or ""
    if not named and unfinished is not None and unfinished.kind == "install":
        named = str(unfinished.facts.get("bundle", ""))
        verify(Path(named), asked.layout.release_key)
    if not named:
        raise InstallerError(
            "There is no bundle to install from.",
            next_step="Run ./install.sh in the folder of the unpacked bundle, or name the folder: "
            "--bundle FOLDER.",
        )
    return bundle_in((asked.began_in / named).absolute())


def _answers(asked: Asked, stdin: Callable[[], bytes]) -> Answers:
    if asked.answers:
        answers = load_answers(asked.answers, stdin, asked.began_in)
    elif asked.layout.answers.exists():
        answers = from_json(json.loads(asked.layout.answers.read_bytes()))
    else:
        answers = Answers()
    if asked.model:
        named = {**to_json(answers), "model_file": str((asked.began_in / asked.model).absolute())}
        answers = from_json(named)
    return answers


def _refuse_other_work(layout: Layout, bundle: Bundle) -> None:
    unfinished = Journal(layout.journal).unfinished()
    if unfinished is not None and unfinished.kind != "install":
        raise Unfinished(
            f"An operation was cut short: {unfinished.kind}.",
            next_step=f"Finish it first: cic-installer {unfinished.kind}, or ./install.sh "
            f"{unfinished.kind} in the bundle's folder.",
        )
    there = installed_version(layout)
    if there is not None and there != bundle.version:
        raise OtherVersion(
            f"Version {there} is installed, and this bundle is {bundle.version}.",
            next_step=f"cic-installer upgrade {bundle.folder}",
        )


def _shown_plan(asked: Asked, steps: Sequence[Step], found: plan.Found) -> str:
    if asked.json:
        return json.dumps(plan.as_json(steps, found), indent=2)
    return plan.as_text(steps, found)


def _work(
    layout: Layout, answers: Answers, bundle: Bundle, manifest: Manifest, tell: Teller
) -> Work:
    units = units_in(bundle.tree / "systemd", answers.role)
    services = services_of(layout, units, with_agent=answers.role == "all")
    return Work(layout, answers, bundle, manifest, services, tell.detail)


def _begin(work: Work) -> None:
    """Writes down what is wanted before anything is made."""
    journal = Journal(work.layout.journal)
    if journal.unfinished() is None:
        had = sorted(work.manifest.made)
        facts = {"version": work.bundle.version, "bundle": str(work.bundle.folder), "had": had}
        journal.begin("install", facts)
    answers = json.dumps(to_json(work.answers), indent=1) + "\n"
    write_whole(work.layout.answers, answers.encode(), 0o600)
    if not work.layout.release_key.exists():
        write_whole(work.layout.release_key, work.bundle.key.read_bytes(), 0o644)
    trusted = work.bundle.folder / "metadata/root.json"
    if trusted.exists() and not work.layout.trusted_root.exists():
        write_whole(work.layout.trusted_root, trusted.read_bytes(), 0o644)


def _apply(work: Work, steps: Sequence[Step], tell: Teller) -> card.Card:
    journal, began = Journal(work.layout.journal), time.monotonic()
    try:
        for number, step in enumerate(steps, 1):
            if step.done:
                tell.skipped(number, len(steps), step)
                continue
            journal.step(step.name)
            tell.began(number, len(steps), step)
            _act(work, step)
            work.manifest.steps[step.name] = step.told
            work.manifest.save()
            journal.done(step.name)
            tell.ended()
        done = _card(work)
    finally:
        if not work.services.is_systemd:
            work.services.stop()
    work.manifest.version = work.bundle.version
    work.manifest.save()
    add_history(
        work.layout,
        {
            "operation": "install",
            "to": work.bundle.version,
            "outcome": "finished",
            "seconds": round(time.monotonic() - began, 1),
            "by": by(),
        },
    )
    journal.end("finished")
    return done


def _act(work: Work, step: Step) -> None:
    try:
        ACTS[step.name](work)
    except OSError as error:
        raise StepFailed(
            f"The step '{step.name}' failed: {error.strerror or error}: {error.filename or ''}",
            next_step="Look at the disk (df -h, dmesg) and the path's owner. Then run this again: "
            "it goes on where it stopped; or undo it: install --undo",
        ) from error


def _card(work: Work) -> card.Card:
    listen = work.answers.endpoint_listen
    facts = card.ask_site(work.product, listen) if work.answers.start else card.SiteFacts()
    running = work.services.is_systemd and work.answers.start
    shown = card.next_steps(
        facts.endpoint, facts.models, running=running, systemd=work.services.is_systemd
    )
    return card.Card(
        version=work.bundle.version,
        site=work.answers.site_name,
        endpoint=facts.endpoint,
        ca_fingerprint=facts.ca_fingerprint,
        key=work.key,
        key_file=work.answers.tenant_key_file,
        models=facts.models,
        running=running,
        notes=(*work.notes, *firewall_hint(work)),
        next_steps=shown,
    )


def firewall_hint(work: Work) -> list[str]:
    """The command that would open the endpoint's port; it is for the administrator to decide."""
    host, _, port = work.answers.endpoint_listen.rpartition(":")
    if host in {"127.0.0.1", "[::1]", "localhost"} or port == "0":
        return []
    from installer.programs import find  # noqa: PLC0415 (for this alone)

    for program, command in (
        ("firewall-cmd", f"firewall-cmd --permanent --add-port={port}/tcp; firewall-cmd --reload"),
        ("ufw", f"ufw allow {port}/tcp"),
        ("nft", f"nft add rule inet filter input tcp dport {port} accept"),
    ):
        if find(program):
            return [f"No firewall was changed. Where one closes the endpoint: {command}"]
    return []


def undo(layout: Layout, tell: Teller) -> str:
    """Removes what an unfinished installation made, and nothing that was there before it."""
    require_root(layout, changes=True)
    with locked(layout):
        journal = Journal(layout.journal)
        unfinished = journal.unfinished()
        if journal.last() is None:
            forget(layout)  # it was cut short before it had made anything
            return "Nothing had been made yet."
        if unfinished is None or unfinished.kind != "install":
            raise NotInstalled(
                "No installation was cut short, so there is nothing to undo.",
                next_step="cic-installer uninstall removes one that is complete.",
            )
        manifest = Manifest(layout)
        units = tuple(
            name.rpartition("/")[2]
            for name in manifest.made
            if name.startswith(layout.inside(layout.units) + "/crosslogic")
        )
        services_of(layout, units, with_agent=True).stop()
        had = [str(name) for name in unfinished.facts.get("had", [])]
        names = removable(manifest, purge=True, beside=had)
        notes = remove(layout, manifest, names, purge=True)
        manifest.steps.clear()
        manifest.save()
        journal.end("undone")
        if not manifest.made:
            forget(layout)
    for note in notes:
        tell.line(note)
    return "The unfinished installation was undone."


def forget(layout: Layout) -> None:
    """The installer's own memory, at the end of all: the journal last."""
    layout.manifest.unlink(missing_ok=True)
    for path in sorted(layout.records.iterdir()):
        if path != layout.journal and not path.is_dir():
            path.unlink()
    shutil.rmtree(layout.records, ignore_errors=True)


def by() -> str:
    """Who asked for it, behind a sudo."""
    return os.environ.get("SUDO_USER") or getpass.getuser()
