"""Which columns of a table fit, and a text in its cells. Pure."""

from collections.abc import Sequence
from typing import Final

from rich.cells import cell_len

from console.cells import Column
from console.widgets.line import fit

MARK: Final = 2  # cells before the first column: the cursor, or a jump label


def lay_out(columns: Sequence[Column], width: int) -> tuple[tuple[int, Column, int, int], ...]:
    """Which columns fit into `width` cells: index, column, its x and its width. Pure.

    The least important ones go first; what is left over goes to the columns that may grow.
    """
    kept = list(enumerate(columns))

    def needed() -> int:
        return MARK + sum(column.width + 1 for _, column in kept)

    while needed() > width and any(column.priority > 1 for _, column in kept):
        worst = max(range(len(kept)), key=lambda at: (kept[at][1].priority, at))
        del kept[worst]
    spare = max(0, width - needed())
    wides = {index: column.width for index, column in kept}
    for index, column in sorted(
        kept, key=lambda each: each[1].most == 0
    ):  # those with an end first
        if column.grow:
            more = min(spare, column.most - column.width) if column.most else spare
            wides[index] += more
            spare -= more
    x = MARK
    laid_out = []
    for index, column in kept:
        laid_out.append((index, column, x, wides[index]))
        x += wides[index] + 1
    return tuple(laid_out)


def aligned(text: str, width: int, *, right: bool) -> str:
    """Exactly `width` cells."""
    text = fit(text, width)
    pad = " " * (width - cell_len(text))
    return pad + text if right else text + pad
