"""What is told of each setting, and what a change of some would do. Pure.

Values are texts as in a variable, so that one way of writing serves the file's editor, the
command and the console.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Annotated, Any, Final, Literal, get_args, get_origin
from urllib.parse import urlsplit

import msgspec

from appliance.settings import ENVIRONMENT_PREFIX, Settings, Sourced
from appliance.wire.setting_meanings import MEANINGS
from appliance.wire.settings import Setting, SettingKind, SettingSource

NONE: Final = "none"
# Read anew when they change; everything else is built into what runs.
AT_ONCE: Final = frozenset({"log.level", "access.viewers", "access.operators", "access.admins"})
_ADDRESSES: Final = ("gateway.listen", "nodes.listen", "metrics.listen")
_NAME_CHARS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Fact:
    """One setting as it is declared."""

    name: str
    kind: SettingKind
    optional: bool
    default: object
    minimum: str = ""
    maximum: str = ""
    above: bool = False
    choices: tuple[str, ...] = ()

    @property
    def variable(self) -> str:
        return f"{ENVIRONMENT_PREFIX}{self.name.replace('.', '_')}".upper()

    def of(self, settings: Settings) -> object:
        section, _, name = self.name.partition(".")
        return getattr(getattr(settings, section), name)


def facts() -> Iterator[Fact]:
    """Every setting, in the order of the tables."""
    for section in msgspec.structs.fields(Settings):
        for field in msgspec.structs.fields(section.type):
            yield _fact(f"{section.name}.{field.name}", field)


def _fact(name: str, field: Any) -> Fact:
    bare, bounds = _bare(field.type)
    optional = NoneType in get_args(bare)
    if optional:
        (bare, bounds) = _bare(next(a for a in get_args(bare) if a is not NoneType))
    least = bounds.gt if bounds is not None and bounds.gt is not None else None
    return Fact(
        name=name,
        kind=_kind(name, bare),
        optional=optional,
        default=field.default,
        minimum=_figure(least if least is not None else bounds and bounds.ge),
        maximum=_figure(bounds and bounds.le),
        above=least is not None,
        choices=tuple(map(str, get_args(bare))) if get_origin(bare) is Literal else (),
    )


def _bare(kind: Any) -> tuple[Any, msgspec.Meta | None]:
    """A type without its bounds, and the bounds."""
    if get_origin(kind) is Annotated:
        bare, *extra = get_args(kind)
        return bare, next((e for e in extra if isinstance(e, msgspec.Meta)), None)
    return kind, None


def _kind(name: str, bare: Any) -> SettingKind:
    if get_origin(bare) is tuple:
        return "list"
    if get_origin(bare) is Literal:
        return "choice"
    if bare is int:
        return "bytes" if "bytes" in name else "whole number"
    if bare is float:
        return "seconds" if name.endswith(("_s", "_s_max")) else "number"
    return "text"


def _figure(bound: float | None) -> str:
    return "" if bound is None else text_of(bound)


def text_of(value: object) -> str:
    """A value as a variable would have it."""
    match value:
        case None | ():
            return NONE
        case tuple():
            return ",".join(map(str, value))
        case float() if value.is_integer():
            return str(int(value))
        case _:
            return str(value)


def shown(value: object) -> str:
    """The same for people: a password in a URL is nobody's to see."""
    text = text_of(value)
    if "@" in text and "://" in text:
        parts = urlsplit(text)
        if parts.password is not None:
            return text.replace(f":{parts.password}@", ":***@", 1)
    return text


def describe(
    running: Settings, started: Sourced, now: Sourced | None, *, serving: bool
) -> list[Setting]:
    """Every setting: as it runs, where that came from, and what the next start would make of it.

    `started` is what file and environment said at the start; `now` what they say now, None where
    that is not understood. Not `serving`: nothing runs, so nothing is pending.
    """
    rows = []
    for fact in facts():
        value = fact.of(running)
        source = _source(fact, value, started, now)
        waits_not = now is None or not serving or source == "command"
        pending = None if now is None else fact.of(now.settings)
        rows.append(
            Setting(
                name=fact.name,
                section=fact.name.partition(".")[0],
                value=shown(value),
                default=shown(fact.default),
                source=source,
                pending=None if waits_not or pending == value else shown(pending),
                kind=fact.kind,
                optional=fact.optional,
                minimum=fact.minimum,
                maximum=fact.maximum,
                above=fact.above,
                choices=fact.choices,
                meaning=MEANINGS.get(fact.name, ""),
                variable=fact.variable,
                restart=fact.name not in AT_ONCE,
            )
        )
    return rows


def _source(fact: Fact, value: object, started: Sourced, now: Sourced | None) -> SettingSource:
    """Who said what is in force: what was changed at once was said later than at the start."""
    for told in (now if fact.name in AT_ONCE else None, started):
        if told is not None and value == fact.of(told.settings):
            if fact.name in told.variables:
                return "environment"
            return "file" if fact.name in told.in_file else "default"
    return "command"


def adopt(running: Settings, now: Settings) -> Settings:
    """What runs, with those of `now` that are in force at once."""
    for name in AT_ONCE:
        section, _, rest = name.partition(".")
        table = msgspec.structs.replace(
            getattr(running, section), **{rest: getattr(getattr(now, section), rest)}
        )
        running = msgspec.structs.replace(running, **{section: table})
    return running


def defect(settings: Settings) -> str:
    """Why a site with these settings would not start, although each is of its type; else ""."""
    for name in _ADDRESSES:
        section, _, rest = name.partition(".")
        address = getattr(getattr(settings, section), rest)
        if address is not None and not _is_address(address):
            return f"{name} = {address!r} is not HOST:PORT, as 127.0.0.1:8080 or [::1]:8080."
    name = settings.site.name
    if not (name.isprintable() and name.strip() == name and 0 < len(name) <= _NAME_CHARS_MAX):
        return f"site.name is 1 to {_NAME_CHARS_MAX} printable characters."
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", settings.site.region):
        return "site.region begins with a letter or figure; letters, figures, . _ - follow."
    url = settings.sync.control_plane_url
    if url is not None and urlsplit(url).scheme not in {"http", "https"}:
        return f"sync.control_plane_url = {url!r} is no https URL."
    return ""


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    digits = port.isascii() and port.isdecimal()
    return bool(host) and digits and int(port) <= 65_535 and (":" not in host or host[0] == "[")


def differing(before: Settings, after: Settings) -> list[str]:
    """Names of the settings that are not the same."""
    return [fact.name for fact in facts() if fact.of(before) != fact.of(after)]


def told_change(
    before: Settings | None, after: Settings, names: Sequence[str]
) -> Mapping[str, list[str]]:
    """For the audit: each name with its two values; before is "?" where it was not understood."""
    by_name = {fact.name: fact for fact in facts()}
    return {
        name: [
            "?" if before is None or name not in by_name else shown(by_name[name].of(before)),
            shown(by_name[name].of(after)) if name in by_name else NONE,
        ]
        for name in names
    }
