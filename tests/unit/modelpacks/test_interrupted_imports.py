"""An import that is cut off goes on where it stopped; versions share what they have in common."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from appliance.modelpacks.container import Pack
from appliance.modelpacks.errors import BadPack, StoreFull
from appliance.modelpacks.store import PackDesk
from appliance.registry.errors import AlreadyExists
from appliance.security.secrets import write_secret
from appliance.wire.agent import ModelFile
from appliance.wire.model_store import CHUNK_BYTES
from tests.fakes.model_packs import pack_folder, write_folder
from tests.fakes.registry import ACTOR, Site

MIB = 1024 * 1024
# Three chunks and a bit, so that a copy can be cut off between any two.
LARGE = bytes(range(256)) * (CHUNK_BYTES * 3 // 256) + b"end"


class Stopped(BaseException):
    """The power went."""


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path / "registry.db")
    yield site
    await site.registry.close()
    site.close()


def new_desk(site: Site, tmp_path: Path, room_left_bytes: int = 0) -> PackDesk:
    secrets = tmp_path / "secrets"
    if not secrets.exists():
        secrets.mkdir(mode=0o700)
        write_secret(secrets / "pack-key", b"k" * 32)
    return PackDesk(
        site.registry, tmp_path / "models", secrets / "pack-key", room_left_bytes=room_left_bytes
    )


@pytest.fixture
def desk(site: Site, tmp_path: Path) -> PackDesk:
    return new_desk(site, tmp_path)


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    write_folder(tmp_path / "small", (b"first shard", LARGE))
    pack_folder(tmp_path / "small", tmp_path / "small.modelpack")
    return tmp_path / "small.modelpack"


async def acceptance(desk: PackDesk, pack: Path) -> str:
    licence = (await desk.look(pack)).index.licence
    assert licence is not None
    return licence.acceptance_sha256


def cut_after(chunks: int) -> Iterator[int]:
    """`Pack.read` that fails after so many chunks of the whole pack."""
    left = chunks
    read = Pack.read

    def failing(self: Pack, file: ModelFile, offset: int) -> Iterator[bytes]:
        nonlocal left
        for chunk in read(self, file, offset):
            if left == 0:
                raise Stopped
            left -= 1
            yield chunk

    with patch.object(Pack, "read", failing):
        yield chunks


def flip(pack: Path) -> None:
    """Change one bit in the last file."""
    raw = bytearray(pack.read_bytes())
    raw[len(raw) - 2_000_000] ^= 1
    pack.write_bytes(raw)


async def test_it_goes_on_after_a_stop_at_any_moment(
    site: Site, desk: PackDesk, pack: Path, tmp_path: Path
) -> None:
    licence = await acceptance(desk, pack)
    index = (await desk.look(pack)).index
    resumed = []
    for _ in range(20):
        cutting = cut_after(1)
        next(cutting)
        try:
            row = await desk.bring(ACTOR, pack, licence=licence)
        except Stopped:
            resumed.append(sum(desk.store.received_bytes(file) for file in index.files))
            assert await site.registry.models.list() == []
        else:
            break
        finally:
            cutting.close()
        desk = new_desk(site, tmp_path)  # the appliance was started again
    assert len(resumed) > 5
    assert max(resumed) >= 2 * CHUNK_BYTES
    for file in row.files:
        content = (tmp_path / "small" / file.name).read_bytes()
        assert (row.folder / file.name).read_bytes() == content
    assert list((tmp_path / "models" / "store" / "partial").iterdir()) == []


async def test_what_an_interruption_spoilt_is_copied_anew(
    desk: PackDesk, pack: Path, tmp_path: Path
) -> None:
    licence = await acceptance(desk, pack)
    index = (await desk.look(pack)).index
    shard = max(index.files, key=lambda file: file.size_bytes)
    partial = tmp_path / "models" / "store" / "partial"
    partial.mkdir(parents=True)
    (partial / shard.sha256).write_bytes(bytes(2 * MIB))  # blocks that never reached the disk
    row = await desk.bring(ACTOR, pack, licence=licence)
    assert (row.folder / shard.name).read_bytes()[-3:] == b"end"


async def test_a_pack_that_changes_after_its_index_is_refused_and_not_kept(
    desk: PackDesk, pack: Path, tmp_path: Path
) -> None:
    licence = await acceptance(desk, pack)
    flip(pack)
    for _ in range(2):
        with pytest.raises(BadPack, match="SHA-256"):
            await desk.bring(ACTOR, pack, licence=licence)
    assert list((tmp_path / "models" / "store" / "partial").iterdir()) == []
    flip(pack)
    await desk.bring(ACTOR, pack, licence=licence)


async def test_a_damaged_pack_of_a_model_that_is_here_is_refused_all_the_same(
    desk: PackDesk, pack: Path
) -> None:
    licence = await acceptance(desk, pack)
    row = await desk.bring(ACTOR, pack, licence=licence)
    assert (await desk.bring(ACTOR, pack)).id == row.id
    flip(pack)
    with pytest.raises(BadPack, match="SHA-256"):
        await desk.bring(ACTOR, pack, name="another")
    assert (row.folder / row.entry).exists()


async def test_a_second_version_copies_only_what_is_new(
    desk: PackDesk, pack: Path, tmp_path: Path
) -> None:
    licence = await acceptance(desk, pack)
    first = await desk.bring(ACTOR, pack, licence=licence)
    write_folder(tmp_path / "second", (b"other shard", LARGE))
    pack_folder(tmp_path / "second", tmp_path / "second.modelpack", version="2")
    read: list[str] = []
    reading = Pack.read

    def noting(self: Pack, file: ModelFile, offset: int) -> Iterator[bytes]:
        read.append(file.name)
        return reading(self, file, offset)

    with patch.object(Pack, "read", noting):
        second = await desk.bring(ACTOR, tmp_path / "second.modelpack")
    assert read == ["model-00001-of-00002.safetensors"]
    assert (first.name, second.name) == ("small:1", "small:2")
    large = "model-00002-of-00002.safetensors"
    assert (first.folder / large).samefile(second.folder / large)
    with pytest.raises(AlreadyExists):
        await desk.bring(ACTOR, tmp_path / "second.modelpack", name="small:1")


async def test_a_disk_without_room_is_told_before_anything_is_copied(
    site: Site, pack: Path, tmp_path: Path
) -> None:
    desk = new_desk(site, tmp_path, room_left_bytes=2**60)
    with pytest.raises(StoreFull, match="bytes more"):
        await desk.bring(ACTOR, pack, licence=await acceptance(desk, pack))
    assert not (tmp_path / "models" / "store" / "partial").exists()


async def test_a_disk_that_fills_up_meanwhile_is_told_and_the_copy_goes_on_later(
    desk: PackDesk, pack: Path
) -> None:
    licence = await acceptance(desk, pack)
    write, left = os.write, 2

    def full(descriptor: int, chunk: bytes) -> int:
        nonlocal left
        if len(chunk) > MIB:
            if left == 0:
                raise OSError(28, "No space left on device")
            left -= 1
        return write(descriptor, chunk)

    with patch("os.write", full), pytest.raises(StoreFull, match="No space left"):
        await desk.bring(ACTOR, pack, licence=licence)
    shard = max((await desk.look(pack)).index.files, key=lambda file: file.size_bytes)
    assert desk.store.received_bytes(shard) == 2 * CHUNK_BYTES
    assert (await desk.bring(ACTOR, pack, licence=licence)).size_bytes > len(LARGE)


async def test_who_leaves_stops_the_copy_and_a_second_caller_waits_for_the_first(
    desk: PackDesk, pack: Path, site: Site
) -> None:
    licence = await acceptance(desk, pack)
    begun, go_on = threading.Event(), threading.Event()
    read = Pack.read

    def slow(self: Pack, file: ModelFile, offset: int) -> Iterator[bytes]:
        for chunk in read(self, file, offset):
            yield chunk
            begun.set()
            go_on.wait(10)

    with patch.object(Pack, "read", slow):
        first = asyncio.create_task(desk.bring(ACTOR, pack, licence=licence))
        await asyncio.to_thread(begun.wait, 10)
        second = asyncio.create_task(desk.bring(ACTOR, pack, licence=licence))
        assert desk.copying is not None
        assert desk.copying.total_bytes > desk.copying.done_bytes >= 0
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert first.cancelled()
        go_on.set()
        row = await second
    assert desk.copying is None
    assert await site.registry.models.list() == [row]
