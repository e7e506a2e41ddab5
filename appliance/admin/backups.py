"""Backups over the admin API. Restoring is for a site that does not run: `cic backup restore`."""

from pathlib import Path
from typing import Final

from appliance.admin.calls import Call, NoQuery, Route, Services
from appliance.admin.errors import BadRequest
from appliance.wire.backups import Backup, BackupCreate, BackupList


async def list_backups(services: Services, _call: Call[NoQuery, None]) -> BackupList:
    return await services.backups.all()


async def create_backup(services: Services, call: Call[NoQuery, BackupCreate]) -> Backup:
    """Audited without its passphrase."""
    body = call.body
    if body.folder is not None and not Path(body.folder).is_absolute():
        raise BadRequest(f"The folder '{body.folder}' does not begin at the root.")
    if body.passphrase is not None and not body.passphrase.strip():
        raise BadRequest("The passphrase is empty.")
    made = await services.backups.create(body.folder, body.passphrase)
    await services.registry.audit.note(
        call.actor, "create", "backup", made.path, Path(made.path).name, made
    )
    return made


ROUTES: Final = (
    Route("GET", "/v1/backups", "List backups, and when the next is due", list_backups, BackupList),
    Route(
        *("POST", "/v1/backups", "Make a backup now", create_backup, Backup),
        body=BackupCreate,
        status=201,
        role="operator",
    ),
)
