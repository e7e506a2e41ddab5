"""A bundle's folder: whether what was checked could be changed before it is used."""

import os
from pathlib import Path

import pytest

from installer.bundle import others_may_write
from installer.errors import NotGenuine


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
