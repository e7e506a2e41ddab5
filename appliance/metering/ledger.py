"""The ledger: every admitted request ends in exactly one record, durable before it is answered.

The event loop hands openings and settlements over; one thread writes what came together in one
transaction with `synchronous=FULL`, and wakes the loop once for each transaction.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from appliance.domain.clock import Clock
from appliance.domain.usage import Status
from appliance.metering.book import Book
from appliance.metering.counters import LedgerCounters
from appliance.metering.errors import LedgerClosed, LedgerError, LedgerUnavailable
from appliance.metering.records import Opening, Settlement
from appliance.metering.schema import MIGRATIONS
from appliance.storage.database import connect, migrate
from appliance.storage.errors import DatabaseDamaged
from appliance.storage.writer import GroupWriter, Outcome, of_the_disk

R = TypeVar("R")


@dataclass(slots=True)
class _Call:
    """A transaction of another part of the site on its way to the writer's thread."""

    run: Callable[[sqlite3.Connection], Any]
    future: Future[Any]
    result: Any = None


Done = Callable[[BaseException | None], None]
Content = Opening | Settlement | _Call | None  # None: nothing new, only what is owed
Item = tuple[Content, Done]

# How long a group is left open for more while there is a load. A commit costs about 60 µs of CPU
# and 250 µs of waiting however many it carries; a request waits for its record at most this longer.
GATHER_S: Final = 0.002
RETRY_S: Final = 1.0  # between two attempts while the disk fails and nothing else comes
CHECKPOINT_PAGES: Final = 4_000  # 16 MB of WAL, so that a page often changed is copied back once
_WAL_BYTES_KEPT: Final = 64 * 1024 * 1024

_FREE_SPACE: Final = "Free space on the disk that holds ledger.db, or replace the disk."

_log = logging.getLogger(__name__)


class Ledger:
    """The writing side of ledger.db. Made by `Ledger.open`; used from the event loop's thread.

    - `begin` and `settle` return at once; `done` is called on the event loop when the item is on
      the disk (None) or could not be written (LedgerUnavailable: answer 503).
    - Beginning or settling twice changes nothing. `settle` may come while `begin` is queued.
    - A settlement that the disk refused stays owed: the ledger writes it as soon as it can, as
      failed with the code `ledger_unavailable`, because that is what its client was answered.
      Until then the opening stands; if the appliance stops before, the record says aborted.
    """

    @classmethod
    def open(
        cls,
        path: Path,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        *,
        gather_s: float = GATHER_S,
        retry_s: float = RETRY_S,
        checkpoint_pages: int = CHECKPOINT_PAGES,
        connect: Callable[[Path], sqlite3.Connection] = connect,
    ) -> "Ledger":
        """Open or create the file, settle what the last stop cut off, and start the writer.

        Blocks for the disk. Raises StorageError or LedgerUnavailable when the file cannot be used.
        """
        try:
            migrate(path, MIGRATIONS)
            connection = connect(path)
            try:
                book, recovered = _recovered(connection, clock, checkpoint_pages)
            except BaseException:
                connection.close()
                raise
        except sqlite3.OperationalError as error:
            raise LedgerUnavailable(
                f"The ledger {path} cannot be written: {error}.", next_step=_FREE_SPACE
            ) from error
        except sqlite3.DatabaseError as error:
            raise DatabaseDamaged(
                f"The ledger {path} is damaged: {error}.",
                next_step="Restore it from a backup; keep the damaged file for examination.",
            ) from error
        return cls(
            connection,
            book,
            clock,
            loop,
            gather_s=gather_s,
            retry_s=retry_s,
            recovered=recovered,
        )

    def __init__(
        self,
        connection: sqlite3.Connection,
        book: Book,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        *,
        gather_s: float,
        retry_s: float,
        recovered: int,
    ) -> None:
        self.recovered = recovered  # requests settled as aborted when the ledger was opened
        self.counters = LedgerCounters()
        self._book = book
        self._clock = clock
        self._loop = loop
        self._owed: dict[str, Settlement] = {}  # refused by the disk, by record id
        self._healthy = True
        self._retry_s = retry_s
        self._retry: asyncio.TimerHandle | None = None
        self._closed = False
        self._started_s = 0.0  # of the group at work; writer's thread only
        self._writer = GroupWriter[Item](
            lambda: connection,
            self._apply,
            self._finish,
            name="ledger writer",
            committed=book.committed,
            gather_s=gather_s,
        )

    @property
    def healthy(self) -> bool:
        """Whether the last write reached the disk. For /readyz."""
        return self._healthy

    @property
    def open_count(self) -> int:
        """Requests opened on the disk and not settled yet."""
        return self._book.open_count

    @property
    def record_count(self) -> int:
        return self._book.head.seq

    def begin(self, opening: Opening, done: Done) -> None:
        """Record that a request was admitted; `done(None)` when that is durable."""
        if self._closed:
            self._loop.call_soon(done, _closed())
        else:
            self._writer.submit((opening, done))

    def settle(self, settlement: Settlement, done: Done) -> None:
        """Record how a request ended; `done(None)` when its record is durable."""
        if self._closed:
            self._loop.call_soon(done, _closed())
        else:
            self._writer.submit((settlement, done))

    def transact(self, run: Callable[[sqlite3.Connection], R]) -> Future[R]:
        """Run `run` inside a transaction of the one thread that writes this file.

        May be called from any thread. The future holds what `run` returned once it is durable;
        when `run` raises, or the disk refuses (LedgerUnavailable), nothing was changed. `run` may
        be called again when its transaction is shared and another's part of it failed, so it
        leaves no trace outside the connection. It must be short: requests wait for this thread.
        """
        future: Future[R] = Future()
        if self._closed:
            future.set_exception(_closed())
        else:
            self._writer.submit((_Call(run, future), _nobody_waits))
        return future

    def close(self) -> None:
        """Write what was handed over, then close the file. Blocks for the disk. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._retry is not None:
            self._retry.cancel()
        for settlement in self._owed.values():
            self._writer.submit((settlement, _nobody_waits))
        self._writer.close()

    def _apply(self, connection: sqlite3.Connection, items: Sequence[Item]) -> None:
        self._started_s = self._clock.monotonic_s()
        contents: list[Opening | Settlement] = []
        calls: list[_Call] = []
        for content, _ in items:
            if type(content) is _Call:
                calls.append(content)
            elif content is not None:
                contents.append(content)  # type: ignore[arg-type]  # `type is` narrows one way only
        # Also without contents: what a failed transaction had prepared must not be taken over.
        self._book.apply(connection, contents)
        if not contents and not calls:
            # A probe: an empty transaction would succeed on a full disk, so one page is written.
            connection.execute("UPDATE head SET seq = seq")
        for call in calls:
            call.result = call.run(connection)

    def _finish(self, outcome: Outcome[Item]) -> None:
        self.counters.add(
            len(outcome),
            self._clock.monotonic_s() - self._started_s,
            failed=outcome[-1][1] is not None,
        )
        for content, error in ((content, error) for (content, _), error in outcome):
            if type(content) is _Call:
                _resolve(content, error)
        try:
            self._loop.call_soon_threadsafe(self._deliver, outcome)
        except RuntimeError:
            _log.debug("The event loop is gone; nobody waits for this group any more.")

    def _deliver(self, outcome: Outcome[Item]) -> None:
        """On the event loop: tell everyone of a group what became of it."""
        for (content, done), error in outcome:
            result = error if error is None else self._refused(content, error)
            try:
                done(result)
            # A supervision loop: one request's callback must not keep the others waiting.
            except Exception as failure:  # noqa: BLE001
                self._loop.call_exception_handler(
                    {"message": "A ledger callback failed.", "exception": failure}
                )
        self._set_health(outcome[-1][1])

    def _refused(self, content: Content, error: BaseException) -> LedgerError:
        """What to tell about an item that was not written; a settlement stays owed."""
        if isinstance(error, LedgerError):
            return error
        if not of_the_disk(error):
            return LedgerError(
                f"The ledger cannot hold this record: {error}.",
                next_step="Report this: the record breaks a rule of the ledger.",
            )
        if isinstance(content, Settlement):
            self._owed[content.opening.record_id] = msgspec.structs.replace(
                content, status=Status.FAILED, http_status=503, error_code=LedgerUnavailable.code
            )
        return LedgerUnavailable(
            f"The ledger cannot be written: {error}.",
            next_step=_FREE_SPACE,
        )

    def _set_health(self, error: BaseException | None) -> None:
        failing = of_the_disk(error)
        if failing and self._healthy:
            _log.error("ledger_unavailable", extra={"reason": str(error)})
        elif not failing and not self._healthy:
            _log.info("ledger_available")
        self._healthy = not failing
        if self._retry is None and not self._closed and (failing or self._owed):
            self._retry = self._loop.call_later(self._retry_s, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        if self._closed:
            return
        owed, self._owed = self._owed, {}
        for settlement in owed.values():
            self._writer.submit((settlement, _nobody_waits))
        if not owed:
            self._writer.submit((None, _nobody_waits))


def _recovered(
    connection: sqlite3.Connection, clock: Clock, checkpoint_pages: int
) -> tuple[Book, int]:
    """The book of a file that was opened, and how many requests the last stop had cut off."""
    connection.row_factory = None
    connection.execute(f"PRAGMA wal_autocheckpoint = {checkpoint_pages}")
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES_KEPT}")
    # Some builds overwrite what is deleted with zeros; there is nothing here to hide.
    connection.execute("PRAGMA secure_delete = OFF")
    connection.execute("BEGIN IMMEDIATE")
    book = Book(connection)
    recovered = book.recover(connection, clock.wall_ns())
    connection.execute("COMMIT")
    book.committed()
    return book, recovered


def _resolve(call: _Call, error: BaseException | None) -> None:
    if not call.future.set_running_or_notify_cancel():
        return  # nobody waits any more; what was written stands
    if error is None:
        call.future.set_result(call.result)
    elif of_the_disk(error):
        refusal = LedgerUnavailable(
            f"The ledger cannot be written: {error}.", next_step=_FREE_SPACE
        )
        refusal.__cause__ = error
        call.future.set_exception(refusal)
    else:
        call.future.set_exception(error)


def _nobody_waits(_error: BaseException | None) -> None:
    """The client of an owed settlement was answered long ago."""


def _closed() -> LedgerClosed:
    return LedgerClosed("The appliance is stopping.", next_step="Send the request again later.")
