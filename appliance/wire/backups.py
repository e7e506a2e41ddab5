"""The admin API's messages about backups.

GET    /v1/backups     BackupList
POST   /v1/backups     BackupCreate -> Backup
"""

from appliance.wire.admin_message import Message


class Backup(Message, frozen=True):
    """A file. `protection`: passphrase or key; `key_id` says which key, "" for a passphrase."""

    path: str
    made_at: str
    product: str
    size_bytes: int
    protection: str
    key_id: str
    records: int | None = None  # of the ledger; null where it was not opened
    newest: str | None = None  # its newest manifest, EPOCH-SEQ


class BackupCreate(Message, frozen=True):
    """`folder` null: the settings', else the home's own. `passphrase` null: the site's key."""

    folder: str | None = None
    passphrase: str | None = None


class BackupList(Message, frozen=True):
    """Newest first. `due_at` null: none is made by itself."""

    folder: str
    backups: list[Backup]
    due_at: str | None
    last_error: str
    key_kept: bool  # the backup key was given out, as far as this site knows
    next_step: str = ""
