"""What the installer remembers: a journal of steps, a manifest of what was made, a history.

The manifest names a path before it is made, so that what a power cut leaves is known; the journal
says which operation was under way; the history says what came of each.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from installer.errors import InstallerError, OtherInstaller
from installer.files import append_line, write_whole
from installer.layout import Layout


@contextmanager
def locked(layout: Layout) -> Iterator[None]:
    """Held by the one installer that may change this system. The kernel frees it with the process.

    Raises OtherInstaller, and InstallerError where the folder cannot be made.
    """
    try:
        layout.records.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise InstallerError(
            f"{layout.records} cannot be used: {error.strerror}.",
            next_step="Run it as root: sudo ./install.sh",
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            raise OtherInstaller(
                f"Another installer changes this system (process {pid or 'unknown'}).",
                next_step="Wait until it has ended, then run this again.",
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Operation:
    """One run of install, join, upgrade, rollback or uninstall, as the journal tells it."""

    kind: str
    facts: Mapping[str, Any]
    done: frozenset[str]
    """Names of the steps that were done in it."""
    begun: frozenset[str]
    """Names of those that began: a cut may have come at any moment of the last one."""
    open: bool
    """It began and neither finished, failed nor was undone."""


def now_text() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Journal:
    """Append-only; each line is on disk before the step that it announces begins."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def begin(self, kind: str, facts: Mapping[str, Any]) -> None:
        self._write({"event": "begin", "operation": kind, "facts": dict(facts)})

    def step(self, step: str) -> None:
        self._write({"event": "step", "step": step})

    def done(self, step: str) -> None:
        self._write({"event": "done", "step": step})

    def note(self, facts: Mapping[str, Any]) -> None:
        """Facts that became known while it went on."""
        self._write({"event": "note", "facts": dict(facts)})

    def end(self, outcome: str) -> None:
        """`outcome`: finished, failed, rolled back or undone."""
        self._write({"event": "end", "outcome": outcome})

    def _write(self, entry: dict[str, Any]) -> None:
        append_line(self._path, json.dumps({"at": now_text(), **entry}))

    def last(self) -> Operation | None:
        """The newest operation, None before the first. A torn last line is as if never written."""
        found: Operation | None = None
        for entry in read_lines(self._path):
            event = entry.get("event")
            if event == "begin":
                facts, none = entry.get("facts") or {}, frozenset[str]()
                found = Operation(str(entry.get("operation")), facts, none, none, open=True)
            elif found is not None and event in {"step", "done"}:
                step = {str(entry.get("step"))}
                done = found.done | (step if event == "done" else frozenset())
                found = replace(found, done=done, begun=found.begun | step)
            elif found is not None and event == "note":
                found = replace(found, facts={**found.facts, **(entry.get("facts") or {})})
            elif found is not None and event == "end":
                found = replace(found, open=False)
        return found

    def unfinished(self) -> Operation | None:
        last = self.last()
        return last if last is not None and last.open else None


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file of lines; nothing when it is not there."""
    try:
        content = path.read_text(errors="replace")
    except FileNotFoundError:
        return
    for line in content.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # torn by a power cut: its fsync never returned
        if isinstance(entry, dict):
            yield entry


@dataclass(frozen=True, slots=True)
class Made:
    """One thing that this installation made. Kinds:

    folder: removed when empty · file: removed when it is as it was made · link · settings: a file
    that is the administrator's from then on, kept without --purge · data: a folder with all that
    is in it, kept without --purge · tree: the folder of a version, its files in `Manifest.trees` ·
    account.
    """

    kind: str
    sha256: str = ""
    mode: str = ""
    owner: str = ""
    target: str = ""


class Manifest:
    """install-manifest.json: every path that was made, what is installed, which steps are done.

    Paths are those of the root that is installed into: `/opt/…` also below a --prefix. `trees` has
    for each version its files, with SHA-256 and mode. `steps` has for each step that was done a
    digest of what it was told.
    """

    def __init__(self, layout: Layout) -> None:
        path = layout.manifest
        self._layout, self._path = layout, path
        self.made: dict[str, Made] = {}
        self.trees: dict[str, dict[str, tuple[str, str]]] = {}
        self.steps: dict[str, str] = {}
        self.version: str = ""
        try:
            read = json.loads(path.read_bytes())
        except FileNotFoundError:
            return
        except ValueError as error:
            raise InstallerError(
                f"{path} is damaged: {error}.",
                next_step="Restore it from a backup of the system; without it nothing is removed.",
            ) from error
        self.version = str(read["version"])
        self.steps = dict(read["steps"])
        self.made = {name: Made(**row) for name, row in read["made"].items()}
        self.trees = {
            version: {name: (one[0], one[1]) for name, one in files.items()}
            for version, files in read["trees"].items()
        }

    @property
    def exists(self) -> bool:
        return self._path.exists()

    def save(self) -> None:
        rows = {
            name: {key: value for key, value in asdict(one).items() if value}
            for name, one in self.made.items()
        }
        whole = {
            "format": 1,
            "version": self.version,
            "steps": self.steps,
            "made": rows,
            "trees": self.trees,
        }
        write_whole(self._path, (json.dumps(whole, indent=1) + "\n").encode(), 0o600)

    def note(self, what: Path | str, made: Made) -> None:
        """Before it is made, and again when it is. What was there before us is not noted."""
        name = what if isinstance(what, str) else self._layout.inside(what)
        if self.made.get(name) != made:
            self.made[name] = made
            self.save()

    def has(self, path: Path) -> bool:
        return self._layout.inside(path) in self.made


def add_history(layout: Layout, entry: Mapping[str, Any]) -> None:
    append_line(layout.history, json.dumps({"at": now_text(), **entry}))
