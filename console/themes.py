"""Colours. A theme gives each tone its style; the word beside it says the same without colour."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from rich.style import Style
from textual.theme import Theme

from console.cells import Tone


@dataclass(frozen=True, slots=True)
class Look:
    """A Textual theme, and the styles of tones in the notation of rich.

    `cursor` is laid over the row that is selected, `strip` under the header and the footer.
    """

    theme: Theme
    tones: Mapping[Tone, str]
    cursor: str
    strip: str
    what: str


def _theme(name: str, *, dark: bool, colours: Mapping[str, str]) -> Theme:
    return Theme(name=f"cic-{name}", dark=dark, **colours)  # type: ignore[arg-type]  # colours are str


LOOKS: Final[Mapping[str, Look]] = {
    "dark": Look(
        _theme(
            "dark",
            dark=True,
            colours={
                "primary": "#5fafd7",
                "background": "#121212",
                "surface": "#1c1c1c",
                "panel": "#262626",
                "foreground": "#d7d7d7",
                "warning": "#ffaf5f",
                "error": "#ff5f5f",
                "success": "#87d787",
                "accent": "#5fd7d7",
            },
        ),
        {
            "plain": "",
            "dim": "#8a8a8a",
            "good": "#87d787",
            "warn": "#ffaf5f",
            "bad": "bold #ff6b6b",
            "accent": "#5fd7d7",
            "title": "bold #87afd7",
        },
        cursor="on #303a46",
        strip="#d7d7d7 on #262626",
        what="light on dark",
    ),
    "light": Look(
        _theme(
            "light",
            dark=False,
            colours={
                "primary": "#005f87",
                "background": "#fafafa",
                "surface": "#f0f0f0",
                "panel": "#e4e4e4",
                "foreground": "#1c1c1c",
                "warning": "#875f00",
                "error": "#af0000",
                "success": "#005f00",
                "accent": "#005f87",
            },
        ),
        {
            "plain": "",
            "dim": "#626262",
            "good": "#005f00",
            "warn": "#875000",
            "bad": "bold #af0000",
            "accent": "#005f87",
            "title": "bold #003f6f",
        },
        cursor="on #d0dce8",
        strip="#1c1c1c on #dadada",
        what="dark on light",
    ),
    "contrast": Look(
        _theme(
            "contrast",
            dark=True,
            colours={
                "primary": "#ffffff",
                "background": "#000000",
                "surface": "#000000",
                "panel": "#000000",
                "foreground": "#ffffff",
                "warning": "#ffff00",
                "error": "#ff8080",
                "success": "#00ff00",
                "accent": "#00ffff",
            },
        ),
        {
            "plain": "#ffffff",
            "dim": "#e4e4e4",
            "good": "bold #00ff00",
            "warn": "bold #ffff00",
            "bad": "bold #000000 on #ff8080",
            "accent": "bold #00ffff",
            "title": "bold #ffffff",
        },
        cursor="bold #000000 on #ffffff",
        strip="bold #000000 on #ffffff",
        what="the highest contrast, 7:1 and more",
    ),
    # Okabe and Ito's colours, which people of the common kinds of colour blindness tell apart.
    "colour-blind": Look(
        _theme(
            "colour-blind",
            dark=True,
            colours={
                "primary": "#56b4e9",
                "background": "#101010",
                "surface": "#1a1a1a",
                "panel": "#242424",
                "foreground": "#e4e4e4",
                "warning": "#f0e442",
                "error": "#e69f00",
                "success": "#56b4e9",
                "accent": "#cc79a7",
            },
        ),
        {
            "plain": "",
            "dim": "#9e9e9e",
            "good": "#56b4e9",
            "warn": "#f0e442",
            "bad": "bold #e69f00",
            "accent": "#cc79a7",
            "title": "bold #e4e4e4",
        },
        cursor="on #303a46",
        strip="#e4e4e4 on #242424",
        what="told apart by people who are colour-blind",
    ),
    # The terminal's own 16 colours, or none: what attributes alone can say.
    "terminal": Look(
        _theme(
            "terminal",
            dark=True,
            colours={
                "primary": "ansi_blue",
                "background": "ansi_default",
                "surface": "ansi_default",
                "panel": "ansi_default",
                "foreground": "ansi_default",
                "warning": "ansi_yellow",
                "error": "ansi_red",
                "success": "ansi_green",
                "accent": "ansi_cyan",
            },
        ),
        {
            "plain": "",
            "dim": "",
            "good": "green",
            "warn": "yellow",
            "bad": "bold red",
            "accent": "cyan",
            "title": "bold",
        },
        cursor="reverse",
        strip="reverse",
        what="the 16 colours of the terminal itself",
    ),
}
DEFAULT: Final = "dark"


@cache
def tone_style(look: str, tone: Tone) -> Style:
    return Style.parse(LOOKS[look].tones[tone])


@cache
def cursor_style(look: str) -> Style:
    return Style.parse(LOOKS[look].cursor)


@cache
def strip_style(look: str) -> Style:
    return Style.parse(LOOKS[look].strip)
