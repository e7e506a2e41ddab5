"""Backups for tests of the admin API: none but those that were asked for."""

from appliance.wire.backups import Backup, BackupList


class FixedBackups:
    def __init__(self) -> None:
        self.made: list[tuple[str | None, str | None]] = []

    async def create(self, folder: str | None = None, passphrase: str | None = None) -> Backup:
        self.made.append((folder, passphrase))
        return Backup(
            path=f"{folder or '/backups'}/site-20261123T020000Z.clbackup",
            made_at="2026-11-23T02:00:00Z",
            product="0.1.0",
            size_bytes=4_096,
            protection="key" if passphrase is None else "passphrase",
            key_id="00112233aabbccdd" if passphrase is None else "",
            records=7,
            newest="1-3",
        )

    async def all(self) -> BackupList:
        backups = [await FixedBackups().create(*asked) for asked in self.made]
        return BackupList(
            folder="/backups", backups=backups, due_at=None, last_error="", key_kept=True
        )
