"""A line of figures as one line of characters. Pure."""

from collections.abc import Sequence
from typing import Final

_HEIGHTS: Final = "▁▂▃▄▅▆▇█"


def spark(values: Sequence[float | None], width: int, *, top: float | None = None) -> str:
    """The last `width` values, oldest first, from 0 to the largest (or `top`). None is a gap."""
    shown = list(values)[-width:] if width > 0 else []
    largest = max((value for value in shown if value is not None), default=0.0)
    scale = top if top is not None else largest
    text = "".join(" " if value is None else _height(value, scale) for value in shown)
    return text.rjust(width)


def _height(value: float, scale: float) -> str:
    if scale <= 0 or value <= 0:
        return _HEIGHTS[0]
    return _HEIGHTS[min(len(_HEIGHTS) - 1, int(min(1.0, value / scale) * len(_HEIGHTS)))]
