"""What can go wrong with a backup.

BackupError
├── NoBackupKey      nothing was given that opens the file
├── NotABackup       the file is something else, or of a newer version
├── BackupDamaged    it opens, and what is inside is not whole
├── BackupNotWritten the folder cannot be written, or has no room
└── HomeInUse        a site runs there, or lies there and was not to be replaced
"""

from appliance.domain.errors import CrossLogicError


class BackupError(CrossLogicError):
    code = "backup_failed"


class NoBackupKey(BackupError):
    code = "backup_key_missing"


class NotABackup(BackupError):
    code = "not_a_backup"


class BackupDamaged(BackupError):
    code = "backup_damaged"


class BackupNotWritten(BackupError):
    code = "backup_not_written"


class HomeInUse(BackupError):
    code = "home_in_use"
