"""Makes paths and notes each in the manifest before it is there: what is noted can be removed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from installer.errors import StepFailed
from installer.files import (
    copy_tree,
    missing_parents,
    sha256_of,
    switch_link,
    sync_folder,
    write_whole,
)
from installer.layout import Layout
from installer.programs import Account
from installer.records import Made, Manifest


@dataclass(frozen=True, slots=True)
class Maker:
    """What was there before this installation is used as it is, and never noted as ours."""

    layout: Layout
    manifest: Manifest

    def folder(
        self, path: Path, mode: int, *, kind: str = "folder", account: Account | None = None,
        group: int | None = None,
    ) -> None:  # fmt: skip
        """`kind` data: the folder belongs to the site with all that will be in it."""
        self._parents(path)
        if not self._ours(path):
            return
        self.manifest.note(path, Made(kind))
        if not path.is_dir():
            path.mkdir()
            sync_folder(path.parent)
        path.chmod(mode)
        if account is not None:
            os.chown(path, account.uid, account.gid)
        elif group is not None:
            os.chown(path, -1, group)
        self.manifest.note(path, Made(kind, mode=f"{mode:04o}", owner=owner_of(path)))

    def file(
        self, path: Path, content: bytes, mode: int, *, kind: str = "file", group: int | None = None
    ) -> bool:
        """Whether it is as it was to be: a file that others made or changed is left alone."""
        self._parents(path)
        digest = sha256(content).hexdigest()
        if path.exists() and (not self._ours(path) or self.changed(path)):
            return sha256_of(path) == digest
        self.manifest.note(path, Made(kind, sha256=digest, mode=f"{mode:04o}"))
        write_whole(path, content, mode, group)
        made = Made(kind, sha256=digest, mode=f"{mode:04o}", owner=owner_of(path))
        self.manifest.note(path, made)
        return True

    def changed(self, path: Path) -> bool:
        """Whether somebody changed a file since it was made. Its next content may be there too."""
        made = self.manifest.made.get(self.layout.inside(path))
        return bool(
            made is not None and made.owner and path.is_file() and sha256_of(path) != made.sha256
        )

    def link(self, path: Path, target: str) -> None:
        """Raises StepFailed when something else of that name is there."""
        self._parents(path)
        there = str(path.readlink()) if path.is_symlink() else None
        if there == target and not self.manifest.has(path):
            return
        if (path.exists() or there is not None) and not self.manifest.has(path):
            raise StepFailed(
                f"{path} is there already, and is not of this installation.",
                next_step=f"Look at it, move it away, and run this again: ls -l {path}",
            )
        self.manifest.note(path, Made("link", target=target))
        if there != target:
            switch_link(path, target)

    def tree(self, source: Path, target: Path, version: str) -> Iterator[int]:
        """The folder of a version; yields the bytes copied so far."""
        self._parents(target)
        self.manifest.note(target, Made("tree", target=version))
        yield from copy_tree(source, target)
        self.manifest.trees[version] = tree_files(target)
        self.manifest.save()

    def _parents(self, path: Path) -> None:
        for parent in missing_parents(path, self.layout.root):
            self.manifest.note(parent, Made("folder", mode="0755"))
            parent.mkdir(exist_ok=True)
            parent.chmod(0o755)

    def _ours(self, path: Path) -> bool:
        """Not there yet, or made by us."""
        return self.manifest.has(path) or not (path.exists() or path.is_symlink())


def tree_files(folder: Path) -> dict[str, tuple[str, str]]:
    """SHA-256 and mode of each file, by its path in the folder. Links have their target."""
    found: dict[str, tuple[str, str]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        mode = stat.S_IMODE(path.stat().st_mode)
        found[str(path.relative_to(folder))] = (sha256_of(path), f"{mode:04o}")
    return found


def owner_of(path: Path) -> str:
    """Names where the host knows them, else numbers."""
    try:
        owner = path.owner()
    except KeyError:
        owner = str(path.stat().st_uid)
    try:
        group = path.group()
    except KeyError:
        group = str(path.stat().st_gid)
    return f"{owner}:{group}"
