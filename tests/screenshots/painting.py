"""A terminal's cells as a PNG: exact, each in its place, with few colours and so in few bytes."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont
from rich.cells import cell_len
from rich.style import Style
from textual.strip import Strip

_WIDTH: Final = 9  # of a cell, pixels
_HEIGHT: Final = 18
_SIZE: Final = 15  # of the letters; theirs are as wide as a cell
_FOLDERS: Final = ("/usr/share/fonts/truetype/dejavu", "/usr/share/fonts/dejavu-sans-mono-fonts")
_FORE: Final = (216, 216, 216)
_BACK: Final = (18, 18, 18)
_LEVELS: Final = "▁▂▃▄▅▆▇█"  # drawn, so that columns meet
_BRAILLE: Final = range(0x2800, 0x2900)
_DOTS: Final = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3))
_COLOURS: Final = 128

Colour = tuple[int, int, int]


class NoFont(Exception):
    """The letters are not on this machine."""


class Painter:
    """Letters of DejaVu Sans Mono. Raises NoFont where it is not installed."""

    def __init__(self) -> None:
        folder = next(
            (Path(f) for f in _FOLDERS if (Path(f) / "DejaVuSansMono.ttf").exists()), None
        )
        if folder is None:
            raise NoFont("DejaVu Sans Mono is not installed (Debian: fonts-dejavu-core).")
        plain = ImageFont.truetype(folder / "DejaVuSansMono.ttf", _SIZE)
        self._fonts = {False: plain, True: _bold(folder, plain)}

    def paint(self, strips: Iterable[Strip], size: tuple[int, int], path: Path) -> None:
        """Write the picture; one that is there already and the same stays as it is."""
        width, height = size
        image = Image.new("RGB", (width * _WIDTH, height * _HEIGHT), _BACK)
        pen = ImageDraw.Draw(image)
        for y, strip in enumerate(strips):
            x = 0
            for text, style, *_ in strip:
                for sign in text:
                    cells = cell_len(sign)
                    if cells:
                        self._cell(pen, x, y, sign, cells, style)
                        x += cells
        few = image.quantize(_COLOURS, dither=Image.Dither.NONE)
        path.parent.mkdir(parents=True, exist_ok=True)
        few.save(path, optimize=True)

    def _cell(
        self, pen: ImageDraw.ImageDraw, x: int, y: int, sign: str, cells: int, style: Style | None
    ) -> None:
        fore, back, bold, under = _seen(style)
        left, top = x * _WIDTH, y * _HEIGHT
        right, bottom = left + cells * _WIDTH - 1, top + _HEIGHT - 1
        pen.rectangle((left, top, right, bottom), fill=back)
        if sign in _LEVELS:
            rise = _HEIGHT * (_LEVELS.index(sign) + 1) // len(_LEVELS)
            pen.rectangle((left, bottom + 1 - rise, right, bottom), fill=fore)
        elif ord(sign) in _BRAILLE:
            for bit, (column, row) in enumerate(_DOTS):
                if (ord(sign) - _BRAILLE.start) >> bit & 1:
                    at_x, at_y = left + 1 + column * 4, top + 2 + row * 4
                    pen.rectangle((at_x, at_y, at_x + 2, at_y + 2), fill=fore)
        elif sign.strip():
            pen.text((left, top), sign, font=self._fonts[bold], fill=fore)
        if under:
            pen.line((left, bottom, right, bottom), fill=fore)


def _bold(folder: Path, plain: ImageFont.FreeTypeFont) -> ImageFont.FreeTypeFont:
    path = folder / "DejaVuSansMono-Bold.ttf"
    return ImageFont.truetype(path, _SIZE) if path.exists() else plain


def _seen(style: Style | None) -> tuple[Colour, Colour, bool, bool]:
    """Fore, back, bold, underlined."""
    if style is None:
        return _FORE, _BACK, False, False
    fore, back = _FORE, _BACK
    if style.color is not None and not style.color.is_default:
        fore = tuple(style.color.get_truecolor())  # type: ignore[assignment]  # three of them
    if style.bgcolor is not None and not style.bgcolor.is_default:
        back = tuple(style.bgcolor.get_truecolor(foreground=False))  # type: ignore[assignment]
    if style.reverse:
        fore, back = back, fore
    if style.dim:
        fore = tuple((f + b) // 2 for f, b in zip(fore, back, strict=True))  # type: ignore[assignment]
    return fore, back, bool(style.bold), bool(style.underline)
