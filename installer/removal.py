"""Removes what the manifest names: in an order that can be cut short and begun again.

Without --purge what belongs to the site stays: settings, data, accounts. A file that was changed
since it was made stays too, and is told.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from installer.files import PARTIAL, remove_folder, sha256_of
from installer.layout import Layout
from installer.programs import account_of, group_of, must
from installer.records import Made, Manifest

SITE_KINDS = frozenset({"data", "settings", "account"})


def removable(manifest: Manifest, *, purge: bool, beside: Iterable[str] = ()) -> list[str]:
    """Names of what goes, those within folders before their folders. `beside` stays anyhow."""
    kept = set(beside)
    names = [
        name
        for name, made in manifest.made.items()
        if name not in kept and (purge or made.kind not in SITE_KINDS)
    ]
    return sorted(names, key=_order)


def _order(name: str) -> tuple[int, int, str]:
    """Accounts last, deep paths first, and links before what they point to."""
    if not name.startswith("/"):
        return (2, 0 if name.startswith("user:") else 1, name)
    return (0, -len(PurePosixPath(name).parts), name)


def remove(layout: Layout, manifest: Manifest, names: list[str], *, purge: bool) -> list[str]:
    """Removes and forgets; returns what was kept, with the reason. What is gone already is fine."""
    notes: list[str] = []
    for name in names:
        made = manifest.made[name]
        note = _remove_one(layout, manifest, name, made, purge=purge)
        if note:
            notes.append(note)
            continue
        del manifest.made[name]
        if made.kind == "tree" and made.target:
            manifest.trees.pop(made.target, None)
    manifest.save()
    return notes


def _remove_one(layout: Layout, manifest: Manifest, name: str, made: Made, *, purge: bool) -> str:
    """Empty when it is gone, else why it stays."""
    if made.kind == "account":
        _remove_account(name)
        return ""
    path = layout.outside(name)
    if made.kind == "link":
        if path.is_symlink() and str(path.readlink()) == made.target:
            path.unlink()
        elif path.is_symlink() or path.exists():
            return f"{name} is not as it was made, and stays."
    elif made.kind in {"file", "settings"}:
        if path.exists() and not purge and made.owner and sha256_of(path) != made.sha256:
            return f"{name} was changed by somebody, and stays."
        path.unlink(missing_ok=True)
        path.with_name(f".{path.name}{PARTIAL}").unlink(missing_ok=True)
    elif made.kind == "data":
        _empty(path)
        if not remove_folder(path):
            return f"{name} could not be removed: something is mounted there, or it is in use."
    elif made.kind == "tree":
        return _remove_version(manifest, name, path, made, purge=purge)
    elif not remove_folder(path):
        return "" if purge is False and name == "/opt/crosslogic" else _not_empty(name, path)
    return ""


def _not_empty(name: str, path: Path) -> str:
    inside = ", ".join(sorted(one.name for one in path.iterdir())[:3])
    return f"{name} stays: {inside} is not of this installation."


def _remove_version(manifest: Manifest, name: str, path: Path, made: Made, *, purge: bool) -> str:
    """A version's folder; where somebody changed a file of it or added one, those stay."""
    remove_tree(path.with_name(path.name + PARTIAL))
    files = manifest.trees.get(made.target)
    strange = [] if purge else changed_files(manifest, name, path, made.target)
    if files is None or not strange:
        remove_tree(path)
        return ""
    for file in files:
        if file not in strange:
            (path / file).unlink(missing_ok=True)
    for folder, _, _ in os.walk(path, topdown=False):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()
    return f"{name} keeps what was changed or added: {', '.join(strange[:3])}"


def changed_files(manifest: Manifest, name: str, path: Path, version: str) -> list[str]:
    """Files of a version's folder that somebody changed or added; none when it is not known."""
    files = manifest.trees.get(version)
    if files is None:
        return []
    noted = {one for one in manifest.made if one.startswith(name + "/")}
    return [odd for odd in _strange(path, files) if f"{name}/{odd}" not in noted]


def _strange(path: Path, files: dict[str, tuple[str, str]]) -> list[str]:
    """Files that were changed or added. What Python compiled of ours is ours."""
    found = []
    for file in sorted(one for one in path.rglob("*") if one.is_file() or one.is_symlink()):
        name = str(file.relative_to(path))
        compiled = file.suffix == ".pyc" and file.parent.name == "__pycache__"
        known = files.get(name)
        if known is None:
            if not compiled:
                found.append(name)
        elif not compiled and sha256_of(file) != known[0]:
            found.append(name)
    return found


def remove_tree(path: Path) -> None:
    """The whole folder; one that is not there is fine. Links in it are not followed."""
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def _empty(path: Path) -> None:
    if not path.is_dir():
        return
    for inside in sorted(path.iterdir()):
        if inside.is_symlink() or not inside.is_dir():
            inside.unlink(missing_ok=True)
        elif not os.path.ismount(inside):
            with contextlib.suppress(OSError):
                shutil.rmtree(inside)


def _remove_account(name: str) -> None:
    kind, _, account = name.partition(":")
    fix = f"Look who uses the account {account}, remove it by hand, and run this again."
    if kind == "user" and account_of(account) is not None:
        must(["userdel", account], next_step=fix)
    if kind == "group" and group_of(account) is not None:
        must(["groupdel", account], next_step=fix)
