"""The tables of the live stream: what each row is, and which of its fields changed when. Pure.

A version is given to the whole each time anything changed. Who has seen version V is told every
field that has a newer one, and every row that ended since.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from appliance.wire.stream import Change, Row, Topic

# Of which nothing has to be made for JSON.
_PLAIN: Final = frozenset({str, int, float, bool, type(None)})
# Rows that ended are remembered for those who come back; beyond these a table is sent whole.
_ENDED_MAX: Final = 4_096


@dataclass(slots=True)
class _Kept:
    row: Row
    versions: dict[str, int]
    source: msgspec.Struct  # what it was made of: an equal one needs no second look
    changed: int  # the newest of the versions
    before: int = -1  # the newest but one
    latest: list[str] = field(default_factory=list)  # fields of the newest, when there is another


@dataclass(slots=True)
class _Table:
    began: int  # version of its first rows
    rows: dict[str, _Kept] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)  # id -> version, oldest first
    forgotten: int = 0  # newest version of what fell out of `ended`
    changed: int = 0  # version of its last change


class Tables:
    """`version` rises with each change of any table."""

    def __init__(self) -> None:
        self.version = 0
        self._tables: dict[Topic, _Table] = {}

    def take(self, topic: Topic, rows: Mapping[str, msgspec.Struct]) -> bool:
        """The rows of a topic as they are now. Whether anything is different."""
        version = self.version + 1
        table = self._tables.get(topic)
        known = table is not None
        if table is None:
            table = self._tables[topic] = _Table(began=version)
        changed = not known
        for row_id, message in rows.items():
            kept = table.rows.get(row_id)
            if kept is not None and (kept.source is message or kept.source == message):
                continue
            changed = _renew(table, row_id, kept, message, version) or changed
        if len(table.rows) > len(rows):
            for row_id in [each for each in table.rows if each not in rows]:
                del table.rows[row_id]
                table.ended[row_id] = version
                changed = True
        while len(table.ended) > _ENDED_MAX:
            oldest = next(iter(table.ended))
            table.forgotten = max(table.forgotten, table.ended.pop(oldest))
        if changed:
            self.version = table.changed = version
        return changed

    def messages(self, topic: Topic) -> dict[str, msgspec.Struct]:
        """What the rows of a topic were made of last."""
        table = self._tables.get(topic)
        return {} if table is None else {row_id: kept.source for row_id, kept in table.rows.items()}

    def changes(self, topics: Iterable[Topic], since: int | None) -> list[Change]:
        """What became of these topics after version `since`; None: everything."""
        found = []
        for topic in topics:
            table = self._tables.get(topic)
            if table is None:
                continue
            if since is None or since < table.began or since < table.forgotten:
                rows = {row_id: dict(kept.row) for row_id, kept in table.rows.items()}
                found.append(Change(topic=topic, whole=True, rows=rows))
            elif since < table.changed:
                found.append(_difference(topic, table, since))
        return found


def _renew(
    table: _Table, row_id: str, kept: _Kept | None, message: msgspec.Struct, version: int
) -> bool:
    if kept is None:
        row: Row = msgspec.to_builtins(message)
        table.rows[row_id] = _Kept(row, dict.fromkeys(row, version), message, version)
        table.ended.pop(row_id, None)
        return True
    old, kept.source = msgspec.structs.astuple(kept.source), message
    new = msgspec.structs.astuple(message)
    different = [
        (name, value)
        for name, value, was in zip(message.__struct_fields__, new, old, strict=True)
        if value is not was and value != was
    ]
    if not different:
        return False
    for name, value in different:
        kept.row[name] = value if type(value) in _PLAIN else msgspec.to_builtins(value)
        kept.versions[name] = version
    kept.before, kept.changed = kept.changed, version
    kept.latest = [name for name, _ in different]
    return True


def _difference(topic: Topic, table: _Table, since: int) -> Change:
    rows: dict[str, Row] = {}
    for row_id, kept in table.rows.items():
        if kept.changed <= since:
            continue
        if kept.latest and kept.before <= since:  # who looks each second
            rows[row_id] = {name: kept.row[name] for name in kept.latest}
        else:
            changed = kept.versions.items()
            rows[row_id] = {name: kept.row[name] for name, at in changed if at > since}
    gone = [row_id for row_id, at in table.ended.items() if at > since]
    return Change(topic=topic, rows=rows, gone=gone)
