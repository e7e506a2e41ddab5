"""What a table shows: columns with a rank, and cells of text with a tone instead of a colour."""

from dataclasses import dataclass
from typing import Any, Literal

# A theme gives each tone its colour; what a tone says is always said by the text too.
Tone = Literal["plain", "dim", "good", "warn", "bad", "accent", "title"]

# A row of the admin API as it came: the fields of its message by name.
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cell:
    text: str
    tone: Tone = "plain"
    colour: str = (
        ""  # a partner's, as "#5fafd7"; where a theme says more than colour it is not used
    )


@dataclass(frozen=True, slots=True)
class Column:
    """`width` in cells, the least it needs. Columns that may grow take what is left: first those
    with a `most`, up to it. `newest`: of a text that is too long the end is shown.

    Priority 1 stays whatever the terminal; of the others the highest goes first.
    """

    key: str
    title: str
    width: int
    right: bool = False
    grow: bool = False
    priority: int = 1
    most: int = 0
    newest: bool = False
