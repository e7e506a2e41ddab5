"""One thread that writes, and commits what arrived together in one transaction.

With `synchronous=FULL` a commit waits for the disk; SQLite commits about 0.7 thousand rows a second
one by one and 35 thousand in groups of a hundred. So nobody opens a second writing connection, and
nobody commits alone.
"""

import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

# The outcome of a group, in the order of submission: the item, and None or what went wrong with it.
Outcome = Sequence[tuple[T, BaseException | None]]


class GroupWriter(Generic[T]):
    """Applies submitted items in groups, each group in one transaction.

    - `apply` runs on the writer's thread inside an open transaction. When it raises for a group,
      the group is rolled back and its items are applied again one by one, so that a bad item
      harms only itself; `apply` must therefore leave no trace outside the connection.
    - `finished` runs on the writer's thread after the commit, once for each group.
    - Items are applied in the order of submission. `submit` never blocks.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        apply: Callable[[sqlite3.Connection, Sequence[T]], None],
        finished: Callable[[Outcome[T]], None],
        *,
        name: str,
        group_max: int = 2_048,
    ) -> None:
        self._apply = apply
        self._finished = finished
        self._group_max = group_max
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
        group: list[T] = []
        while item is not None:
            group.append(item)
            if len(group) >= self._group_max:
                return group, False
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return group, False
        return group, True

    def _commit(self, group: list[T]) -> Outcome[T]:
        error = self._transact(group)
        if error is None:
            return [(item, None) for item in group]
        if len(group) == 1:
            return [(group[0], error)]
        return [(item, self._transact([item])) for item in group]

    def _transact(self, group: Sequence[T]) -> BaseException | None:
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            self._apply(connection, group)
            connection.execute("COMMIT")
        # The boundary of the thread: whatever went wrong is handed to the one who submitted.
        except BaseException as error:  # noqa: BLE001
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            return error
        return None
