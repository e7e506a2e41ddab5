"""One thread that writes, and commits what arrived together in one transaction.

With `synchronous=FULL` a commit waits for the disk; SQLite commits about 0.7 thousand rows a second
one by one and 35 thousand in groups of a hundred. So nobody opens a second writing connection, and
nobody commits alone.
"""

import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

T = TypeVar("T")

# The outcome of a group, in the order of submission: the item, and None or what went wrong with it.
Outcome = Sequence[tuple[T, BaseException | None]]

# Results of SQLite that are the disk's or the file's and not one item's. Source: sqlite3.h.
_SQLITE_BUSY: Final = 5
_SQLITE_NOMEM: Final = 7
_SQLITE_READONLY: Final = 8
_SQLITE_IOERR: Final = 10
_SQLITE_CORRUPT: Final = 11
_SQLITE_FULL: Final = 13
_SQLITE_CANTOPEN: Final = 14
_SQLITE_NOTADB: Final = 26
_OF_THE_DISK: Final = frozenset(
    {
        _SQLITE_BUSY,
        _SQLITE_NOMEM,
        _SQLITE_READONLY,
        _SQLITE_IOERR,
        _SQLITE_CORRUPT,
        _SQLITE_FULL,
        _SQLITE_CANTOPEN,
        _SQLITE_NOTADB,
    }
)


def of_the_disk(error: BaseException | None) -> bool:
    """Whether a write failed for the disk's or the file's sake, so that no other would succeed."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(code, int) and (code & 0xFF) in _OF_THE_DISK


class GroupWriter(Generic[T]):
    """Applies submitted items in groups, each group in one transaction.

    - `apply` runs on the writer's thread inside an open transaction. When it raises for a group,
      the group is rolled back and its halves are applied again, and theirs, so that a bad item
      harms only itself; `apply` must therefore leave no trace outside the connection. When the
      disk failed (full, input/output error) all items of the group fail at once.
    - `committed` runs on the writer's thread after each commit that succeeded, before the next
      `apply`: the place to take over what `apply` prepared in memory.
    - `finished` runs on the writer's thread after the group, once, with every item's outcome.
    - Items are applied in the order of submission. `submit` never blocks.
    - `gather_s` is how long a group is left open for more items to come while there is a load
      (the group before had more than one item). A lone write never waits.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        apply: Callable[[sqlite3.Connection, Sequence[T]], None],
        finished: Callable[[Outcome[T]], None],
        *,
        name: str,
        group_max: int = 2_048,
        committed: Callable[[], None] | None = None,
        gather_s: float = 0.0,
    ) -> None:
        self._apply = apply
        self._finished = finished
        self._committed = committed
        self._group_max = group_max
        self._gather_s = gather_s
        self._gathers = False
        self._queue: queue.SimpleQueue[T | None] = queue.SimpleQueue()
        self._connection = connect()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, item: T) -> None:
        """Queue an item. Raises RuntimeError after `close`."""
        if self._closed:
            raise RuntimeError("the writer is closed")
        self._queue.put(item)

    def close(self) -> None:
        """Write what was submitted, then end the thread and its connection. Idempotent."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            group, last = self._next_group()
            if group:
                self._finished(self._commit(group))
            if last:
                self._connection.close()
                return

    def _next_group(self) -> tuple[list[T], bool]:
        item = self._queue.get()
        if self._gathers:
            time.sleep(self._gather_s)
        group: list[T] = []
        while item is not None:
            group.append(item)
            if len(group) >= self._group_max:
                break
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
        self._gathers = self._gather_s > 0 and len(group) > 1
        return group, item is None

    def _commit(self, group: list[T]) -> Outcome[T]:
        error = self._transact(group)
        if error is None:
            return [(item, None) for item in group]
        if len(group) == 1 or of_the_disk(error):
            return [(item, error) for item in group]
        half = len(group) // 2
        return [*self._commit(group[:half]), *self._commit(group[half:])]

    def _transact(self, group: Sequence[T]) -> BaseException | None:
        connection = self._connection
        try:
            if connection.in_transaction:  # the disk failed so badly that it could not be undone
                connection.execute("ROLLBACK")
            connection.execute("BEGIN IMMEDIATE")
            self._apply(connection, group)
            connection.execute("COMMIT")
        # The boundary of the thread: whatever went wrong is handed to the one who submitted.
        except BaseException as error:  # noqa: BLE001
            if connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            return error
        if self._committed is not None:
            self._committed()
        return None
