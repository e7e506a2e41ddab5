"""The site's settings file: read beside what runs, and changed without losing a comment of it."""

import asyncio
import grp
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import tomlkit
from tomlkit.exceptions import TOMLKitError

from appliance.admin.errors import SettingRefused, SettingsNotWritten
from appliance.admin.settings_facts import (
    AT_ONCE,
    NONE,
    adopt,
    defect,
    describe,
    differing,
    facts,
    told_change,
)
from appliance.settings import (
    Settings,
    SettingsError,
    Sourced,
    read_file,
    read_sourced,
    value_of,
)
from appliance.wire.settings import Setting, SettingsChange, SettingsChanged

_MODE: Final = 0o640
Apply = Callable[[Settings], None]


@dataclass(frozen=True, slots=True)
class Draft:
    """A change that was worked out and found good. `content` is the whole new file."""

    before: bytes
    content: bytes
    settings: Settings  # after the next start
    answer: SettingsChanged
    audited: Mapping[str, list[str]]


class SettingsDesk:
    """Reads and changes the file. Its methods block for the disk, but for `lock`.

    `running` is what the site was started with; `apply` puts what counts at once into force.
    Without `running` nothing runs, and the file is all there is.
    """

    def __init__(
        self,
        config_file: Path,
        environ: Mapping[str, str],
        running: Settings | None,
        apply: Apply = lambda _settings: None,
    ) -> None:
        # A link stays one: what is replaced is the file behind it.
        self._file = config_file.resolve()
        self._environ = dict(environ)
        self._apply = apply
        self._serving = running is not None
        self._started = self._at_start(environ)
        self._running = self._started.settings if running is None else running
        self.lock = asyncio.Lock()  # one change at a time

    @property
    def running(self) -> Settings:
        """What is in force now."""
        return self._running

    def rows(self) -> list[Setting]:
        """Every setting. A file that is not understood any more leaves out what is pending.

        Raises SettingsError where nothing runs: then the file is all there is.
        """
        try:
            now = self._now(read_file(self._file))
        except SettingsError:
            if not self._serving:
                raise
            now = None
        return describe(self._running, self._started, now, serving=self._serving)

    def waiting(self) -> list[str]:
        """Names that the next start would change. Raises SettingsError: it would not start."""
        now = self._now(read_file(self._file))
        by_command = set(differing(self._started.settings, self._running)) - AT_ONCE
        return [n for n in differing(self._running, now.settings) if n not in by_command]

    def draft(self, change: SettingsChange, caller_groups: frozenset[str] = frozenset()) -> Draft:
        """Work out a change. Raises SettingRefused or SettingsError; nothing is written."""
        before = read_file(self._file)
        content = edited(before, change, self._file)
        now = self._now(content)
        if fault := defect(now.settings):
            raise SettingRefused(fault, next_step="`cic settings show NAME` says what it takes.")
        old = self._before(before)
        named = sorted({*change.set, *change.unset})
        changed = named if old is None else differing(old, now.settings)
        answer = SettingsChanged(
            file=str(self._file),
            written=False,
            changed=changed,
            restart=[n for n in changed if self._serving and n not in AT_ONCE],
            warnings=warnings(change, now, caller_groups),
        )
        return Draft(before, content, now.settings, answer, told_change(old, now.settings, changed))

    def write(self, draft: Draft) -> None:
        """Put the file in place of the old one, in one step. Raises SettingsNotWritten."""
        if read_file(self._file) != draft.before:
            raise SettingsNotWritten(
                f"{self._file} was changed by somebody else in this moment.",
                next_step="Look at it, and do it again.",
            )
        try:
            replace_file(self._file, draft.content)
        except OSError as error:
            raise SettingsNotWritten(
                f"Cannot write {self._file}: {error.strerror}.",
                next_step="It and its folder must be writable for the account that serves.",
            ) from error
        self._running = adopt(self._running, draft.settings)

    def put_into_force(self) -> None:
        """On the event loop: what counts without a start."""
        self._apply(self._running)

    def _now(self, content: bytes) -> Sourced:
        return read_sourced(content, self._file, self._environ)

    def _before(self, content: bytes) -> Settings | None:
        """What the old file makes; None: it is not understood."""
        try:
            return self._now(content).settings
        except SettingsError:
            return None

    def _at_start(self, environ: Mapping[str, str]) -> Sourced:
        try:
            return read_sourced(read_file(self._file), self._file, environ)
        except SettingsError:
            if self._serving:
                raise
            return read_sourced(b"", self._file, {})  # it is here to be mended


def edited(content: bytes, change: SettingsChange, file: Path) -> bytes:
    """The file with the change in it; comments, order and everything else stay.

    Raises SettingRefused: no such setting, a value it does not take, a file that is no TOML.
    """
    known = {fact.name: fact for fact in facts()}
    try:
        document = tomlkit.parse(content)
    except (TOMLKitError, UnicodeDecodeError) as error:
        raise SettingRefused(
            f"{file} is not valid TOML: {error}.", next_step="Correct it by hand first."
        ) from error
    for name in (*change.set, *change.unset):
        # What is no setting may stand there by mistake, and is to be taken away.
        if name not in known and not (name in change.unset and _is_there(document, name)):
            near = [k for k in known if k.partition(".")[2] == name.rpartition(".")[2]]
            raise SettingRefused(
                f"{name} is not a setting.",
                next_step=f"Perhaps {' or '.join(near)}." if near else "See `cic settings list`.",
            )
    for name in change.unset:
        _remove(document, name)
    for name, text in change.set.items():
        try:
            value = value_of(name, text)
        except SettingsError as error:
            raise SettingRefused(
                error.message, next_step=f"`cic settings show {name}` says what it takes."
            ) from error
        if value is None:
            _remove(document, name)
        else:
            _put(document, name, value)
    return tomlkit.dumps(document).encode()


def _put(document: Any, name: str, value: object) -> None:
    section, _, rest = name.partition(".")
    if section not in document:
        document[section] = tomlkit.table()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    document[section][rest] = list(value) if isinstance(value, tuple) else value


def _is_there(document: Any, name: str) -> bool:
    section, _, rest = name.partition(".")
    table = document.get(section)
    return rest in table if isinstance(table, dict) else False


def _remove(document: Any, name: str) -> None:
    section, _, rest = name.partition(".")
    if _is_there(document, name):
        del document[section][rest]


def warnings(change: SettingsChange, now: Sourced, caller_groups: frozenset[str]) -> list[str]:
    """What the change does not say of itself."""
    told = []
    by_name = {fact.name: fact for fact in facts()}
    for name in (*change.set, *change.unset):
        variable = now.variables.get(name)
        if variable is not None:
            told.append(f"{variable} in the environment goes before the file: {name} stays.")
    access = now.settings.access
    for name in ("access.viewers", "access.operators", "access.admins"):
        if change.set.get(name, NONE) != NONE:
            groups = by_name[name].of(now.settings)
            assert isinstance(groups, tuple)  # as declared
            told += [f"This host has no group {g!r}." for g in groups if not _is_group(g)]
    mapped = access.viewers or access.operators or access.admins
    if mapped and any(name.startswith("access.") for name in (*change.set, *change.unset)):
        if not access.admins:
            told.append("No group has the role admin: only root and the serving account do.")
        elif caller_groups and caller_groups.isdisjoint(access.admins):
            told.append("You are in none of the groups with the role admin.")
    ca_file = now.settings.sync.ca_file
    if "sync.ca_file" in change.set and ca_file is not None and not Path(ca_file).is_file():
        told.append(f"{ca_file} is not there, or may not be read.")
    return told


def _is_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def replace_file(file: Path, content: bytes) -> None:
    """Durably; the mode of the old file stays. A crash leaves the old file or the new one."""
    temporary = file.with_name(f".{file.name}.new")
    temporary.unlink(missing_ok=True)
    mode = file.stat().st_mode & 0o777 if file.exists() else _MODE
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as handle:  # noqa: PTH123 (opens a descriptor, not a path)
        os.fchmod(descriptor, mode)
        if file.exists() and os.geteuid() == 0:
            status = file.stat()
            os.fchown(descriptor, status.st_uid, status.st_gid)
        handle.write(content)
        handle.flush()
        os.fsync(descriptor)
    temporary.replace(file)
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
