"""What each step of an upgrade and of a rollback does."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from installer.errors import StepFailed
from installer.files import PARTIAL, write_whole
from installer.install_steps import link_commands, point_to_engines, put_units, unpack_tree
from installer.layout import GATEWAY_ACCOUNT, Layout
from installer.making import tree_files
from installer.move import DATABASES, Move
from installer.product import ProductRefused, wait_until
from installer.programs import Account
from installer.records import Manifest
from installer.removal import changed_files, remove_tree
from installer.retention import backups_folder, remove_as_gateway
from installer.terminal import waiting
from installer.units import drop_missing_units
from installer.upgrade_trial import try_offline
from installer.work import Work, account_in

PROVE_S = 60.0  # for a deployment that answered before to answer again
RESTORE_PLAN = "restore-plan.json"  # in the home, while `cic backup restore` puts one back
BACKUP_S = 4 * 3_600.0  # as `cic backup` itself waits


def back_up(move: Move) -> None:
    """Made by the version that serves, and tried: unpacked aside, opened, its chains recomputed."""
    old, folder = move.old, backups_folder(move.old.layout) / move.current
    with waiting(old.tell, "Backup"):
        try:
            if not old.services.is_systemd:
                old.services.start(old.product)
                move.answering = answering(old) if move.completion else ""
            made = old.product.ask("backup", "create", "--to", str(folder), deadline_s=BACKUP_S)
        except StepFailed as failed:
            raise StepFailed(
                failed.message,
                next_step=f"{failed.next_step} Where version {move.current} no longer starts:"
                " cic-installer upgrade --no-backup",
            ) from failed
        path = Path(str(made["path"]))
        old.product.ask("backup", "verify", str(path), deadline_s=BACKUP_S)
    move.backup = str(path)
    move.journal.note({"backup": move.backup})
    remove_as_gateway(old.layout, *(one for one in folder.glob("*.clbackup") if one != path))
    old.tell(f"{path}, tried and sound")


def unpack(move: Move) -> None:
    """A folder of an earlier try is used when it is as the bundle is, and made anew otherwise."""
    new = move.new
    there = new.layout.version(move.to)
    if there.is_dir() and _unlike_bundle(new, there):
        new.tell("What an earlier try left is not as this bundle is: it is made anew.")
        remove_tree(there)
    try:
        unpack_tree(new)
    except (OSError, KeyboardInterrupt):
        remove_tree(there.with_name(there.name + PARTIAL))  # a full disk gets its room back
        raise
    point_to_engines(new)


def _unlike_bundle(new: Work, there: Path) -> bool:
    wanted = {name: digest for name, (digest, _) in tree_files(new.bundle.tree).items()}
    found = {name: digest for name, (digest, _) in tree_files(there).items()}
    ours = {name for name in found if name.endswith("crosslogic-engines.pth")}
    compiled = {name for name in found.keys() - wanted.keys() if "__pycache__" in name.split("/")}
    return {n: d for n, d in found.items() if n not in ours | compiled} != wanted


def check_tree(move: Move) -> None:
    """Before a rollback: its version is as it was when it was installed."""
    layout, manifest = move.new.layout, move.new.manifest
    tree = layout.version(move.to)
    missing = [name for name in manifest.trees.get(move.to, {}) if not (tree / name).is_file()]
    odd = missing or changed_files(manifest, layout.inside(tree), tree, move.to)
    if odd:
        raise StepFailed(
            f"{tree / odd[0]} is not as version {move.to} was installed.",
            next_step=f"Nothing was changed. cic-installer versions --remove {move.to}, and go to"
            " another version.",
        )


def try_out(move: Move) -> None:
    """Where the version that is left could not go on afterwards, it makes its backup anew."""
    try_offline(move)
    if move.contracts and move.kind == "upgrade":
        move.journal.note({"contracts": move.contracts})
        move.new.tell(
            f"It changes the databases so that {move.current} cannot go on with them. Going back"
            " puts back a backup, which is made anew now."
        )
        back_up(move)


def switch(work: Work) -> None:
    link_commands(work)
    put_units(work)
    folder = work.layout.version(work.bundle.version) / "systemd"
    drop_missing_units(work.layout, work.manifest, folder)


def put_back(work: Work, backup: str) -> None:
    """A backup in place of the databases. The site is stopped for it; what was there is kept.

    By root, to whom the folder of the settings belongs. These stay as they are: the version that
    goes on was tried with them.
    """
    layout, account = work.layout, account_in(work.layout, GATEWAY_ACCOUNT)
    work.services.stop()
    settings = layout.config_file.read_bytes()
    words = ("backup", "restore", backup, "--replace", "--yes")
    with waiting(work.tell, "Restore"):
        done = replace(work.product, account=None).ask(*words, deadline_s=BACKUP_S)
    write_whole(layout.config_file, settings, 0o640, account.gid if account is not None else None)
    give_to_gateway(layout, account)
    work.notes.append(f"The databases are those of {done['made_at']}; {done['before']} has later.")


def give_to_gateway(layout: Layout, account: Account | None) -> None:
    """What a restore by root has made in the home. Links are not followed."""
    if account is None:
        return
    secrets = layout.home / "secrets"
    named = [layout.home / f"{name}.db" for name in DATABASES]
    named += [layout.home / "manifest-head.json", secrets, *secrets.glob("*")]
    for path in named:
        with contextlib.suppress(FileNotFoundError):
            if path.lstat().st_uid == 0:
                os.chown(path, account.uid, account.gid, follow_symlinks=False)


def restart(move: Move) -> None:
    if not move.old.services.is_systemd:
        move.old.services.stop()
    move.new.services.restart(move.new.product)


def take_back(move: Move) -> None:
    """The old version serves again. Begun anew as often as it is cut short."""
    old, new = move.old, move.new
    old.manifest = Manifest(old.layout)  # what the new version's steps noted since
    switch(old)
    if not new.services.is_systemd:
        new.services.stop()
    give_to_gateway(old.layout, account_in(old.layout, GATEWAY_ACCOUNT))
    if move.contracts and move.backup and _has_to_go_back(old.layout.home, move.contracts):
        put_back(old, move.backup)
    elif old.services.is_systemd and _running(old) == move.current:
        return  # it was never left
    old.services.restart(old.product)


def _has_to_go_back(home: Path, contracts: list[str]) -> bool:
    """The new version has changed the databases, or a restore was cut short."""
    if (home / RESTORE_PLAN).exists():
        return True
    for name in DATABASES:
        with closing(sqlite3.connect(f"file:{home / name}.db?mode=ro", uri=True)) as database:
            rows = {str(row[0]) for row in database.execute("SELECT name FROM _migrations")}
        if rows & set(contracts):
            return True
    return False


def _running(work: Work) -> str:
    try:
        return str(work.product.ask("status")["version"])
    except StepFailed:
        return ""


def answering(old: Work) -> str:
    """A deployment that answers now and has to answer afterwards; empty: none does."""
    try:
        rows = old.product.ask("status")["deployments"]
    except StepFailed:
        return ""
    return next((str(row["name"]) for row in rows if row["state"] == "ready"), "")


def prove(move: Move) -> None:
    new = move.new
    said = new.product.ask("status")["version"]
    if said != move.to:
        raise StepFailed(
            f"Version {said} answers.", next_step="systemctl status crosslogic-gateway"
        )
    if not move.answering:
        return
    why = ["nothing"]

    def answers() -> bool:
        try:
            new.product.ask("chat", move.answering, "Hello", "--max-tokens", "1")
        except ProductRefused as refused:
            why[0] = refused.message
            return False
        return True

    with waiting(new.tell, f"Waiting for {move.answering}"):
        proved = wait_until(answers, deadline_s=PROVE_S, clock=time.monotonic, sleep=time.sleep)
    if not proved:
        raise StepFailed(
            f"{move.answering} answered before and does not now: {why[0]}",
            next_step=f"cic deployment explain {move.answering}",
        )


ACTS: Mapping[str, Callable[[Move], None]] = {
    "backup": back_up,
    "tree": unpack,
    "check": check_tree,
    "try": try_out,
    "switch": lambda move: switch(move.new),
    "restore": lambda move: put_back(move.new, move.restores),
    "restart": restart,
    "prove": prove,
}
