"""Versions that are there: which stay after an upgrade, and how one is removed.

A version goes with the backup that was made before it was left. One that a process still runs
from stays: engines outlive upgrades, and read their modules from the folder they began in.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

from installer.errors import OtherVersion
from installer.files import PARTIAL
from installer.layout import GATEWAY_ACCOUNT, Layout
from installer.looking import installed_version
from installer.precedence import is_version, order
from installer.programs import run
from installer.records import Manifest, add_history
from installer.removal import changed_files, remove_tree
from installer.terminal import confirm
from installer.versions import installed
from installer.work import account_in

KEPT = 3


def surplus(there: Sequence[str], current: str, previous: str, keep: int = KEPT) -> list[str]:
    """Which of those that are there go, the oldest first: current, previous, then the newest stay.

    A previous version that is gone takes no place.
    """
    stay = [one for one in (current, previous) if one in there]
    for version in sorted(there, key=order, reverse=True):
        if version not in stay and len(stay) < keep:
            stay.append(version)
    return sorted((one for one in there if one not in stay), key=order)


def retire(layout: Layout, manifest: Manifest, versions: Sequence[str]) -> list[str]:
    """Removes versions that nobody uses or has changed; returns why others stay."""
    notes = []
    for version in versions:
        tree = layout.version(version)
        odd = changed_files(manifest, layout.inside(tree), tree, version)
        users = users_of(tree)
        if users:
            notes.append(f"Version {version} stays: process {users[0]} runs from it.")
        elif odd:
            notes.append(f"Version {version} stays: {odd[0]} was changed or added by somebody.")
        else:
            remove_version(layout, manifest, version)
    _remove_backups_of_the_gone(layout)
    return notes


def remove_by_hand(layout: Layout, version: str, *, by: str, yes: bool, as_json: bool) -> str:
    """`versions --remove`. Raises OtherVersion, Declined. The caller holds the lock."""
    there, current = installed(layout), installed_version(layout)
    fix = "cic-installer versions lists those that are there."
    if version not in there:
        raise OtherVersion(f"Version {version} is not here.", next_step=fix)
    if version == current:
        raise OtherVersion(
            f"Version {version} is the one in use, and stays.",
            next_step="cic-installer rollback, or upgrade, goes to another one first; uninstall"
            " removes all.",
        )
    users = users_of(layout.version(version))
    if users:
        raise OtherVersion(
            f"Process {users[0]} still runs from version {version}.",
            next_step=f"Look at it: ps -fp {users[0]}. An engine moves to the current version when"
            " its deployment is restarted: cic deployment --help",
        )
    confirm(f"Remove version {version}? There is no way back to it then.", yes=yes)
    manifest = Manifest(layout)
    remove_version(layout, manifest, version)
    _remove_backups_of_the_gone(layout)
    add_history(layout, {"operation": "remove", "from": version, "outcome": "finished", "by": by})
    if as_json:
        return json.dumps({"removed": version, "there": installed(layout)}, indent=2)
    return f"Version {version} was removed."


def remove_version(layout: Layout, manifest: Manifest, version: str) -> None:
    """Its folder loses its name first: what a power cut leaves is never taken for a version."""
    tree = layout.version(version)
    aside = tree.with_name(tree.name + PARTIAL)
    remove_tree(aside)
    with contextlib.suppress(FileNotFoundError):
        tree.rename(aside)
    remove_tree(aside)
    name = layout.inside(tree)
    for made in [one for one in manifest.made if one == name or one.startswith(name + "/")]:
        del manifest.made[made]
    manifest.trees.pop(version, None)
    manifest.save()


def users_of(tree: Path) -> list[int]:
    """Processes whose program lies in the folder. Those of others are seen by root alone."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            with contextlib.suppress(OSError):
                if (process / "exe").readlink().is_relative_to(tree):
                    found.append(int(process.name))
    return sorted(found)


def backups_folder(layout: Layout) -> Path:
    """Backups made before upgrades, by the version that made them; daily ones are elsewhere."""
    return layout.home / "backups" / "upgrades"


def _remove_backups_of_the_gone(layout: Layout) -> None:
    there = set(installed(layout))
    with contextlib.suppress(OSError):
        for folder in sorted(backups_folder(layout).iterdir()):
            if is_version(folder.name) and folder.name not in there:
                remove_as_gateway(layout, folder)


def remove_as_gateway(layout: Layout, *paths: Path) -> None:
    """By the account that owns them: it could have laid links there, which root must not follow."""
    if paths:
        account = account_in(layout, GATEWAY_ACCOUNT)
        run(["rm", "-rf", "--", *map(str, paths)], account=account)
