"""A bundle's folder: whether what was checked could be changed before it is used."""

import os
import tarfile
from pathlib import Path

import pytest

from installer.bundle import others_may_write, unpack_archive
from installer.errors import NotGenuine
from installer.space import unpacked_size


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "b/tree").mkdir(parents=True)
    (tmp_path / "b/tree/file").touch(mode=0o644)
    for path in (tmp_path, tmp_path / "b", tmp_path / "b/tree"):
        path.chmod(0o755)
    return tmp_path / "b"


def test_a_folder_of_ours_alone_is_read_where_it_is(folder: Path) -> None:
    assert not others_may_write(folder)


@pytest.mark.parametrize("name", ["..", ".", "tree", "tree/file"])
@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_one_that_others_may_write_anywhere_is_not(folder: Path, name: str, mode: int) -> None:
    (folder / name).chmod(mode)
    assert others_may_write(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("name", ["..", ".", "tree/file"])
def test_neither_is_one_of_another_owner(folder: Path, name: str) -> None:
    os.chown(folder / name, 65534, -1)
    assert others_may_write(folder)


def test_what_would_block_a_reader_is_refused(folder: Path) -> None:
    os.mkfifo(folder / "tree/pipe", 0o600)
    with pytest.raises(NotGenuine, match="tree/pipe is neither"):
        others_may_write(folder)


def test_an_archive_of_more_than_was_looked_for_fills_no_disk(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("one", "two"):
        (tmp_path / "b" / name).write_bytes(bytes(600_000))
    archive = tmp_path / "b.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "b", "b")
    size = unpacked_size(archive)
    assert unpack_archive(archive, tmp_path / "into", at_most=size).name == "b"
    with pytest.raises(NotGenuine, match="more than its end says"):
        unpack_archive(archive, tmp_path / "into", at_most=1_000_000)
    assert not (tmp_path / "into").exists()


@pytest.mark.parametrize("at", [0.3, 0.6, 0.9])
def test_a_damaged_archive_ends_in_no_traceback(tmp_path: Path, at: float) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b/one").write_bytes(os.urandom(200_000) + bytes(range(256)) * 2000)
    archive = tmp_path / "b.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "b", "b")
    content = bytearray(archive.read_bytes())
    content[int(len(content) * at)] ^= 0xFF
    content[int(len(content) * at) + 1] ^= 0xFF
    archive.write_bytes(content)
    try:
        unpack_archive(archive, tmp_path / "into", at_most=10**7)
    except NotGenuine:
        assert not (tmp_path / "into").exists()  # else its signature tells
