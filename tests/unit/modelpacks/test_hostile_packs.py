"""Every tampering with a model pack is refused, and nothing of it stays."""

import os
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from appliance.modelpacks.container import END, FILES, INDEX, LICENCE, PUBLISHER, open_pack
from appliance.modelpacks.errors import BadPack, ModelPackError, PackForged
from appliance.modelpacks.index import Golden, Licence
from appliance.modelpacks.store import PackDesk
from appliance.security.secrets import write_secret
from appliance.wire.agent import ModelFile
from tests.fakes.model_packs import (
    KEY,
    STRANGER,
    TEXT,
    assemble,
    index_of,
    member,
    pack_folder,
    replace_member,
    write_folder,
)
from tests.fakes.registry import ACTOR, Site

FILES_OF = {"config.json": b'{"model_type": "llama"}', "model.safetensors": b"weights" * 999}
FIRST = FILES + "config.json"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path / "registry.db")
    yield site
    await site.registry.close()
    site.close()


@pytest.fixture
def desk(site: Site, tmp_path: Path) -> PackDesk:
    (tmp_path / "secrets").mkdir(mode=0o700)
    write_secret(tmp_path / "secrets" / "pack-key", b"k" * 32)
    return PackDesk(
        site.registry, tmp_path / "models", tmp_path / "secrets" / "pack-key", room_left_bytes=0
    )


def link(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def sized(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    return info


def owned(name: str, size: int) -> tarfile.TarInfo:
    info = sized(name, size)
    info.uid = 1
    return info


def honest() -> bytes:
    return assemble(index_of(FILES_OF), FILES_OF)


def flipped(offset_of: bytes, by: int = 0) -> bytes:
    """The honest pack with one bit changed where those bytes begin."""
    raw = bytearray(honest())
    raw[honest().index(offset_of) + by] ^= 1
    return bytes(raw)


TAMPERED: dict[str, Callable[[], bytes]] = {
    "path that leaves the folder": lambda: replace_member(
        honest(), FIRST, sized("../../etc/cron.d/x", 23), FILES_OF["config.json"]
    ),
    "absolute path": lambda: replace_member(
        honest(), FIRST, sized("/etc/passwd", 23), FILES_OF["config.json"]
    ),
    "symbolic link": lambda: replace_member(
        honest(), FIRST, link(FIRST, tarfile.SYMTYPE, "/etc/shadow")
    ),
    "hard link": lambda: replace_member(honest(), FIRST, link(FIRST, tarfile.LNKTYPE, PUBLISHER)),
    "folder": lambda: replace_member(honest(), FIRST, link(FIRST, tarfile.DIRTYPE, "")),
    "device": lambda: replace_member(honest(), FIRST, link(FIRST, tarfile.CHRTYPE, "")),
    "pipe": lambda: replace_member(honest(), FIRST, link(FIRST, tarfile.FIFOTYPE, "")),
    "executable": lambda: honest().replace(b"0000644\0", b"0000755\0", 1),
    "other owner": lambda: replace_member(
        honest(), FIRST, owned(FIRST, 23), FILES_OF["config.json"]
    ),
    "longer than signed": lambda: replace_member(
        honest(), FIRST, sized(FIRST, 24), FILES_OF["config.json"] + b" "
    ),
    "shorter than signed": lambda: replace_member(
        honest(), FIRST, sized(FIRST, 22), FILES_OF["config.json"][:-1]
    ),
    "one member too many": lambda: honest()[: -len(END)] + member(FILES + "extra", b"x") + END,
    "one member twice": lambda: (
        honest()[: -len(END)] + member(FIRST, FILES_OF["config.json"]) + END
    ),
    "members in another order": lambda: assemble(
        index_of(FILES_OF), dict(reversed(FILES_OF.items()))
    ),
    "bytes behind the end": lambda: honest() + b"\0",
    "cut off in its end": lambda: honest()[:-1],
    "cut off in a file": lambda: honest()[:-3_000],
    "cut off in the index": lambda: honest()[:2_000],
    "empty": lambda: b"",
    "no tar": lambda: b"GGUF" * 1_000,
    "compressed": lambda: b"\x1f\x8b" + honest()[2:],
    "content changed": lambda: flipped(b"weights", by=3_000),
    "padding used": lambda: flipped(FILES_OF["config.json"], by=100),
    "index changed": lambda: flipped(b'"payload":"', by=40),
    "signature changed": lambda: flipped(b'"sig":"', by=10),
    "licence changed": lambda: flipped(TEXT),
    "end changed": lambda: honest()[:-10] + b"x" * 10,
    "key of another": lambda: honest().replace(
        KEY.public.pem.encode(), STRANGER.public.pem.encode()
    ),
    "key with a second one behind": lambda: honest().replace(
        member(PUBLISHER, KEY.public.pem.encode()),
        member(PUBLISHER, KEY.public.pem.encode() + STRANGER.public.pem.encode()),
    ),
    "licence missing": lambda: honest().replace(member(LICENCE, TEXT), b""),
    "index of a size beyond reason": lambda: honest().replace(
        honest()[1024 : 1024 + 512], _big_index_header()
    ),
    "index of a negative size": lambda: replace_member(honest(), INDEX, sized(INDEX, 0)),
}


def _big_index_header() -> bytes:
    return sized(INDEX, 2**33).tobuf(tarfile.GNU_FORMAT)


def outside(folder: Path) -> set[Path]:
    """Everything there, but for what is in the store."""
    return {path for path in folder.rglob("*") if "models" not in path.parts}


@pytest.mark.parametrize("case", TAMPERED)
async def test_a_pack_that_was_changed_is_refused(
    case: str, desk: PackDesk, site: Site, tmp_path: Path
) -> None:
    assert TAMPERED[case]() != honest()
    pack = tmp_path / "hostile.modelpack"
    pack.write_bytes(TAMPERED[case]())
    licence = index_of(FILES_OF).licence
    assert licence is not None
    before = outside(tmp_path)
    with pytest.raises((BadPack, PackForged)) as caught:
        await desk.bring(ACTOR, pack, licence=licence.acceptance_sha256)
    assert caught.value.next_step
    assert await site.registry.models.list() == []
    assert outside(tmp_path) == before
    store = desk.store
    assert store.digests() == ()
    assert not any(store.received_bytes(file) for file in index_of(FILES_OF).files)


def _renamed(name: str) -> tuple[ModelFile, ...]:
    first, *others = index_of(FILES_OF).files
    return (msgspec.structs.replace(first, name=name), *others)


SIGNED: dict[str, dict[str, object]] = {
    **{
        f"name {name!r}": {"files": _renamed(name)}
        for name in ("../x", "/x", "a/../b", ".ssh", "a\nb", "MODEL.safetensors", "a//b", "x" * 200)
    },
    "digest of other files": {"digest": "sha256:" + "0" * 64},
    "digest that is a path": {"digest": "sha256:../../etc"},
    "entry that is no file": {"entry": "../../x"},
    "entry beside others": {"entry": "config.json"},
    "no files": {"files": ()},
    "size beyond reason": {
        "files": (ModelFile(name="a", sha256="0" * 64, size_bytes=2**62),),
    },
    "control characters in a text": {"family": "llama\x1b[2J"},
    "licence beyond reason": {"licence": Licence("x", "0" * 64, 2**40)},
    "negative licence": {"licence": Licence("x", "0" * 64, -512)},
    "golden prompt without a prompt": {"golden": Golden("")},
    "context of nothing": {"context_tokens": 0},
    "context beyond reason": {"context_tokens": 2**70},
    "memory beyond reason": {"gpu_memory_bytes": 2**70},
    "memory of less than nothing": {"gpu_memory_bytes": -1},
    "control characters in its name": {"name": "llama\x1b]0;x\x07"},
    "control characters in its time": {"created_at": "2026\r\n"},
}


@pytest.mark.parametrize("case", SIGNED)
def test_what_a_trusted_key_signed_is_looked_at_all_the_same(case: str, tmp_path: Path) -> None:
    pack = tmp_path / "hostile.modelpack"
    pack.write_bytes(assemble(index_of(FILES_OF, **SIGNED[case]), FILES_OF))
    with pytest.raises(BadPack), open_pack(pack):
        pass


async def test_the_honest_pack_beside_them_is_taken(desk: PackDesk, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "small")
    pack_folder(folder, tmp_path / "small.modelpack")
    look = await desk.look(tmp_path / "small.modelpack")
    assert look.index.licence is not None
    row = await desk.bring(
        ACTOR,
        tmp_path / "small.modelpack",
        licence=look.index.licence.acceptance_sha256,
    )
    assert (row.name, row.architecture, row.context_tokens) == ("small:1", "llama", 2048)
    assert (row.facts.probe_prompt, row.facts.probe_answer) == ("Say river.", "river")
    for file in row.files:
        assert (row.folder / file.name).read_bytes() == (folder / file.name).read_bytes()


async def test_what_is_no_file_is_no_pack(desk: PackDesk, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "missing", Path("/dev/zero")):
        with pytest.raises(ModelPackError):
            await desk.look(path)
