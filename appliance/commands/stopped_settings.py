"""Settings of a site that does not run: one that would not start must be mended without it."""

import os

import msgspec

from appliance import lock
from appliance.admin.peer import account
from appliance.admin.settings_desk import SettingsDesk
from appliance.domain.clock import SystemClock
from appliance.registry.registry import note_stopped
from appliance.wire.home import Home
from appliance.wire.settings import SettingsChange, SettingsChanged


def change_stopped(home: Home, change: SettingsChange) -> SettingsChanged:
    """The same checks and the same entry in the audit; nobody starts the site meanwhile."""
    with lock.held(home.lock_file):
        desk = SettingsDesk(home.config_file, os.environ, None)
        draft = desk.draft(change)
        if change.check or draft.content == draft.before:
            return draft.answer
        note_stopped(
            *(home.registry_file, SystemClock(), account(os.getuid()), "update", "settings"),
            *(draft.answer.file, draft.audited),
        )
        desk.write(draft)
    return msgspec.structs.replace(draft.answer, written=True)
