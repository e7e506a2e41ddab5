"""Room: needs of one disk add up, and the refusal has both figures."""

import gzip
from pathlib import Path

import pytest

from installer.errors import NoRoom
from installer.space import SPARE, Disk, Need, disk_of, require_room, size_of, unpacked_size

MB = 10**6


def test_needs_of_one_disk_add_up() -> None:
    needs = [Need(Path("/a"), 60 * MB, "one"), Need(Path("/b"), 50 * MB, "two")]
    require_room(needs, lambda _: Disk(1, 110 * MB + SPARE))
    with pytest.raises(NoRoom) as refused:
        require_room(needs, lambda _: Disk(1, 110 * MB + SPARE - 1))
    assert "60 MB for one; 50 MB for two" in refused.value.message
    assert "177 MB free, and 177 MB are needed" in refused.value.message
    require_room(needs, lambda folder: Disk(ord(str(folder)[1]), 60 * MB + SPARE))


def test_the_disk_of_a_folder_that_is_not_there_is_that_of_its_parent(tmp_path: Path) -> None:
    assert disk_of(tmp_path / "not/there").id == tmp_path.stat().st_dev


def test_sizes(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 1000)
    (tmp_path / "d").mkdir()
    (tmp_path / "d/g").write_bytes(gzip.compress(b"y" * 70_000))
    assert size_of(tmp_path) == 1000 + (tmp_path / "d/g").stat().st_size
    assert unpacked_size(tmp_path / "d/g") == 70_000
    (tmp_path / "short").write_bytes(b"x")
    assert unpacked_size(tmp_path / "short") == 0
    assert size_of(tmp_path / "nowhere") == 0
