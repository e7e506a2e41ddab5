"""The audit as it is read: entries, and whether their chain holds."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.registry.chain import GENESIS, Entry, link
from appliance.registry.store import Change, Store
from appliance.storage.database import connect

PROBLEMS_MAX: Final = 100
_FIELDS: Final = "seq, at_ns, actor, action, object_kind, object_id, object_name, before, after"


@dataclass(frozen=True, slots=True)
class AuditRow:
    """An entry as people see it; the fields are those of `chain.Entry`."""

    seq: int
    at_ns: int
    actor: str
    action: str
    object_kind: str
    object_id: str
    object_name: str
    before: str | None
    after: str | None
    sha256: str  # hex, over the hash before and this entry


@dataclass(frozen=True, slots=True)
class AuditVerdict:
    ok: bool
    entries: int
    head_sha256: str
    problems: tuple[str, ...]  # each names its seq; at most PROBLEMS_MAX


class Audit:
    __slots__ = ("_store",)

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(self, *, since: int = 0, count_max: int = 1_000) -> list[AuditRow]:
        """Entries with seq > since, oldest first."""
        return await self._store.read(lambda connection: entries(connection, since, count_max))

    async def head(self) -> str:
        """The hash of the newest entry, as hex."""
        return await self._store.read(
            lambda connection: bytes(
                connection.execute("SELECT audit_head FROM state").fetchone()[0]
            ).hex()
        )

    async def newest(self) -> int:
        """The number of the newest entry; 0: there is none."""
        return await self._store.read(
            lambda connection: int(connection.execute("SELECT audit_seq FROM state").fetchone()[0])
        )

    async def note(
        self, actor: str, action: str, kind: str, object_id: str, name: str, what: object
    ) -> None:
        """Enter what was done, or refused, where no object of the registry changed.

        `what` becomes the entry's `after`; it holds no secrets and no content of requests.
        """

        def run(change: Change) -> None:
            change.record(action, kind, object_id, name, None, what)

        await self._store.change(actor, run)

    async def verify(self) -> AuditVerdict:
        """Recompute the whole chain, and compare its end with what the site remembers."""
        return await self._store.read(verify_chain)


class AuditHeads:
    """Answers whether the audit in a registry's file ever ended with a hash, blocking for it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = {GENESIS.hex()}

    def __call__(self, head: str) -> bool:
        if head not in self._known:
            with closing(connect(self._path, read_only=True)) as connection:
                row = connection.execute(
                    "SELECT 1 FROM audit WHERE sha256 = ?", [bytes.fromhex(head)]
                ).fetchone()
            if row is None:
                return False
            self._known.add(head)
        return True


def entries(connection: sqlite3.Connection, since: int, count_max: int) -> list[AuditRow]:
    """Entries with seq > since, oldest first."""
    found = connection.execute(
        f"SELECT {_FIELDS}, lower(hex(sha256)) FROM audit WHERE seq > ? ORDER BY seq LIMIT ?",  # noqa: S608 (a constant)
        [since, count_max],
    )
    return [AuditRow(*row) for row in found]


def verify_chain(connection: sqlite3.Connection) -> AuditVerdict:
    """What is wrong with the chain, entry by entry."""
    problems: list[str] = []
    previous, seq, count = GENESIS, 0, 0
    try:
        for row in connection.execute(f"SELECT {_FIELDS}, sha256 FROM audit ORDER BY seq"):  # noqa: S608 (a constant)
            entry, stored = Entry(*row[:-1]), row["sha256"]
            if entry.seq != seq + 1:
                problems.append(f"between entry {seq} and entry {entry.seq}: entries are missing")
            elif not _follows(previous, entry, stored):
                problems.append(
                    f"entry {entry.seq} does not follow from entry {seq}: it was changed"
                )
            # Going on from what is stored keeps the entries after a changed one from being blamed.
            previous = stored if isinstance(stored, bytes) else b""
            seq, count = entry.seq, count + 1
    except sqlite3.DatabaseError as error:
        problems.append(f"after entry {seq} the file cannot be read any further: {error}")
    problems += _end_problems(connection, seq, previous)
    return AuditVerdict(not problems, count, previous.hex(), tuple(problems[:PROBLEMS_MAX]))


def _follows(previous: bytes, entry: Entry, stored: object) -> bool:
    try:
        return link(previous, entry) == stored
    except TypeError:
        return False  # a field of a type that was never written


def _end_problems(connection: sqlite3.Connection, seq: int, head: bytes) -> list[str]:
    """Whether the chain ends where the site remembers that it did."""
    state = connection.execute("SELECT audit_seq, audit_head FROM state").fetchone()
    if state is None:
        return ["the site does not remember where the chain ended"]
    if seq != state["audit_seq"]:
        return [f"the chain ends at entry {seq}, but entry {state['audit_seq']} was written last"]
    if head != state["audit_head"]:
        return [f"entry {seq} is not the one that was written last"]
    return []
