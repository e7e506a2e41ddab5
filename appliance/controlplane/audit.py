"""What operators did: a table in which each row holds the hash of the one before."""

import hashlib
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, insert, select

from appliance.controlplane.site_tables import OPERATOR_AUDIT
from appliance.registry.chain import Entry, link

GENESIS: Final = hashlib.sha256(b"crosslogic operator audit 1").digest()
_FIELDS: Final = tuple(column for column in OPERATOR_AUDIT.c if column.name != "sha256")


@dataclass(frozen=True, slots=True)
class AuditVerdict:
    entries: int
    head_sha256: str
    problems: tuple[str, ...]


def record(
    connection: Connection,
    now_ns: int,
    *,
    actor: str,
    action: str,
    kind: str,
    object_id: str,
    name: str = "",
    before: str | None = None,
    after: str | None = None,
) -> None:
    """Add a row, in the transaction of what was done. `before` and `after`: JSON, or words."""
    last = connection.execute(
        select(OPERATOR_AUDIT.c.seq, OPERATOR_AUDIT.c.sha256)
        .order_by(OPERATOR_AUDIT.c.seq.desc())
        .limit(1)
    ).one_or_none()
    seq, previous = (0, GENESIS) if last is None else (last.seq, bytes.fromhex(last.sha256))
    entry = Entry(seq + 1, now_ns, actor, action, kind, object_id, name, before, after)
    connection.execute(
        insert(OPERATOR_AUDIT).values(
            seq=entry.seq,
            at_ns=now_ns,
            actor=actor,
            action=action,
            object_kind=kind,
            object_id=object_id,
            object_name=name,
            before=before,
            after=after,
            sha256=link(previous, entry).hex(),
        )
    )


def entries(connection: Connection, since: int, count_max: int = 1_000) -> list[Entry]:
    """Rows with seq > since, oldest first."""
    rows = connection.execute(
        select(*_FIELDS)
        .where(OPERATOR_AUDIT.c.seq > since)
        .order_by(OPERATOR_AUDIT.c.seq)
        .limit(count_max)
    )
    return [Entry(*row) for row in rows]


def verify(connection: Connection) -> AuditVerdict:
    """Reckon the whole chain again."""
    problems: list[str] = []
    previous, count = GENESIS, 0
    rows = connection.execute(
        select(*_FIELDS, OPERATOR_AUDIT.c.sha256).order_by(OPERATOR_AUDIT.c.seq)
    )
    for row in rows:
        count += 1
        entry = Entry(*row[:-1])
        if entry.seq != count or link(previous, entry).hex() != row.sha256:
            problems.append(f"row {entry.seq} does not follow the one before")
            count = entry.seq
        previous = bytes.fromhex(row.sha256)
    return AuditVerdict(count, previous.hex(), tuple(problems))
