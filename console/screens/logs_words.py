"""Log lines, entries of the audit, alerts and events as cells and sentences. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from appliance.wire.admin import AuditEntry
from appliance.wire.log_lines import LogLine
from console.cells import Cell, Row, Tone
from console.screens.ops_words import Line, field
from console.words import MISSING, ago, clock_time, day_time, moment, plural

_LEVELS: Final[Mapping[str, tuple[str, Tone]]] = {
    "debug": ("○ debug", "dim"),
    "info": ("● info", "plain"),
    "warning": ("▲ warning", "warn"),
    "error": ("✖ error", "bad"),
    "critical": ("✖ critical", "bad"),
    "fatal": ("✖ fatal", "bad"),
}
_NOTHING: Final = frozenset({"", "null", "[]", "{}"})  # not worth a word in a sentence
_WORST_FIRST: Final = ("fatal", "error", "warning", "info")


def level(word: object) -> Cell:
    """Of a log line, an alert or an event; a word that is not known is shown as it came."""
    return Cell(*_LEVELS.get(str(word), (str(word or MISSING), "plain")))


def printable(text: object) -> str:
    """What somebody else wrote does not command this terminal, and stays in its line."""
    return "".join(sign if sign.isprintable() else " " for sign in str(text))


# The log.


def log_row(line: LogLine) -> Row:
    told = " ".join(f"{name}={_value(raw)}" for name, raw in line.fields.items())
    return {
        "at": line.at,
        "level": line.level,
        "logger": line.logger.removeprefix("appliance."),
        "event": printable(f"{line.event} {told}".rstrip()),
        "line": line,
    }


def log_cells(_row_id: str, row: Row) -> Sequence[Cell]:
    dim: Tone = "dim" if row["level"] == "debug" else "plain"
    return (
        Cell(clock_time(row["at"]), "dim"),
        level(row["level"]),
        Cell(row["logger"], "dim"),
        Cell(row["event"], dim),
    )


def log_text(line: LogLine) -> str:
    """A line in full, one fact a line; tracebacks keep their lines."""
    lines = [f"{line.at}  {line.level}  {line.logger}", "", printable(line.event)]
    for name, raw in line.fields.items():
        value = _value(raw)
        if "\n" in value:
            lines += ["", f"{name}:", *(f"  {printable(part)}" for part in value.split("\n"))]
        else:
            lines.append(f"  {name}: {printable(value)}")
    return "\n".join(lines)


def _value(raw: msgspec.Raw) -> str:
    value = msgspec.json.decode(raw)
    return value if isinstance(value, str) else bytes(raw).decode()


# The audit.


def audit_row(entry: AuditEntry) -> Row:
    return {
        "seq": entry.seq,
        "at": entry.at,
        "who": printable(entry.actor),
        "action": entry.action,
        "kind": entry.object_kind,
        "name": printable(entry.object_name),
        "id": entry.object_id,
        "entry": entry,
    }


def audit_cells(_row_id: str, row: Row) -> Sequence[Cell]:
    refused = "refuse" in row["action"]
    return (
        Cell(str(row["seq"]), "dim"),
        Cell(day_time(row["at"]), "dim"),
        Cell(row["who"]),
        Cell(row["action"], "warn" if refused else "plain"),
        Cell(row["kind"], "dim"),
        Cell(row["name"] or MISSING),
        Cell(row["id"], "dim"),
    )


def differences(before: Any, after: Any) -> Iterator[tuple[str, str, str]]:
    """Name, value before, value after, of what differs; "" where there was or is no such value."""
    old, new = _flat(before), _flat(after)
    for name in [*old, *(each for each in new if each not in old)]:
        was, now = old.get(name, ""), new.get(name, "")
        if was != now or name not in old or name not in new:
            yield name, was, now


def same(before: Any, after: Any) -> int:
    """How many values did not change."""
    old, new = _flat(before), _flat(after)
    return sum(1 for name, value in old.items() if new.get(name) == value)


def _flat(value: Any, name: str = "") -> dict[str, str]:
    """`{"a": {"b": 1}}` is `{"a.b": "1"}`."""
    if isinstance(value, dict) and value:
        found: dict[str, str] = {}
        for key, each in value.items():
            found |= _flat(each, f"{name}.{key}" if name else str(key))
        return found
    if value is None and not name:
        return {}
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return {name or "value": printable(text)}


def change_of(entry: AuditEntry) -> str:
    """In a sentence, for the line under the table."""
    if entry.before is None and entry.after is None:
        return "Nothing is told with it."
    found = list(differences(entry.before, entry.after))
    if entry.before is None:
        return "; ".join(f"{name} {now}" for name, _, now in found if now not in _NOTHING)
    if entry.after is None:
        return f"It is no more; {plural(len(found), 'value')} of it was known."
    told = [f"{name}: {was or MISSING} → {now or MISSING}" for name, was, now in found]
    return "; ".join(told) or "No value is different."


# Alerts and events.


def alert_key(row_id: str, row: Row, column: str) -> Any:
    if column == "severity":
        word = str(row.get("severity"))
        rank = _WORST_FIRST.index(word) if word in _WORST_FIRST else len(_WORST_FIRST)
        return (row.get("acknowledged_at") is not None, rank, str(row.get("since")), row_id)
    return str(row.get("since" if column == "age" else column) or "")


def alert_lines(row: Row, width: int, now: Any) -> list[Line]:
    """Everything of an alert; nothing of it is cut."""
    lines = field("what", printable(row.get("text", "")), width)
    step = str(row.get("next_step") or "")
    if step:
        lines += field("do", printable(step), width, "accent")
    since = row.get("since")
    lines += field("since", f"{day_time(since)} UTC, {ago(since, now)}", width, "dim")
    if row.get("acknowledged_at"):
        who = printable(row.get("acknowledged_by") or "somebody")
        told = f"by {who}, {day_time(row['acknowledged_at'])} UTC; it ends when its cause does"
        lines += field("known", told, width, "dim")
    return lines


def event_cells(_row_id: str, row: Row) -> Sequence[Cell]:
    return (
        Cell(_day_and_second(row.get("at")), "dim"),
        level(row.get("severity")),
        Cell(str(row.get("kind", "")), "dim"),
        Cell(printable(row.get("text", ""))),
    )


def _day_and_second(text: Any) -> str:
    at = moment(text)
    return MISSING if at is None else at.strftime("%d %H:%M:%S")


def event_key(row_id: str, row: Row, column: str) -> Any:
    if column == "at":
        return row.get("seq") or 0
    return (str(row.get(column, "")), row.get("seq") or 0, row_id)
