"""Stage 1 for many manifests at once: in processes of its own where it is worth it.

Verifying takes most of the time of taking manifests in, and Python uses one core. So a large batch
is examined by a few processes while the batch before it is written. They hold nothing, may die at
any moment, and end with the process that began them.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from dataclasses import replace
from functools import lru_cache
from typing import Final, NamedTuple, Protocol

import msgspec

from appliance.controlplane.examined import Bytes, Examined
from appliance.manifests.documents import Line
from appliance.manifests.keys import KnownKey, KnownSite, Place
from appliance.manifests.verify import Finding, Limits, check_read, read_envelope, too_large
from appliance.security.signing import PublicKey

MANIFESTS_MIN: Final = 64  # from here on, or so many bytes, others are asked
BYTES_MIN: Final = 1024 * 1024
_lines: Final = msgspec.json.Decoder(Line)


class Carried(Protocol):
    """A manifest as it travels."""

    @property
    def envelope(self) -> bytes: ...

    @property
    def lines(self) -> bytes: ...


class _Key(NamedTuple):
    """A `KnownKey` that can be sent to another process."""

    pem: str
    since: Place
    until: Place | None
    revoked: Place | None


class _Known(NamedTuple):
    appliance_id: str
    keys: tuple[_Key, ...]


class _Task(NamedTuple):
    manifests: list[tuple[bytes, bytes]]
    known: _Known | None
    limits: Limits


def examine(carried: Carried, known: KnownSite | None, limits: Limits) -> Examined:
    """Stage 1 of one manifest, here and now."""
    envelope, lines = carried.envelope, carried.lines
    if finding := too_large(envelope, lines, limits):
        return Examined.unread(envelope, lines, finding)
    read = read_envelope(envelope, limits)
    if isinstance(read, Finding):
        return Examined.unread(envelope, lines, read)
    return Examined.of(envelope, lines, read, check_read(read, lines, known, limits))


class Examination:
    """Begins stage 1 of batches; made with how many processes may help, `close` ends them."""

    def __init__(self, limits: Limits, processes: int) -> None:
        self.limits = limits
        self._processes = processes
        self._pool: ProcessPoolExecutor | None = None
        self._loaded: Future[int] | None = None
        self._guard = threading.Lock()

    def begin(
        self, batch: Sequence[Carried], known: KnownSite | None
    ) -> Callable[[], list[Examined]]:
        """Begin with a batch; what is returned waits for it and gives it in its order."""
        size_bytes = sum(len(one.envelope) + len(one.lines) for one in batch)
        if not self._processes or (len(batch) < MANIFESTS_MIN and size_bytes < BYTES_MIN):
            return lambda: self._here(batch, known)
        try:
            begun = [(part, self._ask(part, known)) for part in _parts(batch, self._processes)]
        except BrokenExecutor:
            self._drop(broken=True)
            return lambda: self._here(batch, known)
        return lambda: [one for part, told in begun for one in self._told(part, told, known)]

    def load(self) -> None:
        """Wait until the processes are there: before much is to be taken in at once."""
        if self._processes and not self._is_running():
            assert self._loaded is not None  # just begun
            self._loaded.result()

    def close(self) -> None:
        self._drop()

    def _here(self, batch: Sequence[Carried], known: KnownSite | None) -> list[Examined]:
        return [examine(one, known, self.limits) for one in batch]

    def _ask(self, part: Sequence[Carried], known: KnownSite | None) -> "Future[list[Examined]]":
        task = _Task([(one.envelope, one.lines) for one in part], _sendable(known), self.limits)
        with self._guard:
            if self._pool is None:
                raise BrokenExecutor
            return self._pool.submit(_examine, task)

    def _told(
        self,
        part: Sequence[Carried],
        told: "Future[list[Examined]]",
        known: KnownSite | None,
    ) -> list[Examined]:
        try:
            results = told.result()
        except BrokenExecutor:  # one of them was killed: this process can do the same
            self._drop(broken=True)
            return self._here(part, known)
        return [_whole(one, carried) for one, carried in zip(results, part, strict=True)]

    def _is_running(self) -> bool:
        """Whether the processes are there; they are begun by the first who asks.

        They take a moment to load, and nobody waits for that.
        """
        with self._guard:
            if self._pool is None:
                self._pool = ProcessPoolExecutor(
                    self._processes,
                    mp_context=multiprocessing.get_context("spawn"),
                    initializer=_begin_process,
                )
                self._loaded = self._pool.submit(os.getpid)
            return self._loaded is not None and self._loaded.done()

    def _drop(self, *, broken: bool = False) -> None:
        with self._guard:
            pool, self._pool = self._pool, None
        if pool is None:
            return
        if broken:
            # A pool that breaks ends its processes; one that was begun meanwhile it only waits
            # for, and for ever (seen in CPython 3.11.7).
            for process in list((pool._processes or {}).values()):
                process.kill()
        pool.shutdown(wait=True, cancel_futures=True)


def _parts(batch: Sequence[Carried], count: int) -> list[Sequence[Carried]]:
    size = -(-len(batch) // count)
    return [batch[start : start + size] for start in range(0, len(batch), size)]


def _sendable(known: KnownSite | None) -> _Known | None:
    if known is None:
        return None
    keys = (_Key(one.key.pem, one.since, one.until, one.revoked) for one in known.keys)
    return _Known(known.appliance_id, tuple(keys))


@lru_cache(maxsize=8)
def _site(known: _Known) -> KnownSite:
    return KnownSite(
        known.appliance_id,
        tuple(
            KnownKey(PublicKey.from_pem(one.pem), one.since, one.until, one.revoked)
            for one in known.keys
        ),
    )


def _examine(task: _Task) -> list[Examined]:
    """In the other process. What the asker has itself is left out of the answer."""
    known = None if task.known is None else _site(task.known)
    return [_bare(examine(Bytes(*one), known, task.limits)) for one in task.manifests]


def _bare(examined: Examined) -> Examined:
    checked = examined.checked
    if checked is not None:
        checked = replace(checked, lines=())
    return replace(examined, envelope=b"", lines=b"", checked=checked)


def _whole(examined: Examined, carried: Carried) -> Examined:
    checked = examined.checked
    if checked is not None:
        # The bytes were found to be lines, so reading them again is quick and cannot fail.
        checked = replace(checked, lines=tuple(_lines.decode_lines(carried.lines)))
    return replace(examined, envelope=carried.envelope, lines=carried.lines, checked=checked)


def _begin_process() -> None:
    """Leave Ctrl-C to the parent, and end when it ends, however it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a child

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
