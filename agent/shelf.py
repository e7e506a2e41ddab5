"""The models of this node: copied from the appliance before the engines that need them start.

A replica whose model is not here yet waits, and its report says how far the copy is. Copies go on
where they stopped, one file at a time. What nobody wants any more is kept for a day, for a node may
only be in maintenance, unless its room is needed.
"""

import asyncio
import logging
import shutil
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from agent.errors import ModelAway
from agent.model_source import ModelSource
from appliance.domain.clock import Clock
from appliance.wire.agent import (
    Desired,
    DesiredReplica,
    ModelFile,
    ReplicaReport,
    WantedModel,
)
from appliance.wire.model_store import (
    AlreadyComing,
    BadModelFiles,
    ModelStore,
    OtherContent,
    check_files,
)

log = logging.getLogger(__name__)

_RETRY_S_MIN: Final = 1.0
_RETRY_S_MAX: Final = 30.0
_TELL_EVERY_S: Final = 1.0
KEPT_S: Final = 86_400.0
ROOM_LEFT_BYTES: Final = 1024**3  # for everything else on that disk


@dataclass(frozen=True, slots=True)
class _Copy:
    """How far a model is, and what its copy waits for."""

    done_bytes: int
    total_bytes: int
    trouble: str = ""

    @property
    def share(self) -> float:
        return self.done_bytes / max(self.total_bytes, 1)


class Shelf:
    """Stands between what is wanted and the replicas: `want` answers what can run now."""

    def __init__(
        self,
        store: ModelStore,
        source: ModelSource,
        clock: Clock,
        ready: Callable[[], None],
        changed: Callable[[], None],
        kept_s: float = KEPT_S,
    ) -> None:
        """`ready`: a model came, ask `runnable` again. `changed`: a report differs."""
        self._store = store
        self._source = source
        self._clock = clock
        self._ready = ready
        self._changed = changed
        self._kept_s = kept_s
        self._desired: Desired | None = None  # nobody told yet
        self._copying: tuple[str, threading.Event] | None = None
        self._unwanted_s: dict[str, float] = {}  # digest -> since when
        self._started: dict[str, DesiredReplica] = {}  # as they were last let through
        self._copies: dict[str, _Copy] = {}  # by digest
        self._news = asyncio.Event()
        self._digests: tuple[str, ...] = store.digests()

    def want(self, desired: Desired) -> tuple[DesiredReplica, ...]:
        """Take in what is wanted; the answer is what can run now."""
        known = self._desired
        if known is None or (known.replicas, known.models) != (desired.replicas, desired.models):
            self._desired = desired
            self._news.set()
            if self._copying is not None and self._copying[0] not in _models(desired):
                self._copying[1].set()
        return self.runnable()

    def runnable(self) -> tuple[DesiredReplica, ...]:
        """The replicas whose model is here, with its path.

        One that waits for a new model goes on with what it had.
        """
        through = []
        for replica in self._replicas():
            at = self._at_its_place(replica) or self._started.get(replica.replica_id)
            if at is not None:
                through.append(at)
        self._started = {replica.replica_id: replica for replica in through}
        return tuple(through)

    def reports(self) -> tuple[ReplicaReport, ...]:
        """Of the replicas that wait for their model."""
        return tuple(
            _waiting(replica, self._copies.get(replica.model.digest))
            for replica in self._replicas()
            if replica.model is not None and replica.replica_id not in self._started
        )

    def digests(self) -> tuple[str, ...]:
        """Of the models that are here, whole and verified."""
        return self._digests

    def free_bytes(self) -> int | None:
        """Where models are stored; blocks for as long as a stat does."""
        folder = self._store.root
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        try:
            return shutil.disk_usage(folder).free
        except OSError:
            return None

    async def run(self) -> None:
        """Copy what is missing, sweep what is not wanted, until cancelled."""
        retry_s = _RETRY_S_MIN
        while True:
            self._news.clear()
            whole = await self._round()
            retry_s = _RETRY_S_MIN if whole else min(retry_s * 2, _RETRY_S_MAX)
            try:
                async with asyncio.timeout(None if whole else retry_s):
                    await self._news.wait()
            except TimeoutError:
                continue

    def _replicas(self) -> tuple[DesiredReplica, ...]:
        return () if self._desired is None else self._desired.replicas

    async def _round(self) -> bool:
        """One attempt at everything that is wanted; whether all of it is here."""
        if self._desired is None:
            return True
        models = _models(self._desired)
        whole = True
        for digest, model in models.items():
            if self._news.is_set():
                return False  # what is wanted has changed: look at it anew
            if digest not in self._digests:
                whole = await self._copy(model) and whole
        self._copies = {d: copy for d, copy in self._copies.items() if d in models}
        await asyncio.to_thread(self._sweep_old, models.keys())
        return whole and not self._unwanted_s

    async def _copy(self, model: WantedModel) -> bool:
        stop = threading.Event()
        self._copying = (model.digest, stop)
        try:
            await asyncio.to_thread(self._copy_all, model, stop)
        except (ModelAway, OtherContent, AlreadyComing, BadModelFiles, OSError) as error:
            said = error.strerror if isinstance(error, OSError) else str(error)
            log.warning("model not copied", extra={"digest": model.digest, "why": said})
            known = self._copies.get(model.digest, _Copy(0, _size(model.files)))
            self._copies[model.digest] = _Copy(known.done_bytes, known.total_bytes, str(said))
            self._changed()
            return False
        finally:
            stop.set()
            self._copying = None
        log.info("model copied", extra={"digest": model.digest, "bytes": _size(model.files)})
        self._digests = await asyncio.to_thread(self._store.digests)
        self._copies.pop(model.digest, None)
        self._ready()
        self._changed()
        return True

    def _copy_all(self, model: WantedModel, stop: threading.Event) -> None:
        """In a thread. Raises what `_copy` takes."""
        check_files(model.files)
        if model.entry not in {"", *(file.name for file in model.files)}:
            raise BadModelFiles(f"{model.entry!r:.120} is none of its files")
        missing = self._store.missing(model.files)
        total = _size(model.files)
        done = total - _size(missing)
        self._check_room(missing)
        for file in missing:
            self._copy_file(model.digest, file, done, total, stop)
            done += file.size_bytes
        self._store.assemble(model.digest, model.files)

    def _copy_file(
        self, digest: str, file: ModelFile, done: int, total: int, stop: threading.Event
    ) -> None:
        told_s = 0.0
        with self._store.receive(file, stop.is_set) as incoming:
            chunks = self._source.fetch(file.sha256, incoming.offset) if file.size_bytes else ()
            if incoming.offset == file.size_bytes:
                chunks = ()  # an interruption between the last byte and its check
            for chunk in chunks:
                if stop.is_set():
                    raise ModelAway("The agent ends.")
                incoming.write(chunk)
                now_s = self._clock.monotonic_s()
                if now_s - told_s >= _TELL_EVERY_S:
                    told_s = now_s
                    self._copies[digest] = _Copy(done + incoming.offset, total)
            if incoming.offset < file.size_bytes:
                raise ModelAway("The copy of a model broke off.")

    def _check_room(self, missing: Sequence[ModelFile]) -> None:
        needed = sum(file.size_bytes - self._store.received_bytes(file) for file in missing)
        free = self.free_bytes()
        if free is not None and needed + ROOM_LEFT_BYTES > free:
            self._sweep(set() if self._desired is None else set(_models(self._desired)))
            free = self.free_bytes()
        if free is not None and needed + ROOM_LEFT_BYTES > free:
            raise ModelAway(
                f"The disk of {self._store.root} has {free:,} bytes free; the model needs"
                f" {needed:,} and {ROOM_LEFT_BYTES:,} stay for the node. Make room there."
            )

    def _sweep_old(self, wanted: Collection[str]) -> None:
        """Give up what nobody has wanted for so long."""
        now_s = self._clock.monotonic_s()
        unwanted = [digest for digest in self._digests if digest not in wanted]
        self._unwanted_s = {digest: self._unwanted_s.get(digest, now_s) for digest in unwanted}
        old = {d for d, since_s in self._unwanted_s.items() if now_s - since_s >= self._kept_s}
        if old:
            self._sweep(set(self._digests) - old)
            self._unwanted_s = {d: s for d, s in self._unwanted_s.items() if d not in old}

    def _sweep(self, kept: set[str]) -> None:
        gone, freed = self._store.sweep(kept, self._clock.wall_ns() / 1e9)
        if gone:
            log.info("models removed", extra={"digests": list(gone), "freed_bytes": freed})
        self._digests = self._store.digests()

    def _at_its_place(self, replica: DesiredReplica) -> DesiredReplica | None:
        model = replica.model
        if model is None:
            return replica
        try:
            folder = self._store.folder(model.digest)
        except BadModelFiles:
            return None
        if not folder.is_dir():
            return None
        path = folder / model.entry if model.entry else folder
        return msgspec.structs.replace(replica, model_path=str(path))


def _models(desired: Desired) -> dict[str, WantedModel]:
    """Those that replicas wait for come first."""
    needed = [replica.model for replica in desired.replicas if replica.model is not None]
    return {model.digest: model for model in (*needed, *desired.models)}


def _size(files: Sequence[ModelFile]) -> int:
    return sum(file.size_bytes for file in {file.sha256: file for file in files}.values())


def _waiting(replica: DesiredReplica, copy: _Copy | None) -> ReplicaReport:
    reason = "its model is to be copied from the appliance"
    if copy is not None:
        reason = f"its model is being copied: {int(100 * copy.share)} %"
        if copy.trouble:
            reason = f"{reason}. {copy.trouble} It is tried again."
    return ReplicaReport(
        replica_id=replica.replica_id,
        deployment_id=replica.deployment_id,
        generation=replica.generation,
        state="pending",
        reason=reason,
        progress=None if copy is None else copy.share,
    )
