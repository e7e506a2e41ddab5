"""What a terminal can do, from its environment. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

Colours = Literal["none", "16", "256", "truecolor"]

COLUMNS_MIN: Final = 80
LINES_MIN: Final = 24

# Terminals that have 16 colours at best and only some of the characters beyond ASCII.
_PLAIN_TERMS: Final = ("linux", "vt", "ansi", "cons", "pcansi", "sun", "wy", "hft", "xterm-mono")
_SERIAL_DEVICES: Final = ("/dev/ttyS", "/dev/ttyUSB", "/dev/ttyACM", "/dev/ttyAMA", "/dev/hvc")
_SLOW_S: Final = 2.0
_LIVE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Profile:
    """`dumb`: nothing can be painted there; the status is printed instead."""

    dumb: bool
    ascii: bool
    colours: Colours
    mouse: bool
    refresh_s: float

    @property
    def line_speed_low(self) -> bool:
        return self.refresh_s >= _SLOW_S


def profile_of(
    environ: Mapping[str, str],
    *,
    is_terminal: bool,
    device: str = "",
    ascii_only: bool = False,
    refresh_s: float | None = None,
) -> Profile:
    """`device` is the name of the terminal's file; options win over what is found."""
    term = environ.get("TERM", "")
    found = Profile(
        dumb=not is_terminal or term in ("", "dumb", "unknown"),
        ascii=False,
        colours=_colours(environ, term),
        mouse=True,
        refresh_s=_LIVE_S,
    )
    if term.startswith(_PLAIN_TERMS) or device.startswith(_SERIAL_DEVICES):
        colours: Colours = "none" if found.colours == "none" else "16"
        found = replace(found, ascii=True, colours=colours, mouse=False, refresh_s=_SLOW_S)
    if ascii_only or not _utf8(environ):
        found = replace(found, ascii=True)
    if refresh_s is not None:
        found = replace(found, refresh_s=refresh_s)
    return found


def _colours(environ: Mapping[str, str], term: str) -> Colours:
    # no-color.org: present and not empty.
    if environ.get("NO_COLOR"):
        return "none"
    if environ.get("COLORTERM", "") in ("truecolor", "24bit") or term.endswith("-direct"):
        return "truecolor"
    return "256" if "256" in term else "16"


def _utf8(environ: Mapping[str, str]) -> bool:
    """As setlocale(3) chooses: the first of the three that is set. None set is the C locale."""
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        value = environ.get(name)
        if value:
            return "utf-8" in value.lower() or "utf8" in value.lower()
    return False
