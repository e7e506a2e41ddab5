"""What commands print: JSON for programs, aligned plain tables for people.

`rich` is loaded where something is drawn for people; with --json a command is over before that.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import click
import msgspec

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

T = TypeVar("T")

# Tables are not folded where nobody's screen sets a width: programs cut and grep them.
_WIDTH_UNBOUND: Final = 10_000
_STATE_STYLES: Final = {
    "active": "green",
    "ready": "green",
    "ok": "green",
    "yes": "green",
    "starting": "yellow",
    "pending": "yellow",
    "expected": "yellow",
    "degraded": "yellow",
    "draining": "yellow",
    "retiring": "yellow",
    "backoff": "yellow",
    "aborted": "yellow",
    "suspended": "magenta",
    "expired": "magenta",
    "failed": "red",
    "unreachable": "red",
    "no": "red",
}
_STATE_FIELDS: Final = frozenset({"STATE", "STATUS", "READY", "OK"})


# Without slots: `Column[Row](…)` sets an attribute, which a frozen class with slots cannot refuse
# in the way that typing expects.
@dataclass(frozen=True)
class Column(Generic[T]):
    """A column of a table: its title and what it shows of a row."""

    title: str
    value: Callable[[T], object]
    right: bool = False  # numbers


def console(*, stderr: bool = False) -> "Console":
    """A console that takes every text as it is. NO_COLOR and pipes are respected by rich."""
    from rich.console import Console  # noqa: PLC0415 (see the top)

    file = sys.stderr if stderr else sys.stdout
    width = None if file.isatty() else _WIDTH_UNBOUND
    return Console(file=file, width=width, markup=False, emoji=False, highlight=False)


def print_json(value: object) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def print_rows(rows: Sequence[T], columns: Sequence[Column[T]], nothing: str) -> None:
    """One line for each row, or the sentence `nothing` on standard error."""
    if not rows:
        click.echo(nothing, err=True)
        return
    table = _table()
    for column in columns:
        table.add_column(column.title, justify="right" if column.right else "left")
    for row in rows:
        table.add_row(*(_cell(column.title, column.value(row)) for column in columns))
    _print_table(table)


def print_fields(fields: Iterable[tuple[str, object]]) -> None:
    """One line for each field: its name and its value."""
    table = _table(show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in fields:
        table.add_row(name, _cell(name.upper(), value))
    _print_table(table)


def fields_of(item: msgspec.Struct, *, omit: Sequence[str] = ()) -> Iterator[tuple[str, object]]:
    """The fields of a message in their order, nested ones as `limits.concurrency`."""
    for field in msgspec.structs.fields(item):
        if field.name in omit:
            continue
        value = getattr(item, field.name)
        if isinstance(value, msgspec.Struct):
            for name, nested in fields_of(value):
                yield f"{field.name}.{name}", nested
        else:
            yield field.name, value


def text(value: object) -> str:
    """A value for people: `-` for nothing, yes and no, lists with commas, times without the T."""
    match value:
        case None | "":
            return "-"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.1f}"
        case dict():
            return ", ".join(f"{name} {text(part)}" for name, part in value.items()) or "-"
        case list() | tuple():
            return ", ".join(text(part) for part in value) or "-"
        case _:
            return readable_time(str(value))


def readable_time(written: str) -> str:
    """`2026-11-22T19:22:03.250Z` -> `2026-11-22 19:22:03Z`; any other text stays as it is."""
    if len(written) == 24 and written[10] == "T" and written.endswith("Z"):
        return f"{written[:10]} {written[11:19]}Z"
    return written


def plain_text(said: str) -> str:
    """A line that comes from another machine: nothing in it commands this terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in said)


@contextmanager
def progress(message: str) -> Iterator[Callable[[str], None]]:
    """A spinner on standard error while something takes long; the callable changes its text.

    Where standard error is no terminal, nothing is printed.
    """
    with console(stderr=True).status(message) as status:
        yield status.update


def _table(**options: Any) -> "Table":
    from rich.table import Table  # noqa: PLC0415 (see the top)

    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), **options)


def _print_table(table: "Table") -> None:
    out = console()
    with out.capture() as captured:
        out.print(table)
    for line in captured.get().splitlines():
        click.echo(line.rstrip(), color=True)


def _cell(title: str, value: object) -> "Text":
    from rich.text import Text  # noqa: PLC0415 (see the top)

    shown = plain_text(text(value))
    style = _STATE_STYLES.get(shown, "") if title in _STATE_FIELDS else ""
    return Text(shown, style=style)
