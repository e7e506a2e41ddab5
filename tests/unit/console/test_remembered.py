"""What the console remembers of an account."""

from pathlib import Path

import pytest

from console.remembered import Remembered, keep, recall


def test_what_was_kept_is_recalled_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "state" / "console.json"
    assert recall(file) == (Remembered(), "")
    keep(file, Remembered(look="light"))
    keep(file, Remembered(look="contrast"))
    assert recall(file) == (Remembered(look="contrast"), "")
    assert [each.name for each in file.parent.iterdir()] == ["console.json"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"look": 3}', b"\xff\xfe", b"[]", b" " * 9000])
def test_a_file_that_makes_no_sense_is_passed_over_and_told_of(
    tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "console.json"
    file.write_bytes(content)
    found, notice = recall(file)
    assert found == Remembered()
    assert "damaged" in notice


def test_a_folder_in_its_place_is_told_of(tmp_path: Path) -> None:
    found, notice = recall(tmp_path)
    assert found == Remembered()
    assert "cannot be read" in notice
