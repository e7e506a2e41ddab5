"""Settings as the admin API shows and changes them."""

import asyncio
from typing import Final

import msgspec

from appliance.admin.calls import Call, NoQuery, Route, Services
from appliance.admin.errors import BadRequest
from appliance.wire.settings import Setting, SettingsChange, SettingsChanged


async def list_settings(services: Services, _call: Call[NoQuery, None]) -> list[Setting]:
    return await asyncio.to_thread(services.upkeep.settings.rows)


async def change_settings(
    services: Services, call: Call[NoQuery, SettingsChange]
) -> SettingsChanged:
    """Checked as a whole, entered into the audit, written, and put into force where it can be."""
    if not call.body.set and not call.body.unset:
        raise BadRequest("No setting is named.", next_step="GET /v1/settings lists them.")
    desk = services.upkeep.settings
    groups = frozenset() if call.caller is None else frozenset(call.caller.groups)
    async with desk.lock:
        draft = await asyncio.to_thread(desk.draft, call.body, groups)
        if call.body.check or draft.content == draft.before:
            return draft.answer
        # First, so that no change is without its entry; what follows is one rename.
        await services.registry.audit.note(
            call.actor, "update", "settings", "settings", draft.answer.file, draft.audited
        )
        await asyncio.to_thread(desk.write, draft)
        desk.put_into_force()
    return msgspec.structs.replace(draft.answer, written=True)


ROUTES: Final = (
    Route(
        *("GET", "/v1/settings", "Every setting, with its source and meaning", list_settings),
        answer=list[Setting],
    ),
    Route(
        *("PATCH", "/v1/settings", "Change settings in the site's file", change_settings),
        answer=SettingsChanged,
        body=SettingsChange,
    ),
)
