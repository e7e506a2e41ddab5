"""Settings of the site that are changed while it runs: short names, short texts, no secrets."""

import sqlite3
from typing import Final

from appliance.registry.errors import InvalidValue
from appliance.registry.names import check_name
from appliance.registry.store import Change, Store

KIND: Final = "setting"
VALUE_CHARS_MAX: Final = 4_096


class SiteSettings:
    __slots__ = ("_store",)

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, name: str) -> str | None:
        """None: not set."""
        return await self._store.read(lambda connection: read_setting(connection, name))

    async def set(self, actor: str, name: str, value: str | None) -> None:
        """None forgets the setting."""
        check_name(KIND, name)
        if value is not None and len(value) > VALUE_CHARS_MAX:
            raise InvalidValue(
                f"The value of {name!r} is too long.",
                next_step=f"Give at most {VALUE_CHARS_MAX} characters.",
            )

        def run(change: Change) -> None:
            before = read_setting(change.connection, name)
            if value == before:
                return
            if value is None:
                change.connection.execute("DELETE FROM settings WHERE name = ?", [name])
            else:
                change.connection.execute(
                    "INSERT OR REPLACE INTO settings VALUES (?, ?)", [name, value]
                )
            action = "create" if before is None else "delete" if value is None else "update"
            change.record(action, KIND, name, name, before, value)

        await self._store.change(actor, run)


def read_setting(connection: sqlite3.Connection, name: str) -> str | None:
    row = connection.execute("SELECT value FROM settings WHERE name = ?", [name]).fetchone()
    return None if row is None else str(row["value"])
