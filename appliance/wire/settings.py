"""The admin API's messages about the site's settings.

GET    /v1/settings            list[Setting]
PATCH  /v1/settings            SettingsChange -> SettingsChanged
"""

from typing import Literal

import msgspec

from appliance.wire.admin_message import Message

# file: config.toml. environment: a CIC_… variable of `cic serve`, which wins over the file.
# command: an option of `cic serve`, which wins over both.
SettingSource = Literal["default", "file", "environment", "command"]
SettingKind = Literal["text", "choice", "whole number", "number", "seconds", "bytes", "list"]


class Setting(Message, frozen=True, kw_only=True):
    """One setting. Values are texts as in a variable; `none`: not set."""

    name: str  # "timeouts.head_s"
    section: str
    value: str  # in force now
    default: str
    source: SettingSource  # of the value in force
    pending: str | None = None  # in force after the next start; None: the same value
    kind: SettingKind
    optional: bool = False  # takes `none`
    minimum: str = ""  # the least it may be; "" where nothing bounds it
    maximum: str = ""
    above: bool = False  # it must be more than `minimum`
    choices: tuple[str, ...] = ()
    meaning: str
    variable: str
    restart: bool  # a change is in force after the next start of the appliance


class SettingsChange(Message, frozen=True):
    """`set` and `unset` by name; texts as in a variable. `check`: say what it would do, no more."""

    set: dict[str, str] = msgspec.field(default_factory=dict)
    unset: tuple[str, ...] = ()
    check: bool = False


class SettingsChanged(Message, frozen=True):
    """What was written, and what is to be done for it to count."""

    file: str
    written: bool  # False: nothing was different, or it was only checked
    changed: list[str]  # names whose value in the file is another now
    restart: list[str]  # of them, those that wait for the next start
    warnings: list[str]  # a variable that wins, a group that is not there, ...


def takes(row: Setting) -> str:
    """`seconds, more than 0, at most 31536000`."""
    parts = [" | ".join(row.choices) or row.kind]
    if row.kind == "list":
        parts = ["words with commas between them"]
    if row.minimum:
        parts.append(f"{'more than' if row.above else 'at least'} {row.minimum}")
    if row.maximum:
        parts.append(f"at most {row.maximum}")
    if row.optional:
        parts.append("or none")
    return ", ".join(parts)
