"""How much of something is used, as a bar of characters. Pure."""

from console.cells import Cell, Tone

_WARN: float = 0.8


def bar(used: float | None, whole: float | None, width: int) -> list[Cell]:
    """`width` cells, filled as far as it is used; its tone warns from 80% on. Empty: not known."""
    if used is None or not whole:
        return [Cell("░" * width, "dim")]
    share = max(0.0, used / whole)
    full = int(min(1.0, share) * width + 0.5)
    tone: Tone = "bad" if share >= 1 else "warn" if share >= _WARN else "good"
    return [Cell("█" * full, tone), Cell("░" * (width - full), "dim")]
