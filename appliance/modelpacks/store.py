"""Take a model pack into the site's store: verify, copy with resumption, enter into the registry.

Nothing of a pack is used before its index is verified, its publisher trusted and its licence
accepted. Content stands in the store only after its SHA-256 was right; what was copied before an
interruption is gone on with.
"""

import asyncio
import hashlib
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from appliance.modelpacks.catalogue import Entry, catalogue
from appliance.modelpacks.container import Pack, open_pack
from appliance.modelpacks.errors import (
    BadPack,
    LicenceNotAccepted,
    PublisherUnknown,
    StoreFull,
)
from appliance.modelpacks.index import AGAIN, PackIndex
from appliance.registry.errors import AlreadyExists
from appliance.registry.models import ModelFacts, ModelRow
from appliance.registry.names import check_model_name
from appliance.registry.registry import Registry
from appliance.registry.weights import Progress, Weights, look_at
from appliance.security.signing import PublicKey, load_signing_key
from appliance.wire.agent import ModelFile
from appliance.wire.model_store import AlreadyComing, ModelStore, OtherContent

STORE: Final = "store"
ROOM_LEFT_BYTES: Final = 256 * 1024 * 1024  # for everything else on that disk


@dataclass(frozen=True, slots=True)
class Look:
    """What a pack says of itself, and how this site stands to it."""

    index: PackIndex
    licence_text: str
    publisher: PublicKey
    trusted: bool
    licence_accepted: bool  # also where none is stated


@dataclass(frozen=True, slots=True)
class Copying:
    """How far an import is."""

    model: str
    done_bytes: int
    total_bytes: int
    resumed_bytes: int  # of `done_bytes`, from an earlier attempt or another model


class PackDesk:
    """Imports one pack at a time; a second caller waits for the first."""

    def __init__(
        self,
        registry: Registry,
        models: Path,
        own_key: Path,
        *,
        room_left_bytes: int = ROOM_LEFT_BYTES,
    ) -> None:
        """`models`: the home's folder. `own_key`: the file of the key this site packs with, which
        is always trusted; it may come to be at any time.
        """
        self._registry = registry
        self._models = models
        self.store = ModelStore(models / STORE)
        self._own_key = own_key
        self._room_left_bytes = room_left_bytes
        self._importing = asyncio.Lock()
        self._copying: Copying | None = None

    @property
    def copying(self) -> Copying | None:
        """The import under way; None: there is none."""
        return self._copying

    async def catalogue(self) -> Sequence[Entry]:
        """Of the product and of this site. Raises BadCatalogue."""
        return await asyncio.to_thread(catalogue, self._models)

    async def look(self, path: Path) -> Look:
        """Raises BadPack, PackForged."""
        publisher, index, text = await asyncio.to_thread(_look, path)
        return await self._look(publisher, index, text)

    async def bring(
        self,
        actor: str,
        path: Path,
        *,
        name: str | None = None,
        publisher: str | None = None,
        licence: str | None = None,
    ) -> ModelRow:
        """Import the pack at `path` and register its model. Again: the same model.

        `publisher`: the id of the key to trust from now on, if it signed this pack. `licence`: the
        acceptance digest of the licence that the caller accepts. Raises ModelPackError and
        RegistryError; what was copied stays for the next attempt.
        """
        look = await self.look(path)
        index = look.index
        wanted = name or (f"{index.name}:{index.version}" if index.version else index.name)
        await self._check_name(wanted, index.digest)
        await self._trust(actor, look, publisher)
        await self._accept(actor, look, licence)
        async with self._importing:
            try:
                folder = await self._copy(path, look.index)
            finally:
                self._copying = None
            # Still alone: a sweep that waits would find a model that nobody has registered.
            return await self._enter(actor, look, folder, wanted)

    async def sweep(self, now_ns: int, *, dry: bool = False) -> tuple[Sequence[str], int]:
        """Remove what no registered model needs: the models' digests, and bytes freed."""
        async with self._importing:
            kept = {row.digest for row in await self._registry.models.list()}
            kept |= {row.model_digest for row in await self._registry.generations.list()}
            return await asyncio.to_thread(self._sweep, kept, now_ns / 1e9, dry=dry)

    async def _look(self, publisher: PublicKey, index: PackIndex, text: str) -> Look:
        known = {row.key_id for row in await self._registry.packs.publishers()}
        accepted = True
        if index.licence is not None:
            noted = await self._registry.packs.accepted(index.licence.acceptance_sha256)
            accepted = noted is not None
        own = await asyncio.to_thread(_public, self._own_key)
        trusted = publisher == own or publisher.key_id in known
        return Look(index, text, publisher, trusted, accepted)

    async def _check_name(self, name: str, digest: str) -> None:
        """Before hours of copying, not after."""
        check_model_name("model", name)
        for row in await self._registry.models.list():
            if row.name == name and row.digest != digest:
                raise AlreadyExists(
                    f"There is another model {name!r} already.",
                    next_step="Import this one under another name with --name.",
                )

    async def _trust(self, actor: str, look: Look, key_id: str | None) -> None:
        if look.trusted:
            return
        if key_id != look.publisher.key_id:
            raise PublisherUnknown(
                f"The pack is signed with the key {look.publisher.key_id}, which this site does"
                " not trust.",
                next_step="Compare it with what the publisher told you on another way, then name"
                " it with --publisher; the site remembers it.",
            )
        await self._registry.packs.trust(actor, key_id, look.publisher.pem)

    async def _accept(self, actor: str, look: Look, acceptance: str | None) -> None:
        licence = look.index.licence
        if look.licence_accepted or licence is None:
            return
        if acceptance != licence.acceptance_sha256:
            raise LicenceNotAccepted(
                f"The licence {licence.name!r} of {look.index.name} was not accepted for this"
                " site yet.",
                next_step="Read it (it is in the pack), then import with --accept-licence; that is"
                " asked once.",
            )
        await self._registry.packs.accept(actor, acceptance, licence.name, look.index.name)

    async def _copy(self, path: Path, index: PackIndex) -> Path:
        stop = threading.Event()

        def progress(done: int, resumed: int) -> None:
            self._copying = Copying(index.name, done, index.size_bytes, resumed)

        progress(0, 0)
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(None, self._copy_all, path, index, progress, stop)
        try:
            return await asyncio.shield(work)
        finally:
            stop.set()
            await asyncio.wait([work])  # to its next chunk: the next import must not meet it
            work.exception()

    def _copy_all(
        self, path: Path, index: PackIndex, progress: Progress, stop: threading.Event
    ) -> Path:
        with open_pack(path) as pack:
            if pack.index != index:
                raise BadPack("The pack was replaced while it was read.", next_step=AGAIN)
            try:
                if self.store.complete(index.digest):
                    _check_content(pack, progress, stop)
                else:
                    self._check_room(index)
                    self._receive(pack, progress, stop)
                progress(index.size_bytes, index.size_bytes)
                return self.store.assemble(index.digest, index.files)
            except OSError as error:
                raise StoreFull(
                    f"The store {self.store.root} cannot be written: {error.strerror}.",
                    next_step="Make room (`cic model gc`), then import again: it goes on from"
                    " where it stopped.",
                ) from error

    def _receive(self, pack: Pack, progress: Progress, stop: threading.Event) -> None:
        missing = self.store.missing(pack.index.files)
        done = pack.index.size_bytes - sum(file.size_bytes for file in missing)
        resumed = done
        for file in missing:
            left = self.store.received_bytes(file)
            told = partial(_from, progress, done)
            try:
                try:
                    self._receive_one(pack, file, partial(told, resumed + left), stop)
                    resumed += left
                except OtherContent:
                    if not left:
                        raise
                    # What an interruption left may be what was wrong. It is gone now.
                    self._receive_one(pack, file, partial(told, resumed), stop)
            except OtherContent as error:
                raise BadPack(
                    f"The pack was changed or damaged: {error}.", next_step=AGAIN
                ) from error
            except AlreadyComing as error:
                raise StoreFull(
                    f"The store is in use: {error}.", next_step="Wait for the other import."
                ) from error
            done += file.size_bytes

    def _receive_one(
        self, pack: Pack, file: ModelFile, progress: Callable[[int], None], stop: threading.Event
    ) -> None:
        with self.store.receive(file, stop.is_set) as incoming:
            progress(incoming.offset)
            for chunk in pack.read(file, incoming.offset):
                if stop.is_set():
                    raise _Stopped
                incoming.write(chunk)
                progress(incoming.offset)

    def _check_room(self, index: PackIndex) -> None:
        self.store.root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.store.root).free
        needed = sum(
            file.size_bytes - self.store.received_bytes(file)
            for file in self.store.missing(index.files)
        )
        if needed + self._room_left_bytes > free:
            raise StoreFull(
                f"{index.name} needs {needed:,} bytes more, and {self.store.root} has {free:,} free"
                f" of which {self._room_left_bytes:,} are kept for the site.",
                next_step="Make room, for example with `cic model gc`, and import it again.",
            )

    def _sweep(self, kept: set[str], now_s: float, *, dry: bool) -> tuple[Sequence[str], int]:
        try:
            return self.store.sweep(kept, now_s, dry=dry)
        except OSError as error:
            raise StoreFull(
                f"The store {self.store.root} cannot be swept: {error.strerror}.",
                next_step="Check that the appliance's account owns it.",
            ) from error

    async def _enter(self, actor: str, look: Look, folder: Path, name: str) -> ModelRow:
        index = look.index
        path = folder / index.entry if index.entry else folder
        source = await asyncio.to_thread(look_at, path)
        weights = Weights(path, source.header, index.digest, index.size_bytes, tuple(index.files))
        golden = index.golden
        return await self._registry.models.enter(
            actor,
            name,
            weights,
            family=index.family,
            licence="" if index.licence is None else index.licence.name,
            facts=ModelFacts(
                version=index.version,
                publisher=look.publisher.key_id,
                minimum_driver=index.minimum_driver,
                probe_prompt="" if golden is None else golden.prompt,
                probe_answer="" if golden is None else golden.answer,
                gpu_memory_bytes=index.gpu_memory_bytes,
                settings=index.settings,
            ),
        )


class _Stopped(Exception):
    """The caller went away: nobody hears this."""


def _from(progress: Progress, done: int, resumed: int, offset: int) -> None:
    progress(done + offset, resumed)


def _public(path: Path) -> PublicKey | None:
    return load_signing_key(path).public if path.exists() else None


def _look(path: Path) -> tuple[PublicKey, PackIndex, str]:
    with open_pack(path) as pack:
        return pack.publisher, pack.index, pack.licence_text


def _check_content(pack: Pack, progress: Progress, stop: threading.Event) -> None:
    """Read a pack through whose model is here already: a damaged one is not called good."""
    done = 0
    for file in pack.index.files:
        digest = hashlib.sha256()
        for chunk in pack.read(file, 0):
            if stop.is_set():
                raise _Stopped
            digest.update(chunk)
            done += len(chunk)
            progress(done, 0)
        if digest.hexdigest() != file.sha256:
            raise BadPack(
                f"The pack was changed or damaged: {file.name} does not have the SHA-256 of its"
                " index. The model itself is here already, and sound.",
                next_step=AGAIN,
            )
