"""How registry.db is read and changed: consistent reads, audited changes, news of both."""

import asyncio
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

import msgspec

from appliance.domain.clock import Clock
from appliance.domain.ids import new_id
from appliance.registry.chain import Entry, link
from appliance.registry.snapshot import Snapshot
from appliance.storage.database import Database

R = TypeVar("R")

_OF_STATE: Final = "SELECT version, audit_seq, audit_head FROM state"


class Change:
    """One write under way: the connection in its transaction, who acts, and when."""

    __slots__ = (
        "_entropy",
        "_head",
        "_seq",
        "_version",
        "_written_seq",
        "actor",
        "connection",
        "now_ns",
    )

    def __init__(
        self,
        connection: sqlite3.Connection,
        actor: str,
        now_ns: int,
        entropy: Callable[[int], bytes],
    ) -> None:
        self.connection = connection
        self.actor = actor
        self.now_ns = now_ns
        self._entropy = entropy
        state = connection.execute(_OF_STATE).fetchone()
        self._version: int = state["version"]
        self._written_seq = self._seq = state["audit_seq"]
        self._head: bytes = state["audit_head"]

    def new_id(self, noun: str) -> str:
        return new_id(noun, self._entropy)

    def record(
        self,
        action: str,
        kind: str,
        object_id: str,
        name: str,
        before: object | None,
        after: object | None,
    ) -> None:
        """Enter what was done into the audit. `before` and `after` are rows without secrets."""
        self._seq += 1
        entry = Entry(
            self._seq,
            self.now_ns,
            self.actor,
            action,
            kind,
            object_id,
            name,
            _as_json(before),
            _as_json(after),
        )
        self._head = link(self._head, entry)
        self.connection.execute(
            "INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                entry.seq,
                entry.at_ns,
                entry.actor,
                entry.action,
                entry.object_kind,
                entry.object_id,
                entry.object_name,
                entry.before,
                entry.after,
                self._head,
            ],
        )

    def finish(self) -> int:
        """Remember the chain's end and raise the version, if anything changed; the version."""
        if self._seq != self._written_seq:
            self._version += 1
            self.connection.execute(
                "UPDATE state SET version = ?, audit_seq = ?, audit_head = ?",
                [self._version, self._seq, self._head],
            )
        return self._version


def apply_change(
    actor: str,
    clock: Clock,
    entropy: Callable[[int], bytes],
    run: Callable[[Change], R],
    connection: sqlite3.Connection,
) -> tuple[R, int]:
    """Run a change in the open transaction; its result and the version of the tables with it."""
    change = Change(connection, actor, clock.wall_ns(), entropy)
    return run(change), change.finish()


def _as_json(row: object | None) -> str | None:
    return None if row is None else msgspec.json.encode(row, order="deterministic").decode()


class Store:
    """The registry's file, shared by all nouns.

    - A read sees one state of the file, however many queries it makes.
    - A change is one transaction with its audit entries and the raised version.
    - A change returns when the subscribers have the new tables, also when its caller went away.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        entropy: Callable[[int], bytes],
        load: Callable[[sqlite3.Connection, int], Snapshot],
    ) -> None:
        """`load(connection, now_ns)` makes the tables of a snapshot; one call at a time."""
        self._database = database
        self._clock = clock
        self._entropy = entropy
        self._load = load
        self._loading = asyncio.Lock()
        self._told_version = -1
        self._subscribers: list[Callable[[Snapshot], None]] = []
        self._changes: set[asyncio.Task[Any]] = set()

    def now_ns(self) -> int:
        return self._clock.wall_ns()

    async def read(self, query: Callable[[sqlite3.Connection], R]) -> R:
        return await self._database.read_async(lambda connection: consistently(connection, query))

    async def change(self, actor: str, run: Callable[[Change], R]) -> R:
        """Run `run` in a transaction. What it raises is raised here, and nothing has changed."""
        # The change goes on when its caller is cancelled: it may be on disk already, and then
        # the gateway must hear of it.
        task = asyncio.create_task(self._change(actor, run))
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        return await asyncio.shield(task)

    def subscribe(self, callback: Callable[[Snapshot], None]) -> None:
        self._subscribers.append(callback)

    async def snapshot(self) -> Snapshot:
        async with self._loading:
            return await self._newest()

    async def refresh(self, forget: Callable[[], None]) -> None:
        """Give every subscriber the tables anew, after `forget`, though nothing was written."""
        async with self._loading:
            forget()
            if self._subscribers:
                snapshot = await self._newest()
                self._told_version = snapshot.version
                for callback in self._subscribers:
                    callback(snapshot)

    async def close(self) -> None:
        """Wait for the changes under way."""
        await asyncio.gather(*self._changes, return_exceptions=True)

    async def _change(self, actor: str, run: Callable[[Change], R]) -> R:
        apply = partial(apply_change, actor, self._clock, self._entropy, run)
        result, version = await self._database.write(apply)
        await self._tell(version)
        return result

    async def _tell(self, version: int) -> None:
        """Give subscribers tables at least as new as `version`. Changes that came together
        share one load."""
        if not self._subscribers:
            return
        async with self._loading:
            if self._told_version >= version:
                return
            snapshot = await self._newest()
            self._told_version = snapshot.version
            for callback in self._subscribers:
                callback(snapshot)

    async def _newest(self) -> Snapshot:
        return await self.read(lambda connection: self._load(connection, self._clock.wall_ns()))


def consistently(connection: sqlite3.Connection, query: Callable[[sqlite3.Connection], R]) -> R:
    """Run `query` inside one read transaction."""
    connection.execute("BEGIN")
    try:
        return query(connection)
    finally:
        connection.execute("COMMIT")
