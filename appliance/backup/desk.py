"""Backups of a running site: made when asked and by themselves, listed, the old ones removed."""

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from appliance.backup import container
from appliance.backup.container import Opening
from appliance.backup.errors import BackupError, NotABackup
from appliance.backup.taking import Taken, take
from appliance.backup.trial import head_of
from appliance.domain.clock import Clock, iso
from appliance.domain.errors import CrossLogicError
from appliance.security.secrets import SECRET_BYTES, read_secret, write_secret
from appliance.settings import Backups as BackupSettings
from appliance.wire.backups import Backup, BackupList
from appliance.wire.home import Home

_LOOK_S: Final = 60.0
_AGAIN_NS: Final = 3_600 * 10**9  # after one that failed
_KEPT_MARK: Final = "backup-key.given"

log = logging.getLogger(__name__)


class BackupDesk:
    """The newest one decides when the next is due, but none is before the site has run so long."""

    def __init__(
        self,
        home: Home,
        settings: BackupSettings,
        clock: Clock,
        *,
        site: str,
        product: str,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._home = home
        self._settings = settings
        self._clock = clock
        self._site = site
        self._product = product
        self._entropy = entropy
        self._started_ns = clock.wall_ns()
        self._not_before_ns = 0  # after a failure
        self._making = asyncio.Lock()
        self._last_error = ""
        self._task: asyncio.Task[None] | None = None

    @property
    def folder(self) -> Path:
        named = self._settings.folder
        return self._home.backups if named is None else Path(named)

    async def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def create(self, folder: str | None = None, passphrase: str | None = None) -> Backup:
        """One at a time. Raises BackupError."""
        async with self._making:
            place = self.folder if folder is None else Path(folder)
            taken = await asyncio.to_thread(self._take, place, passphrase)
            if place == self.folder:
                await asyncio.to_thread(self._remove_old)
            self._last_error = ""
        log.info(
            "backup made",
            extra={"path": str(taken.path), "bytes": taken.size_bytes},
        )
        return _shown(taken.path, taken)

    async def all(self) -> BackupList:
        backups = await asyncio.to_thread(self._listed)
        given = (self._home.state / _KEPT_MARK).exists()
        needs_key = any(backup.protection == "key" for backup in backups)
        next_step = ""
        if needs_key and not given:
            next_step = (
                "Nothing but this home has the key of these backups. Keep a copy elsewhere:"
                " `cic backup key --to FILE`."
            )
        due_ns = self._due_ns(backups)
        return BackupList(
            folder=str(self.folder),
            backups=backups,
            due_at=None if due_ns is None else iso(due_ns),
            last_error=self._last_error,
            key_kept=given,
            next_step=next_step,
        )

    def _take(self, folder: Path, passphrase: str | None) -> Taken:
        opening = (
            Opening(secret=site_key(self._home, self._entropy))
            if passphrase is None
            else Opening(passphrase=passphrase)
        )
        return take(
            *(self._home, folder, opening, self._clock),
            site=self._site,
            product=self._product,
            entropy=self._entropy,
        )

    def _listed(self) -> list[Backup]:
        try:
            files = sorted(self.folder.glob(f"*{container.SUFFIX}"))
        except OSError:
            return []
        found = []
        for path in files:
            try:
                found.append(_shown(path))
            except (BackupError, OSError):
                continue  # not one of ours, or removed meanwhile
        return sorted(found, key=lambda backup: backup.made_at, reverse=True)

    def _remove_old(self) -> None:
        for backup in self._listed()[self._settings.keep :]:
            Path(backup.path).unlink(missing_ok=True)
            log.info("old backup removed", extra={"path": backup.path})

    def _due_ns(self, backups: list[Backup]) -> int | None:
        if not self._settings.every_s:
            return None
        newest_ns = max((_moment_ns(Path(backup.path)) for backup in backups), default=0)
        return max(newest_ns, self._started_ns) + int(self._settings.every_s * 1e9)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                due_ns = self._due_ns(await asyncio.to_thread(self._listed))
                now_ns = self._clock.wall_ns()
                if due_ns is not None and now_ns >= max(due_ns, self._not_before_ns):
                    await self.create()
            except CrossLogicError as error:
                self._last_error = error.message
                self._not_before_ns = self._clock.wall_ns() + _AGAIN_NS
                log.warning("backup failed", extra={"code": error.code, "reason": error.message})
            # The boundary of one look: a defect must not end backups for good.
            except Exception:
                log.exception("backup failed")


def site_key(home: Home, entropy: Callable[[int], bytes] = os.urandom) -> bytes:
    """The key of this site's backups; made at first. Raises SecurityError."""
    if not home.backup_key_file.exists():
        write_secret(home.backup_key_file, entropy(SECRET_BYTES))
    return read_secret(home.backup_key_file)


def note_given(home: Home) -> None:
    """Remember that the key was given out."""
    (home.state / _KEPT_MARK).touch(mode=0o600)


def _moment_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _shown(path: Path, taken: Taken | None = None) -> Backup:
    head = head_of(path)
    try:
        size = path.stat().st_size
    except OSError as error:
        raise NotABackup(f"{path} cannot be read: {error.strerror}.") from error
    return Backup(
        path=str(path),
        made_at=head.made_at,
        product=head.product,
        size_bytes=size,
        protection=head.protection,
        key_id=head.key_id,
        records=None if taken is None else taken.index.records,
        newest=None if taken is None else taken.index.newest,
    )
